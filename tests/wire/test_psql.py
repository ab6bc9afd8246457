"""psql's commands, on sqlml and on a real PostgreSQL of the version that psql is: the same text comes back."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.wire.places import USER, Place

pytestmark = pytest.mark.slow

PSQL = shutil.which("psql")

SAME = (
    "\\d", "\\dt", "\\dv", "\\di", "\\ds", "\\du", "\\df", "\\dT", "\\db", "\\dD", "\\do", "\\ddp", "\\det", "\\dew",
    "\\drds", "\\dRp",
    "\\d kids", "\\d grown", "\\d other.far", "\\d kids_note", "\\d counter", "\\dt other.*", "\\dt *ids", "\\d+ kids", "\\dp",
    "SELECT id, name, amount, tags FROM parents ORDER BY id", "SELECT id, name, amount, tags FROM parents \\gdesc",
    "SELECT 1 AS one \\gset\n\\echo :one", "\\copy (SELECT id, name FROM parents ORDER BY id) TO STDOUT CSV HEADER",
    "SELECT 1; SELECT 2", "SELECT nope FROM parents", "SELEC 1", "BEGIN; SELECT 1; COMMIT", "UPDATE parents SET name = name",
    "\\encoding", "SHOW TIME ZONE", "\\x\nSELECT id, name FROM parents ORDER BY id", "\\dconfig nothing_like_this",
)  # fmt: skip
"""What answers letter for letter alike."""


def psql(place: Place, command: str) -> tuple[str, str, int]:
    assert PSQL is not None
    arguments = [PSQL, "-X", "-h", place.host, "-p", str(place.port), "-U", USER, place.database]
    done = subprocess.run(arguments, input=command + "\n", capture_output=True, text=True, timeout=60, env={"PGTZ": "UTC"})
    return done.stdout, done.stderr, done.returncode


@pytest.mark.skipif(PSQL is None, reason="there is no psql on this machine")
@pytest.mark.parametrize("command", SAME)
def test_same_text(command: str, places: tuple[Place, Place]) -> None:
    ours, theirs = (psql(place, command) for place in places)
    if "nope" in command or "SELEC " in command:  # each database has its own words; psql's caret stands in the same place
        ours, theirs = (("", "\n".join(found[1].splitlines()[1:3]), found[2]) for found in (ours, theirs))
    assert ours == theirs


@pytest.mark.skipif(PSQL is None, reason="there is no psql on this machine")
def test_databases_and_schemas(places: tuple[Place, Place]) -> None:
    ours = places[0]
    assert f" {ours.database} " in psql(ours, "\\l")[0]
    names = [line.split("|")[0].strip() for line in psql(ours, "\\dn")[0].splitlines()]
    assert {"other", "public", "sqlml"} <= set(names)


@pytest.mark.skipif(PSQL is None, reason="there is no psql on this machine")
def test_a_model_is_a_function_and_its_training_tells_how_it_goes(places: tuple[Place, Place]) -> None:
    ours = places[0]
    train = "TRAIN MODEL doubles USING linear_regression TARGET y ON inline AS SELECT range AS x, 2 * range AS y FROM range(50);"
    out, notices, status = psql(ours, train)
    assert status == 0
    assert " doubles |       1 | linear_regression " in out
    assert "NOTICE:  training" in notices
    assert "INFO:  held-out: 10 rows" in notices
    assert "public | doubles | double precision | x bigint" in psql(ours, "\\df")[0]
    assert psql(ours, "SELECT round(doubles(21), 3) AS y")[0].splitlines()[2].strip() == "42"
    assert psql(ours, "SELECT * FROM sqlml('SHOW MODELS') AS m WHERE model = 'doubles'")[0].count("doubles") == 1
    assert psql(ours, "DROP MODEL doubles")[0] == "DROP MODEL\n"


@pytest.mark.skipif(PSQL is None, reason="there is no psql on this machine")
@pytest.mark.parametrize(
    ("label", "algorithm", "result"),
    [
        ("range % 2 = 0", "logistic_regression", "boolean"),
        ("(range % 3)::INTEGER", "logistic_regression", "bigint"),
        ("range % 3", "logistic_regression", "bigint"),
        ("range % 3 + 0.5::DOUBLE", "logistic_regression", "double precision"),
        ("'l' || range % 3", "logistic_regression", "text"),
        ("range * 2", "linear_regression", "double precision"),
    ],
)
def test_a_function_has_the_type_of_what_the_model_answers(
    label: str, algorithm: str, result: str, places: tuple[Place, Place]
) -> None:
    ours = places[0]
    train = f"TRAIN MODEL told USING {algorithm} TARGET y SPLIT NONE ON inline AS SELECT range AS x, {label} AS y FROM range(60);"
    assert psql(ours, train)[2] == 0
    try:
        assert f"public | told | {result} " in " ".join(psql(ours, "\\df told")[0].split())
        given = psql(ours, "SELECT pg_typeof(told(1)) \\g (format=unaligned tuples_only)")[0].strip().lower()
        assert {"double": "double precision", "varchar": "text"}.get(given, given) == result
        assert psql(ours, "\\sf told")[0] == (
            f"CREATE OR REPLACE FUNCTION public.told(x bigint)\n RETURNS {result}\n LANGUAGE internal\n"
            "AS $function$PREDICT(told)$function$\n"
        )
    finally:
        psql(ours, "DROP MODEL told")


@pytest.mark.skipif(PSQL is None, reason="there is no psql on this machine")
def test_the_text_of_a_function_that_is_none_of_ours(places: tuple[Place, Place]) -> None:
    ours, theirs = places
    psql(ours, "CREATE MACRO one_more(a) AS a + 1")
    assert psql(ours, "\\sf one_more")[0] == "CREATE OR REPLACE MACRO public.one_more(a) AS (a + 1)\n"
    psql(ours, "DROP MACRO one_more")
    assert psql(ours, "\\sf nothing") == psql(theirs, "\\sf nothing")
