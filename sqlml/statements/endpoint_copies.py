"""The copies of tables that endpoints look into: which there are, and when they go."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import Any

from sqlml.catalog import Catalog, Endpoint
from sqlml.statements.refresh_schedule import schedule_text

UNUSED_SECONDS = 600.0
"""A copy that no endpoint names is removed when it is so old: a statement that is under way may be about to name it."""


def copies_text(catalog: Catalog, endpoint: Endpoint) -> list[str] | None:
    """For each table that an endpoint looks into, how large its copy is and how old; None where it looks into none.

    Last what is to be known of its schedule, where something is.
    """
    names = _names(endpoint.definition)
    if not names:
        return None
    from sqlml.composition.copies import copy_info, copy_path, describe_copy

    infos = [copy_info(copy_path(catalog.home.lookups, name)) for name in names]
    texts = [describe_copy(info) if info else "missing: REFRESH ENDPOINT makes it again" for info in infos]
    schedule = schedule_text(catalog.home, endpoint)
    return [*texts, *([schedule] if schedule else ())]


def copies_of(catalog: Catalog, endpoint: str, *, undone: bool = True) -> set[str]:
    """The names of all copies that an endpoint ever had; without ``undone`` those that ROLLBACK could go back to."""
    changes = [c for c in catalog.endpoint_changes() if c["endpoint"] == endpoint.lower() and (undone or c["stands"])]
    return {name for change in changes for name in _names(change["state"]["definition"])}


def remove_copies(catalog: Catalog, names: set[str]) -> None:
    """Remove copies that nothing names any more; whoever reads one still can."""
    from sqlml.composition.copies import copy_path

    for name in names:
        copy_path(catalog.home.lookups, name).unlink(missing_ok=True)


def remove_unused(catalog: Catalog) -> None:
    """Remove what statements that were killed have left, and copies that no endpoint names or could again by ROLLBACK."""
    from sqlml.composition.copies import SUFFIX

    named = {name for endpoint in catalog.endpoints() for name in copies_of(catalog, endpoint.name, undone=False)}
    for path in catalog.home.lookups.glob("*"):
        if path.name.removesuffix(SUFFIX) not in named and path.stat().st_mtime < time.time() - UNUSED_SECONDS:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _names(definition: Mapping[str, Any] | None) -> list[str]:
    return [step["copy"] for step in (definition or {}).get("steps", ()) if "copy" in step]
