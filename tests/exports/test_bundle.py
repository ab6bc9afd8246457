"""Bundles as files and back: the same bytes, and nothing trusted."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqlml.bundles.model import Model
from sqlml.errors import BindError, BundleError, DataError, OperationalError
from sqlml.exports.bundle import Card, read_bundle, write_bundle
from sqlml.exports.foreign import Wishes, foreign_plan
from sqlml.exports.place import draft, remove, size_of
from sqlml.exports.reading import read_apart, read_model
from sqlml.exports.samples import sample_rows
from sqlml.plan import TrainOutcome
from tests.exports.made import make_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    return make_model(folder, "xgboost_classifier", ("no", "yes"), n_estimators=4)


def card_of(model: Model) -> Card:
    from sqlml.bundles.manifest import MANIFEST, file_sha256

    outcome = TrainOutcome(
        "xgboost_classifier", {}, 400, 0, "f", {"train": {"accuracy": 0.9}}, ((1, "train", "logloss", 0.5),),
        file_sha256(model.folder / MANIFEST), 1.0, 1, {"xgboost": "3"}, "", {"age": "number"}, (),
    )  # fmt: skip
    return Card("churn@3", "2026-11-20T10:00:00", foreign_plan("xgboost_classifier", "y", model.inputs), outcome)


@pytest.mark.parametrize("packed", [None, "tar", "gz"])
def test_there_and_back_is_the_same_to_the_bit(made: Model, tmp_path: Path, packed: str | None) -> None:
    target = tmp_path / "churn.bundle"
    write_bundle(made.folder, card_of(made), target, packed=packed)
    card = read_model(target, tmp_path / "read", Wishes())
    assert card == card_of(made)
    again = Model.open(tmp_path / "read", card.outcome.bundle_sha256)
    rows = sample_rows(made, 200)
    assert (again.raw(rows) == made.raw(rows)).all()
    assert {p.name for p in (tmp_path / "read").iterdir()} == {p.name for p in made.folder.iterdir()}


@pytest.mark.parametrize("packed", ["tar", "gz"])
def test_the_same_version_gives_the_same_file(made: Model, tmp_path: Path, packed: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made.folder, copy, copy_function=shutil.copyfile)
    os.utime(copy / "manifest.json", (1, 1))
    write_bundle(made.folder, card_of(made), tmp_path / "a", packed=packed)
    write_bundle(copy, card_of(made), tmp_path / "b", packed=packed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_neither_values_nor_the_machine_travel(made: Model, tmp_path: Path) -> None:
    card = card_of(made)
    told = replace(card, plan=replace(card.plan, parameters=("s3cret",)), outcome=replace(card.outcome, host="my-laptop"))
    write_bundle(made.folder, told, tmp_path / "b", packed=None)
    text = (tmp_path / "b" / "version.json").read_text()
    assert "s3cret" not in text
    assert "my-laptop" not in text
    assert read_bundle(tmp_path / "b", tmp_path / "read") == card
    _change("version.json", lambda d: d | {"plan": told.plan.to_json(), "outcome": told.outcome.to_json()})(tmp_path / "b")
    assert read_bundle(tmp_path / "b", tmp_path / "older").outcome.metrics == card.outcome.metrics


# --- what cannot be trusted -------------------------------------------------------------------------------------------


def tar_with(tmp_path: Path, *members: tarfile.TarInfo, data: bytes = b"x") -> Path:
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as tar:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return path


def _info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (_info("../escaped"), "points elsewhere"),
        (_info("/tmp/escaped"), "points elsewhere"),
        (_info("a/../../escaped"), "points elsewhere"),
        (_info("C:\\escaped"), "points elsewhere"),
        (_info("native", tarfile.SYMTYPE, "/etc"), "no plain file"),
        (_info("native", tarfile.LNKTYPE, "manifest.json"), "no plain file"),
        (_info("native", tarfile.FIFOTYPE), "no plain file"),
        (_info("native", tarfile.CHRTYPE), "no plain file"),
    ],
)
def test_a_tar_that_reaches_outside_is_refused(tmp_path: Path, member: tarfile.TarInfo, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_bundle(tar_with(tmp_path, member), tmp_path / "read")
    assert not (tmp_path / "escaped").exists()


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="two entries of the name"):
        read_bundle(tar_with(tmp_path, _info("a"), _info("a")), tmp_path / "read")


def test_too_large_a_tar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlml.exports.bundle.LARGEST", 10)
    with pytest.raises(BundleError, match="larger than any bundle"):
        read_bundle(tar_with(tmp_path, _info("a"), data=b"x" * 100), tmp_path / "read")


def test_a_folder_with_a_link_is_refused(made: Model, tmp_path: Path) -> None:
    write_bundle(made.folder, card_of(made), tmp_path / "b", packed=None)
    (tmp_path / "b" / "more").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="is a link"):
        read_bundle(tmp_path / "b", tmp_path / "read")


def _change(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(document)))

    return apply


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "version.json").unlink(), "has no version.json"),
        (lambda f: (f / "manifest.json").unlink(), "without manifest.json"),
        (lambda f: (f / "native" / "model.ubj").unlink(), "lists a file that is not there: native/model.ubj"),
        (lambda f: (f / "native" / "model.ubj").write_bytes(b"x"), "is damaged"),
        (lambda f: (f / "more.py").write_text("x"), "does not list a file: more.py"),
        (_change("version.json", lambda d: d | {"format": 99}), "was written in format 99"),
        (_change("version.json", lambda d: []), "cannot be read"),
        (_change("version.json", lambda d: d | {"plan": {}}), "cannot be read"),
        (_change("manifest.json", lambda d: d | {"example": {}}), "is not the one that version.json names"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(made: Model, tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    write_bundle(made.folder, card_of(made), tmp_path / "b", packed=None)
    damage(tmp_path / "b")
    with pytest.raises((BundleError, BindError), match=words):
        read_bundle(tmp_path / "b", tmp_path / "read")


def test_an_unknown_algorithm_is_named(made: Model, tmp_path: Path) -> None:
    from sqlml.bundles.manifest import file_sha256

    write_bundle(made.folder, card_of(made), tmp_path / "b", packed=None)
    _change("manifest.json", lambda d: d | {"heads": [d["heads"][0] | {"algorithm": "quantum_forest"}]})(tmp_path / "b")
    sha256 = file_sha256(tmp_path / "b" / "manifest.json")
    _change("version.json", lambda d: d | {"manifest_sha256": sha256})(tmp_path / "b")
    with pytest.raises(DataError, match="quantum_forest, which is not known here"):
        read_bundle(tmp_path / "b", tmp_path / "read")


@pytest.mark.slow
def test_truncated_and_flipped_files_give_one_clear_error(made: Model, tmp_path: Path) -> None:
    write_bundle(made.folder, card_of(made), tmp_path / "b.tar.gz", packed="gz")
    whole = (tmp_path / "b.tar.gz").read_bytes()
    rows = sample_rows(made, 20)
    for i in range(60):
        place = i * len(whole) // 60
        flipped = whole[:place] + bytes([whole[place] ^ (1 << i % 8)]) + whole[place + 1 :]
        for text in (whole[: max(1, place)], flipped):
            (tmp_path / "bad.tar.gz").write_bytes(text)
            try:
                read_model(tmp_path / "bad.tar.gz", tmp_path / "read", Wishes())
            except (BundleError, BindError, DataError):
                pass
            else:  # the flip was in what does not matter, such as a header's time
                assert (Model.open(tmp_path / "read").raw(rows) == made.raw(rows)).all()
            remove(tmp_path / "read")


@pytest.mark.slow
def test_a_child_that_comes_down_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crash.json").write_text("{")
    (tmp_path / "job").mkdir()
    monkeypatch.setattr("sqlml.exports.reading.sys.executable", "/bin/false")
    with pytest.raises(BundleError, match="brought its process down"):
        read_apart(tmp_path / "crash.json", tmp_path / "job", Wishes())


def test_nothing_there_and_a_near_name(tmp_path: Path) -> None:
    (tmp_path / "churn.tar").write_text("x")
    with pytest.raises(BindError, match=r"there is no file .*chum.tar") as caught:
        read_apart(tmp_path / "chum.tar", tmp_path, Wishes())
    assert caught.value.hint == "did you mean churn.tar?"


# --- writing: all or nothing ------------------------------------------------------------------------------------------


def _fail(number: int) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("packed", [None, "gz"])
def test_a_full_disk_leaves_what_was_there(
    made: Model, tmp_path: Path, packed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b"
    path.write_text("before")
    monkeypatch.setattr("sqlml.exports.place.os.fsync", _fail(errno.ENOSPC))
    with pytest.raises(OperationalError, match="the disk is full"), draft(path, overwrite=True) as beside:
        write_bundle(made.folder, card_of(made), beside, packed=packed)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert path.read_text() == "before"


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_leaves_nothing(made: Model, tmp_path: Path) -> None:
    """A real write that fails half-way, in a process of its own."""
    import subprocess
    import sys

    code = (
        "import resource, signal, sys; from pathlib import Path; from sqlml.exports.place import draft\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    with draft(Path(sys.argv[1]), overwrite=False) as beside: beside.write_bytes(bytes(100000))\n"
        "except Exception as error: print(type(error).__name__, error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.sql")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OperationalError cannot write")
    assert "larger than the system allows" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with draft(tmp_path / "x", overwrite=False) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_meanwhile_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, links in (("file", True), ("file", False), ("folder", True)):
        for theirs in ("file", "folder"):
            path = tmp_path / f"{kind}-{theirs}-{links}"

            def write(path: Path = path, kind: str = kind, theirs: str = theirs) -> None:
                with draft(path, overwrite=False) as beside:
                    _make(beside, kind, "ours")
                    _make(path, theirs, "theirs")

            with monkeypatch.context() as patch:
                if not links:
                    patch.setattr("sqlml.exports.place.os.link", _fail(errno.EPERM))
                with pytest.raises(BindError, match="is there already"):
                    write()
            assert size_of(path) == (1, len("theirs"))
            remove(path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlml.exports.place.os.link", _fail(errno.EPERM))
    with draft(tmp_path / "x", overwrite=False) as beside:
        beside.write_text("ours")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "ours"


def _make(path: Path, kind: str, text: str) -> None:
    if kind == "folder":
        path.mkdir()
        path = path / text
    path.write_text(text)


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("before", ["file", "folder"])
def test_overwrite_replaces_files_and_folders(tmp_path: Path, kind: str, before: str) -> None:
    path = tmp_path / "x"
    _make(path, before, "version.json")
    with pytest.raises(BindError, match="is there already"), draft(path, overwrite=False):
        pass
    with draft(path, overwrite=True) as beside:
        _make(beside, kind, "new")
    assert size_of(path) == (1, 3)
    assert path.is_file() == (kind == "file")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    _make(path, "folder", "precious")
    with pytest.raises(BindError, match="a folder that no EXPORT has written"), draft(path, overwrite=True):
        pass
    assert (path / "precious").read_text() == "precious"
    (path / "precious").unlink()
    with draft(path, overwrite=True) as beside:  # an empty one may be
        _make(beside, "folder", "new")
    assert [p.name for p in path.iterdir()] == ["new"]


def test_places_that_cannot_be_written_teach(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, words in (
        (tmp_path / "none" / "x", "there is no folder"),
        (tmp_path / "file" / "x", "is a file, not a folder"),
        (Path("/proc/sqlml-export"), "cannot write /proc/sqlml-export"),
        (Path("/"), "is not a path"),
    ):
        with pytest.raises((BindError, OperationalError), match=words), draft(path, overwrite=False) as beside:
            beside.write_text("x")
