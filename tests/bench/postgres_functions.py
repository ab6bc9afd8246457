"""``python -m tests.bench postgres_functions``: tree ensembles inside PostgreSQL, written in each way that needs no extension.

Of every way and size: how long it takes to create, the first call of a session, a call alone in its transaction, a row of a
table, and the memory that a session holds afterwards.  ``case`` is what sqlml makes (``sqlml_udfs.postgres.trees``), the others
are here for comparison only; each is held against the library's own margins.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
import xgboost as xgb
from sqlml_udfs.postgres.body import Body
from sqlml_udfs.postgres.encode import Number
from sqlml_udfs.postgres.text import real, real_text
from sqlml_udfs.postgres.trees import margins

from sqlml.algorithms.boosters import Forest, Tree, read_forest
from tests.bench.tables import FEATURES, make_data
from tests.servers import postgres_url

SIZES = ((10, 3), (10, 6), (10, 8), (100, 3), (100, 6), (100, 8), (500, 3), (500, 6), (500, 8))
_PATIENCE = 10.0
"""Seconds for the rows of one way; a slower one is measured on fewer."""

_ARGUMENTS = ", ".join(f"a{i} float8" for i in range(FEATURES))
_ROW = f"ARRAY[{','.join(f'${i + 1}::real' for i in range(FEATURES))}]"
_VARIABLES = " ".join(f"f{i} real := ${i + 1}::real;" for i in range(FEATURES))
_PURE = "IMMUTABLE PARALLEL SAFE"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench postgres_functions")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--sizes", nargs="*", default=[f"{t}x{d}" for t, d in SIZES], help="trees x depth")
    parser.add_argument("--url", help="a server; a new one, if left out")
    options = parser.parse_args(arguments)
    url = options.url or postgres_url()
    x, y = make_data(200_000)
    load(url, x[: options.rows])
    print(f"{options.rows:,} rows of {FEATURES} numbers")
    heads = ("create", "first", "alone", "a row", "memory")
    print(f"{'trees x depth':>14} {'nodes':>8}  {'way':10} {' '.join(f'{head:>9}' for head in heads)}   differs")
    for size in options.sizes:
        trees, depth = (int(part) for part in size.split("x"))
        booster = train(x, y, trees, depth)
        forest = read_forest(booster)
        expected = booster.inplace_predict(x[: options.rows], predict_type="margin")
        for way in options.only:
            measure(url, way, forest, expected, size)


def train(x: np.ndarray, y: np.ndarray, trees: int, depth: int) -> xgb.Booster:
    options = {"objective": "binary:logistic", "max_depth": depth, "tree_method": "hist"}
    return xgb.train(options, xgb.QuantileDMatrix(x, y), trees)


def load(url: str, x: np.ndarray) -> None:
    """The table ``t``."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute(f"CREATE TABLE t ({', '.join(f'c{i} float8' for i in range(FEATURES))})".encode())
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            for row in x.astype(float).tolist():
                copy.write_row(row)
        connection.execute("VACUUM ANALYZE t")


def measure(url: str, way: str, forest: Forest, expected: np.ndarray, size: str) -> None:
    """One line of the table."""
    with psycopg.connect(url, autocommit=True) as connection:
        for text in ("DROP FUNCTION IF EXISTS f", "DROP TABLE IF EXISTS nodes", "SET max_parallel_workers_per_gather TO 0"):
            connection.execute(text.encode())
        texts = WAYS[way](forest)
        create = seconds(lambda: [connection.execute(text.encode()) for text in texts])
    with psycopg.connect(url, autocommit=True) as connection:

        def run(text: str) -> list[tuple[Any, ...]]:
            return connection.execute(text.encode()).fetchall()

        run("SELECT set_config('max_parallel_workers_per_gather', '0', false)")
        cast = "::real" if way == "sql case" else ""
        call = f"f({','.join(f'c{i}{cast}' for i in range(FEATURES))})"
        one = f"SELECT {call} FROM t LIMIT 1"
        first, alone = seconds(lambda: run(one)), seconds(lambda: run(one))
        pace = max(1e-6, (seconds(lambda: run(f"SELECT {call} FROM t LIMIT 11")) - alone) / 10)
        rows = min(len(expected), max(10, int(_PATIENCE / pace)))
        found: list[Any] = []
        every = f"SELECT {call} FROM t LIMIT {rows}"
        spent = min(seconds(lambda: found.extend(run(every))), seconds(lambda: run(every)))
        [(memory,)] = run("SELECT sum(total_bytes)::float8 FROM pg_backend_memory_contexts")
    differs = np.abs(np.array([row[0] for row in found]) - expected[:rows]).max()
    print(
        f"{size:>14} {forest.nodes:8,}  {way:10} {create * 1e3:6.0f} ms {first * 1e3:6.1f} ms {alone * 1e3:6.1f} ms "
        f"{spent / rows * 1e6:7.1f} µs {memory / 1e6:6.1f} MB  {differs:.1e}",
        flush=True,
    )


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


