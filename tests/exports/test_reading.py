"""The child process that reads a file: it can be stopped, it ends with its parent, and it imports nothing of the folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sqlml.errors import BindError, BundleError, Cancelled, OperationalError
from sqlml.exports.blame import option_of
from sqlml.exports.foreign import Wishes
from sqlml.exports.reading import read_apart


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose reading takes a minute; the folder of the job is beside it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    (tmp_path / "m.json").write_text("{")
    (tmp_path / "job").mkdir()
    return tmp_path / "m.json"


def stop_after(calls: int) -> Callable[[], None]:
    left = [calls]

    def alive() -> None:
        left[0] -= 1
        if not left[0]:
            raise Cancelled("cancelled")

    return alive


@pytest.mark.slow
def test_it_can_be_cancelled(slow: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Cancelled):
        read_apart(slow, slow.parent / "job", Wishes(), stop_after(4))
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_it_has_limits(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sqlml.exports.reading.SHARE", 0.0)
        with pytest.raises(OperationalError, match="took more than"):
            read_apart(slow, slow.parent / "job", Wishes())
    monkeypatch.setattr("sqlml.exports.reading.SECONDS", 0.2)
    with pytest.raises(OperationalError, match="not read within"):
        read_apart(slow, slow.parent / "job", Wishes())


@pytest.mark.slow
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    request = {"path": str(tmp_path / "m.json"), "folder": str(tmp_path), "wishes": {}}
    (tmp_path / "import.json").write_text(json.dumps(request))
    code = (
        "import sys, time; from pathlib import Path; from sqlml.exports import reading\n"
        "reading.read_model = lambda *given: (print('reads', flush=True), time.sleep(60))\n"
        "reading.main(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "import.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "reads\n"
        child.stdin.close()
        assert child.wait(20) == 1


@pytest.mark.slow
def test_it_imports_nothing_of_the_folder_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("open('ran', 'w').close()\nraise SystemExit(9)\n")
    (tmp_path / "m.json").write_text("{")
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="XGBoost cannot read"):
        read_apart(tmp_path / "m.json", tmp_path / "job", Wishes())
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_an_error_says_which_option_it_is_about(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "job").mkdir()
    with pytest.raises(BindError, match="no option classes") as caught:
        read_apart(tmp_path / "b", tmp_path / "job", Wishes(classes=("a", "b")))
    assert option_of(caught.value) == "classes"
