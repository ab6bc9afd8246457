"""Statements that no database can mean and that nearly are ours: TRIAN MODEL, DEPLOY churn, CREATE MODEL.

Recognised by their first words alone.  What a database might read is never taken from it.
"""

from __future__ import annotations

from typing import NoReturn

from sqlml_dialect import clauses
from sqlml_dialect.cursor import NAMES, Cursor, describe
from sqlml_dialect.errors import DialectError
from sqlml_dialect.similar import is_like
from sqlml_dialect.statements import EXAMPLES, OWN_VERBS, SQL_VERBS, STATEMENTS, behind_explain
from sqlml_dialect.tokens import Kind

_CLAUSE_WORDS = frozenset(clauses.TRAIN_CLAUSES) | {"INTO", "BY", "TO", "TOP", "FROM", "SELECT", "@", ".", ","}
_SIMILARITY = 0.75


def check_near_miss(cursor: Cursor) -> None:
    """Raise for a statement that nearly is one of ours."""
    _check_unexplained(cursor)
    if cursor.peek().key == "EXPLAIN":
        _check_explain(cursor)
        _check_unexplained(behind_explain(cursor))


def _check_unexplained(cursor: Cursor) -> None:
    """The same for a statement without EXPLAIN in front."""
    first = cursor.peek()
    if first.kind is not Kind.WORD:
        return
    _check_known(cursor)
    for opening in STATEMENTS:
        if (first.key == opening[0] or first.key not in SQL_VERBS) and _nearly_opens(cursor, opening):
            _fail_near(cursor, opening)
    noun = OWN_VERBS.get(first.key)
    if noun and _is_name_alone(cursor):
        _fail_near(cursor, (first.key, noun))


def _check_known(cursor: Cursor) -> None:
    """Mistakes that are no misspellings, each with what to write."""
    first, second, third = (cursor.peek(ahead) for ahead in range(3))
    is_named = third.kind in NAMES
    if first.key in {"CREATE", "ALTER", "DROP"}:
        _check_key(cursor)
    if first.key == "CREATE":
        _check_create(cursor)
    elif first.key == "UNDEPLOY":
        _check_undeploy(cursor)
    elif first.key == "DEPLOY":
        _check_deploy(cursor)
    elif first.key == "REFRESH" and second.key in {"QUERY", "MODEL"} and is_named:
        _fail(cursor, 1, "ENDPOINT", f"write REFRESH ENDPOINT {third.text}")
    elif (first.key, second.key) == ("DROP", "ENDPOINT") and is_named:
        _fail(cursor, 0, "UNDEPLOY", f"write UNDEPLOY ENDPOINT {third.text}")
    elif (first.key, second.key) == ("SHOW", "MODEL") and is_named:
        _fail(cursor, 1, "MODELS", f"did you mean DESCRIBE MODEL {third.text}, or SHOW MODELS?")
    elif (first.key, second.key) == ("SHOW", "VERSIONS") and is_named:
        name = cursor.peek(3) if third.key in {"FOR", "IN", "FROM"} and cursor.peek(3).kind in NAMES else third
        _fail(cursor, 2, "OF", f"write SHOW VERSIONS OF {name.text}")
    elif cursor.at_words("SHOW", "API", "KEY"):
        _fail(cursor, 2, "KEYS", "write SHOW API KEYS")
    elif (first.key, second.key) == ("SHOW", "LOGS") and third.kind is Kind.NUMBER:
        _fail(cursor, 2, "FOR", f"write SHOW LOGS FOR JOB {third.text}")
    elif first.key in {"EXPORT", "IMPORT"} and second.kind in NAMES and third.key in {"TO", "FROM", "@"}:
        also = " or EXPORT ENDPOINT" if first.key == "EXPORT" else ""
        _fail(cursor, 1, "MODEL", f"did you mean {first.key} MODEL{also}?")


def _check_undeploy(cursor: Cursor) -> None:
    """``UNDEPLOY MODEL m`` and ``UNDEPLOY f FROM …``: it is the endpoint or the function that goes."""
    second, third = cursor.peek(1), cursor.peek(2)
    if second.key == "MODEL" and third.kind in NAMES:
        what = "an endpoint or a function is taken down, not a model"
        _fail(cursor, 1, "ENDPOINT or FUNCTION", f"{what}: UNDEPLOY ENDPOINT {third.text} or UNDEPLOY FUNCTION {third.text}")
    if second.kind in NAMES and third.key == "FROM":
        _fail(cursor, 1, "FUNCTION", f"write UNDEPLOY FUNCTION {second.text} FROM DATABASE …")


