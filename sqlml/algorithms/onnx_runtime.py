"""ONNX Runtime, imported: it keeps to itself, and to this machine."""

from __future__ import annotations

import os
from typing import Any


def onnxruntime() -> Any:
    """The module.  Of late (1.32) it tells its makers of its use, and keeps a file for that among the temporary ones, unless it
    is told not to, as it is here.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as module

    return module
