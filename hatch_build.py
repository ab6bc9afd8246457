"""Builds the native loops of ``sqlml/native`` when the package is installed; without a compiler the package goes without them.

``python hatch_build.py`` builds them in place.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand
    BuildHookInterface = object

FOLDER = Path(__file__).resolve().parent / "sqlml" / "native"
SOURCES = ("trees.c", "pruning.c", "duckdb_function.c", "rows.c", "matrix.c", "figures.c")
TARGET = "libsqlml.so"
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fno-trapping-math")
"""No -ffast-math, no contraction: sums and comparisons are those of IEEE 754."""


def build() -> str | None:
    """Build the library; None where that worked, else why not."""
    compiler = (
        shlex.split(os.environ.get("CC", ""))
        or [found for found in (shutil.which(name) for name in ("cc", "gcc", "clang")) if found][:1]
    )
    if not compiler:
        return "no C compiler (cc, gcc, clang, or $CC)"
    new = FOLDER / f"{TARGET}.{os.getpid()}"
    try:
        done = subprocess.run(
            [*compiler, *FLAGS, "-o", str(new), *SOURCES, "-lm", "-lpthread"], cwd=FOLDER, capture_output=True, text=True
        )
        if done.returncode:
            return f"{compiler[0]} failed: {done.stderr.strip()[-500:]}"
        new.replace(FOLDER / TARGET)
    except OSError as error:
        return f"{compiler[0]}: {error}"
    finally:
        new.unlink(missing_ok=True)
    return None


class CustomBuildHook(BuildHookInterface):
    """Hatchling's hook: a wheel with the library is one of a platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the files are gathered."""
        if self.target_name != "wheel":
            return
        reason = build()
        if reason is not None:
            self.app.display_warning(f"sqlml: the native loops were not built, predictions will be slower: {reason}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"
        build_data["artifacts"].append(f"sqlml/native/{TARGET}")


def _platform() -> str:
    import sysconfig

    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    sys.exit(build())
