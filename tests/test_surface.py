"""What a person meets first: the names of the module, how much it imports, and that the documents tell the truth."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sqlml
from sqlml.registry import ALGORITHMS, ENGINES, INSTALLERS, RUNNER_TYPES, RUNNERS, SERVER, TARGETS, load

ROOT = Path(__file__).parent.parent
VIEWS = "SELECT view_name FROM duckdb_views() WHERE database_name = 'sqlml' AND NOT internal"
HEAVY = {"xgboost", "sklearn", "fastapi", "pandas", "torch", "onnx", "onnxruntime", "duckdb", "pyarrow", "numpy", "sqlalchemy"}


def test_importing_sqlml_imports_nothing_heavy() -> None:
    script = "import sys, sqlml; print('\\n'.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


def test_connecting_imports_no_learning_library() -> None:
    script = "import sys, sqlml; sqlml.connect().close(); print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"xgboost", "sklearn", "fastapi", "pandas", "onnx"}.isdisjoint(done.stdout.split())


def test_every_name_of_the_surface_is_there() -> None:
    assert [name for name in sqlml.__all__ if not hasattr(sqlml, name)] == []


_TABLES = (ALGORITHMS, RUNNERS, RUNNER_TYPES, ENGINES, TARGETS, INSTALLERS)


@pytest.mark.parametrize("spec", [*(spec for table in _TABLES for spec in table.values()), SERVER])
def test_the_registry_names_what_exists(spec: str) -> None:
    assert isinstance(load(spec), type)


@pytest.mark.parametrize("module", ["sqlml", "sqlml.data", "sqlml_dialect"])
def test_examples_in_docstrings_are_true(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0
    assert failed == 0


def test_the_reference_lists_the_relations_and_algorithms() -> None:
    reference = ROOT / "dialect" / "reference"
    with sqlml.connect() as connection:
        found = connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE database_name = 'sqlml' AND NOT internal"
        ).fetchall()
    listed = re.findall(r"^\| (`.+?`) \|", (reference / "relations.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(listed))) == sorted(name for (name,) in found)
    algorithms = (reference / "algorithms.md").read_text(encoding="utf-8")
    assert [name for name in ALGORITHMS if f"`{name}`" not in algorithms] == []


PACKAGES = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("sqlml/*/__init__.py"))


def test_every_package_has_a_page() -> None:
    assert len(PACKAGES) > 10
    assert [package for package in PACKAGES if not (ROOT / package / "README.md").is_file()] == []


def test_a_page_names_the_modules_beside_it() -> None:
    pages = [*ROOT.glob("sqlml/**/README.md"), *ROOT.glob("runners/sqlml_runners/**/README.md")]
    missing = [
        path.relative_to(ROOT).as_posix()
        for page in pages
        for path in page.parent.glob("*.py")
        if not path.name.startswith("_") and path.stem not in page.read_text(encoding="utf-8")
    ]
    assert len(pages) > 20
    assert missing == []


@pytest.mark.parametrize("folder", ["sqlml", "dialect", "runners", "udfs", "tests", "notebooks"])
def test_every_folder_says_what_lives_in_it(folder: str) -> None:
    assert "may import" in (ROOT / folder / "README.md").read_text(encoding="utf-8").lower()


def test_links_in_the_readmes_lead_somewhere() -> None:
    pages = [path for path in ROOT.glob("**/*.md") if ".venv" not in path.parts]
    assert len(pages) > 50
    for path in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_a_fresh_clone_gets_what_was_tested() -> None:
    """Every package that ours names has one version in the constraints, but for those of a machine with a GPU."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *(need for extra, needs in extras.items() if extra != "gpu" for need in needs)]
    names = {re.split(r"[\[<>=]", need)[0].lower() for need in listed}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert {name for name, _, version in pinned if version} == names