# --- the ways ---------------------------------------------------------------------------------------------------------


def case(forest: Forest) -> list[str]:
    """What sqlml makes: a CASE for each tree, ten in an expression, in PL/pgSQL."""
    body = Body([])
    [margin] = margins(body, forest, [Number(body.declare("real", f"${i + 1}::real"), i) for i in range(FEATURES)])
    return [f"CREATE FUNCTION f({_ARGUMENTS}) RETURNS float8 LANGUAGE plpgsql {_PURE} AS $${body.text(margin)}$$"]


def sql_case(forest: Forest) -> list[str]:
    """The same as one expression of an SQL function, which becomes part of each query that calls it."""
    arguments = ", ".join(f"f{i} real" for i in range(FEATURES))
    total = "+".join([real(forest.base[0]), *(f"({_nested(tree, 0)})" for tree in forest.trees)])
    return [f"CREATE FUNCTION f({arguments}) RETURNS float8 LANGUAGE sql {_PURE} AS $$SELECT ({total})::float8$$"]


def _nested(tree: Tree, node: int) -> str:
    if tree.left[node] < 0:
        return real(tree.value[node])
    left, right = (_nested(tree, int(side[node])) for side in (tree.left, tree.right))
    bound = real_text(tree.value[node])
    if tree.default_left[node]:
        return f"CASE WHEN f{tree.feature[node]}>='{bound}' THEN {right} ELSE {left} END"
    return f"CASE WHEN f{tree.feature[node]}<'{bound}' THEN {left} ELSE {right} END"


def if_trees(forest: Forest) -> list[str]:
    """PL/pgSQL's own IF for each node."""
    trees = "\n".join(_ifs(tree, 0) for tree in forest.trees)
    body = f"DECLARE {_VARIABLES} m real := {real(forest.base[0])}; BEGIN {trees} RETURN m; END"
    return [f"CREATE FUNCTION f({_ARGUMENTS}) RETURNS float8 LANGUAGE plpgsql {_PURE} AS $${body}$$"]


def _ifs(tree: Tree, node: int) -> str:
    if tree.left[node] < 0:
        return f"m:=m+{real(tree.value[node])};"
    left, right = (_ifs(tree, int(side[node])) for side in (tree.left, tree.right))
    bound = real_text(tree.value[node])
    if tree.default_left[node]:
        return f"IF f{tree.feature[node]}>='{bound}' THEN {right} ELSE {left} END IF;"
    return f"IF f{tree.feature[node]}<'{bound}' THEN {left} ELSE {right} END IF;"


def _arrays(forest: Forest) -> dict[str, str]:
    """The nodes of all trees as literals, numbered from 1; a leaf has feature 0."""
    columns: dict[str, list[object]] = {name: [] for name in ("root", "feature", "value", "lower", "upper", "missing")}
    for tree in forest.trees:
        start = len(columns["feature"]) + 1
        columns["root"].append(start)
        for node in range(len(tree.left)):
            inner = tree.left[node] >= 0
            columns["feature"].append(int(tree.feature[node]) + 1 if inner else 0)
            columns["value"].append(real_text(tree.value[node]))
            columns["lower"].append(start + int(tree.left[node]) if inner else 0)
            columns["upper"].append(start + int(tree.right[node]) if inner else 0)
            columns["missing"].append("t" if tree.default_left[node] else "f")
    types = {"value": "real[]", "missing": "boolean[]"}
    return {name: f"'{{{','.join(map(str, own))}}}'::{types.get(name, 'integer[]')}" for name, own in columns.items()}