def _check_deploy(cursor: Cursor) -> None:
    """``DEPLOY ENDPOINT e …`` and ``DEPLOY e AS SELECT …``: what is it that is deployed?"""
    second, third, fourth = (cursor.peek(ahead) for ahead in (1, 2, 3))
    if second.key == "ENDPOINT" and third.kind in NAMES:
        query = fourth.key in {"AS", "WITH"}
        write = f"DEPLOY QUERY {third.text} AS SELECT …" if query else f"DEPLOY MODEL churn TO ENDPOINT {third.text}"
        _fail(cursor, 1, "MODEL or QUERY", f"write {write}")
    if second.kind in NAMES and second.key not in {"MODEL", "QUERY"} and third.key == "AS":
        _fail(cursor, 1, "QUERY", f"write DEPLOY QUERY {second.text} AS SELECT …")


def _check_create(cursor: Cursor) -> None:
    """``CREATE [OR REPLACE] MODEL name``: another dialect's way to train."""
    ahead = 3 if cursor.at_words("CREATE", "OR", "REPLACE") else 1
    ahead += cursor.peek(ahead).key in {"TEMP", "TEMPORARY"}
    follows = cursor.peek(ahead + 1)
    if cursor.peek(ahead).key != "MODEL" or not (follows.kind in NAMES or follows.kind is Kind.STRING):
        return
    name = follows.text if follows.kind in NAMES and follows.key != "IF" else "name"
    token = cursor.peek()
    raise DialectError(
        "CREATE MODEL belongs to other dialects",
        cursor.text,
        (token.start, cursor.peek(ahead).end),
        "TRAIN MODEL",
        f"write TRAIN MODEL {name} TARGET column AS SELECT …, options as WITH (name = value, …)",
    )


def _check_key(cursor: Cursor) -> None:
    """``CREATE KEY k FOR …``, ``DROP APIKEY k``, ``CREATE OR REPLACE API KEY k``"""
    if cursor.at_words("CREATE", "OR", "REPLACE", "API", "KEY"):
        name = cursor.peek(5).text or "k"
        _fail(cursor, 1, "API KEY", f"a key is never replaced: ALTER API KEY {name} ROTATE gives it a new secret")
    first, second, third, fourth = (cursor.peek(ahead) for ahead in range(4))
    follows = {"CREATE": "FOR", "ALTER": "ROTATE", "DROP": ""}[first.key]
    if first.key == "ALTER" and fourth.key == "SET":
        follows = "SET"
    if second.key in {"KEY", "APIKEY", "API_KEY"} and third.kind in NAMES and fourth.key == follows:
        _fail(cursor, 1, "API KEY", f"write {first.text} API KEY {third.text} {fourth.text}".rstrip() + " …" * bool(follows))


def _check_explain(cursor: Cursor) -> None:
    """``EXPLAIN churn``, where MODEL is left out."""
    second, third = cursor.peek(1), cursor.peek(2)
    if (
        second.kind not in NAMES
        or second.key in SQL_VERBS
        or second.key in OWN_VERBS
        or second.key in {"MODEL", "ANALYZE", "VERBOSE"}
    ):
        return
    if third.kind is Kind.END or third.key in {"TOP", "INTO", "AS", "@"}:
        _fail_near(cursor, ("EXPLAIN", "MODEL"))


def _is_name_alone(cursor: Cursor) -> bool:
    """Whether the second token is a name (or number) and the third could follow a model's name."""
    second, third = cursor.peek(1), cursor.peek(2)
    return second.kind in (*NAMES, Kind.NUMBER) and (third.kind is Kind.END or third.key in _CLAUSE_WORDS)


def _nearly_opens(cursor: Cursor, opening: tuple[str, ...]) -> bool:
    """Whether each word here is like the one of an opening, not all the same, and then a name or value follows."""
    follows = cursor.peek(len(opening)).kind in (*NAMES, Kind.NUMBER, Kind.STRING)
    return (follows and not cursor.at_words(*opening)) and all(
        token.kind is Kind.WORD and (token.key == word or is_like(token.key, word, _SIMILARITY))
        for token, word in ((cursor.peek(ahead), word) for ahead, word in enumerate(opening))
    )


def _fail_near(cursor: Cursor, opening: tuple[str, ...]) -> NoReturn:
    """Point at the first word that is not as it should be."""
    wrong = next(ahead for ahead, word in enumerate(opening) if cursor.peek(ahead).key != word)
    example = EXAMPLES[STATEMENTS[opening]]
    _fail(cursor, wrong, opening[wrong], f"did you mean {' '.join(opening)}?\nas in {example}")


def _fail(cursor: Cursor, ahead: int, expected: str, hint: str) -> NoReturn:
    """Point at one of the first words."""
    token = cursor.peek(ahead)
    message = f"expected {expected}, found {describe(token)}"
    raise DialectError(message, cursor.text, (token.start, token.end), expected, hint)
