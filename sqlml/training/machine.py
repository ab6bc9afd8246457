"""What a job takes of its machine, and which libraries it runs with."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from sqlml.contracts import Algorithm


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_budget(limit: int | None) -> int:
    """The bytes that the job may hold: its limit, or what is free now."""
    import psutil

    return limit or int(psutil.virtual_memory().available)


def give_back() -> None:
    """Hand memory that is free in this process, and kept for the next time, back to the system; where the C library is GNU's."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage tells of the process that started this one, too: its peak is handed on by exec
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def library_versions(algorithms: Iterable[Algorithm]) -> dict[str, str]:
    """The versions of Python, of sqlml and of what the algorithms stand on."""
    own = [name for algorithm in algorithms for name in algorithm.libraries]
    names = dict.fromkeys(("sqlml", *own, "numpy", "pyarrow"))
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    from importlib import metadata

    for distribution in (name, f"{name}-cpu", f"{name}-gpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    if name == "sqlml":
        from sqlml.version import __version__

        return __version__
    return "unknown"
