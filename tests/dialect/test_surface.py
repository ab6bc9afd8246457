"""What the package offers, and what it may import."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import sqlml_dialect
from sqlml_dialect import call_nodes, clause_nodes, nodes

PACKAGE = Path(sqlml_dialect.__file__).parent
FUNCTIONS = {
    "fill_parameters",
    "find_calls",
    "format_sql",
    "name_sql",
    "parse",
    "point_at",
    "quote_identifier",
    "quote_string",
    "statement_kind",
    "to_sql",
}
TYPES = {"KINDS", "NOWHERE", "TABLE_FUNCTIONS", "Change", "Given", "Node", "Scalar", "Span", "Split", "Value"}


def test_the_surface_is_chosen() -> None:
    classes = {
        name
        for module in (nodes, clause_nodes, call_nodes)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert set(sqlml_dialect.__all__) == FUNCTIONS | TYPES | classes | {"DialectError"}
    assert all(hasattr(sqlml_dialect, name) for name in sqlml_dialect.__all__)


def test_nothing_is_imported_but_the_standard_library() -> None:
    allowed = {"sqlml_dialect", *sys.stdlib_module_names}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name


def test_importing_it_loads_no_other_package() -> None:
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); from sqlml_dialect import parse; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "sqlml_dialect" in loaded
    assert not {"sqlglot", "duckdb", "numpy"} & set(loaded)


def test_examples_in_the_docstring() -> None:
    assert doctest.testmod(sqlml_dialect).failed == 0
