"""Whether the bundles that are served are still whole on disk.  A served version needs them no more, but the next worker will."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sqlml.bundles.manifest import Manifest
from sqlml.catalog import Arm
from sqlml.errors import BundleError

_Look = tuple[tuple[str, int, int, int], ...]


class Inspector:
    """Looks at files' sizes and times; only where they changed, at their contents.  ``damaged``: by the version's uid, why."""

    def __init__(self) -> None:
        self._seen: dict[str, _Look] = {}
        self.damaged: dict[str, str] = {}

    def inspect(self, arms: Iterable[Arm]) -> list[str]:
        """Look again at all that is served; what is new, in words.  Reads files: not for the event loop."""
        news, present = [], set()
        for arm in arms:
            present.add(arm.uid)
            look = _look(arm.bundle)
            if self._seen.get(arm.uid) != look:
                self._seen[arm.uid] = look
                news += self._examine(arm)
        for uid in self._seen.keys() - present:
            del self._seen[uid]
            self.damaged.pop(uid, None)
        return news

    def _examine(self, arm: Arm) -> list[str]:
        try:
            Manifest.read(arm.bundle, arm.sha256)
        except (BundleError, OSError, ValueError) as error:
            reason = error.message if isinstance(error, BundleError) else str(error)
            self.damaged[arm.uid] = reason
            return [f"{arm.name} is damaged on disk, serving on from memory: {reason}"]
        return [f"{arm.name} is whole again"] if self.damaged.pop(arm.uid, None) else []


def _look(folder: Path) -> _Look:
    try:
        return tuple(sorted(_stamps(folder, "")))
    except OSError:
        return ()


def _stamps(folder: Path, prefix: str) -> list[tuple[str, int, int, int]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += _stamps(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                status = entry.stat()
                found.append((prefix + entry.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return found