_STEP = "CASE WHEN coalesce(x[feature[n]] < value[n], missing[n]) THEN lower[n] ELSE upper[n] END"
_LOOP = (
    f"""FOREACH n IN ARRAY root LOOP WHILE feature[n] > 0 LOOP n := {_STEP}; END LOOP; m := m + value[n]; END LOOP; RETURN m;"""
)
_TYPED = "root integer[]; feature integer[]; value real[]; lower integer[]; upper integer[]; missing boolean[];"


def loop(forest: Forest) -> list[str]:
    """A loop over arrays that stand in the function as constants."""
    constants = " ".join(f"{name} CONSTANT {text.rpartition('::')[2]} := {text};" for name, text in _arrays(forest).items())
    body = f"DECLARE {constants} x real[] := {_ROW}; m real := {real(forest.base[0])}; n integer; BEGIN {_LOOP} END"
    return [f"CREATE FUNCTION f({_ARGUMENTS}) RETURNS float8 LANGUAGE plpgsql {_PURE} AS $${body}$$"]


def _nodes(forest: Forest) -> str:
    return f"CREATE TABLE nodes AS SELECT {', '.join(f'{text} AS {name}' for name, text in _arrays(forest).items())}"


def table_loop(forest: Forest) -> list[str]:
    """A loop over arrays that are read from a table at each call."""
    fetch = "SELECT t.* INTO root, feature, value, lower, upper, missing FROM nodes AS t;"
    body = f"DECLARE {_TYPED} x real[] := {_ROW}; m real := {real(forest.base[0])}; n integer; BEGIN {fetch} {_LOOP} END"
    stable = "STABLE PARALLEL SAFE"
    return [_nodes(forest), f"CREATE FUNCTION f({_ARGUMENTS}) RETURNS float8 LANGUAGE plpgsql {stable} AS $${body}$$"]


def recursive(forest: Forest) -> list[str]:
    """A recursive query, all trees a level at a time."""
    step = _STEP.replace("[n]", "[s.n]").replace("x[feature", "r.x[r.feature")
    query = f"""WITH RECURSIVE r AS MATERIALIZED (SELECT {_ROW} AS x, t.* FROM nodes AS t),
        s(tree, n) AS (SELECT u.tree, u.n FROM r, unnest(r.root) WITH ORDINALITY AS u(n, tree)
            UNION ALL SELECT s.tree, {step} FROM s, r WHERE r.feature[s.n] > 0)
        SELECT {real(forest.base[0])} + sum(r.value[s.n] ORDER BY s.tree) FROM s, r WHERE r.feature[s.n] = 0"""
    return [_nodes(forest), f"CREATE FUNCTION f({_ARGUMENTS}) RETURNS float8 LANGUAGE sql STABLE AS $${query}$$"]


def lateral(forest: Forest) -> list[str]:
    """One query over the trees, a LATERAL step for each level."""
    depth = max(tree.depth for tree in forest.trees)
    constants = " ".join(f"{name} CONSTANT {text.rpartition('::')[2]} := {text};" for name, text in _arrays(forest).items())
    steps = "".join(
        f" CROSS JOIN LATERAL (SELECT CASE WHEN feature[n{i}] = 0 THEN n{i} ELSE {_STEP.replace('n]', f'n{i}]')} END OFFSET 0)"
        f" AS s{i + 1}(n{i + 1})"
        for i in range(depth)
    )
    query = f"SELECT {real(forest.base[0])} + sum(value[n{depth}]) INTO m FROM unnest(root) AS s0(n0){steps};"
    body = f"DECLARE {constants} x real[] := {_ROW}; m real; BEGIN {query} RETURN m; END"
    return [f"CREATE FUNCTION f({_ARGUMENTS}) RETURNS float8 LANGUAGE plpgsql {_PURE} AS $${body}$$"]


WAYS: Mapping[str, Callable[[Forest], list[str]]] = {
    "case": case,
    "sql case": sql_case,
    "if": if_trees,
    "loop": loop,
    "table loop": table_loop,
    "lateral": lateral,
    "recursive": recursive,
}
