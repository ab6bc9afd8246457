"""MLServer with the same model, in an environment of its own: it needs gigabytes, and packages that are not ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("mlserver==1.7.1", "mlserver-xgboost==1.7.1", "uvloop<0.22")
"""uvloop: with a newer one MLServer's pool of workers dies."""


def command_of_mlserver(folder: Path, port: int, features: int) -> list[str] | None:
    """The command that serves ``model.json`` as the model ``m``; None where it cannot be installed, with the reason printed."""
    place = Path(tempfile.gettempdir()) / f"sqlml-bench-mlserver-{sys.version_info[0]}{sys.version_info[1]}"
    if not (place / "ready").exists() and not _install(place):
        return None
    served = folder / "mlserver"
    served.mkdir(exist_ok=True)
    settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0, "debug": False}
    (served / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    model = {
        "name": "m",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": str(folder / "model.json"), "extra": {}},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, features]}],
        "outputs": [{"name": "predict_proba", "datatype": "FP32", "shape": [-1, 2]}],
    }
    (served / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return [str(place / "bin" / "mlserver"), "start", str(served)]


def _install(place: Path) -> bool:
    print(f"mlserver: installing {', '.join(PACKAGES)} into {place}")
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
        command = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "stderr", None) or str(error)
        print(f"mlserver: skipped, it cannot be installed: {str(reason).strip().splitlines()[-1]}")
        return False
    (place / "ready").touch()
    return True
