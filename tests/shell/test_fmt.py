"""``sqlml fmt``: files laid out in place, or only looked at; a file that cannot be read stays as it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sqlml.shell import fmt
from sqlml.shell.main import main
from tests.shell.test_command import sqlml

ROUGH = "-- a road\nselect  1 ;\ntrain model m target y as select *  from t ;\n"
SMOOTH = "-- a road\nselect  1 ;\nTRAIN MODEL m\n    TARGET y\nAS\nselect *  from t;\n"
WRONG = "SELECT 1;\n\n  TRAIN MODEL m TARGTE y AS SELECT 1;\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"rough.sql": ROUGH, "smooth.sql": SMOOTH, "wrong.sql": WRONG, "empty.sql": ""}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_are_laid_out_in_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rough.sql").chmod(0o640)
    assert main(["fmt", "rough.sql", "smooth.sql", "empty.sql"]) == 0
    assert capsys.readouterr() == ("rough.sql\n", "")
    assert (folder / "rough.sql").read_text() == SMOOTH
    assert stat.S_IMODE((folder / "rough.sql").stat().st_mode) == 0o640
    assert main(["fmt", "rough.sql"]) == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(path.name for path in folder.iterdir()) == ["empty.sql", "rough.sql", "smooth.sql", "wrong.sql"]


def test_check_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--check", "smooth.sql", "rough.sql"]) == 1
    assert capsys.readouterr() == ("rough.sql\n", "")
    assert (folder / "rough.sql").read_text() == ROUGH
    assert main(["fmt", "--check", "smooth.sql", "empty.sql"]) == 0


def test_a_file_that_cannot_be_read_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "latin.sql").write_bytes(b"SELECT '\xe9'")
    assert main(["fmt", "wrong.sql", "none.sql", "latin.sql", "rough.sql"]) == 2
    out, err = capsys.readouterr()
    assert out == "rough.sql\n"
    assert err.splitlines()[0] == "wrong.sql:3:17: error: unknown clause TARGTE"
    assert "  did you mean TARGET?" in err.splitlines()
    assert err.splitlines()[-2:] == [
        "none.sql: error: No such file or directory",
        "latin.sql: error: it is not UTF-8 text (byte 8)",
    ]
    assert (folder / "wrong.sql").read_text() == WRONG


def test_line_breaks_and_links_are_kept(folder: Path) -> None:
    (folder / "windows.sql").write_bytes(b"\xef\xbb\xbf" + ROUGH.replace("\n", "\r\n").encode())
    (folder / "link.sql").symlink_to("windows.sql")
    assert main(["fmt", "link.sql"]) == 0
    assert (folder / "link.sql").is_symlink()
    assert (folder / "windows.sql").read_bytes() == SMOOTH.replace("\n", "\r\n").encode()


def test_a_write_that_fails_leaves_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["fmt", "rough.sql"]) == 2
    monkeypatch.undo()
    assert (folder / "rough.sql").read_text() == ROUGH
    assert len(list(folder.iterdir())) == 4


def test_a_text_that_would_mean_something_else_is_never_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fmt, "format_sql", lambda text: text.replace("target y", "target z"))
    assert main(["fmt", "rough.sql"]) == 2
    assert "a fault of sqlml itself" in capsys.readouterr().err
    assert (folder / "rough.sql").read_text() == ROUGH


def test_standard_input_goes_to_standard_output() -> None:
    done = sqlml("fmt", "-", stdin=ROUGH)
    assert (done.returncode, done.stdout, done.stderr) == (0, SMOOTH, "")
    done = sqlml("fmt", "--check", "-", stdin=ROUGH)
    assert (done.returncode, done.stdout) == (1, "standard input\n")
    done = sqlml("fmt", "-", stdin=WRONG)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("standard input:3:17: error: unknown clause TARGTE\n")


def test_wrong_use() -> None:
    done = sqlml("fmt")
    assert done.returncode == 2
    assert "FILE" in done.stderr
