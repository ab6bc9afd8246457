"""What a statement is to PostgreSQL's clients: its verb, whether it only reads, and the tag that tells it is complete."""

from __future__ import annotations

from itertools import islice

from sqlml_dialect import DialectError, Statement, parse
from sqlml_dialect.tokens import Kind, scan, words

from sqlml.errors import parse_error
from sqlml.statements.door import find_door

READS = words("SELECT FROM WITH VALUES TABLE PIVOT UNPIVOT SHOW DESCRIBE DESC SUMMARIZE EXPLAIN PRAGMA (")
_WRITES = words("INSERT UPDATE DELETE MERGE")
_COUNTED = words("SELECT UPDATE DELETE MERGE FETCH MOVE COPY")
_OBJECTS = words(
    "TABLE VIEW SCHEMA SEQUENCE INDEX TYPE FUNCTION MACRO MODEL ENDPOINT RUNNER CONNECTION DATABASE ROLE USER SECRET API"
)
_FOLDED = {"FROM": "SELECT", "VALUES": "SELECT", "TABLE": "SELECT", "PIVOT": "SELECT", "UNPIVOT": "SELECT", "(": "SELECT",
           "SUMMARIZE": "SELECT", "DESCRIBE": "SELECT", "DESC": "SELECT", "PRAGMA": "SELECT", "PREDICT": "INSERT",
           "MACRO": "FUNCTION", "ABORT": "ROLLBACK", "END": "COMMIT"}  # fmt: skip


def parsed(text: str) -> list[Statement]:
    """The statements of a text.  ``ParseError`` where one of ours is malformed."""
    try:
        return parse(text)
    except DialectError as error:
        raise parse_error(error) from None


def is_own(text: str) -> bool:
    """Whether a text has a statement of ours, not only the database's."""
    return any(statement.node is not None for statement in parsed(text)) or find_door(text, (0, len(text))) is not None


def keys_of(text: str, count: int = 4) -> list[str]:
    """The first words of a statement, in capitals; symbols are themselves."""
    return [token.key or token.text for token in islice(scan(text), count)]


def verb_of(text: str) -> str:
    """The first word; behind WITH the statement's own; the first two where one alone would be another statement."""
    first = keys_of(text, 2)
    if first == ["ROLLBACK", "ENDPOINT"]:
        return "ROLLBACK ENDPOINT"
    if first[:1] != ["WITH"]:
        return first[0] if first else ""
    depth = 0
    for token in scan(text):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and token.key in _WRITES | {"SELECT", "FROM", "VALUES"} and token.kind is Kind.WORD:
            return token.key
    return "WITH"


def only_reads(verb: str) -> bool:
    """Whether a statement of the database changes nothing."""
    return verb in READS


def tag_of(text: str, verb: str, count: int) -> str:
    """``INSERT 0 3``, ``SELECT 10``, ``CREATE TABLE``, ``TRAIN MODEL``; ``count`` is -1 where there is nothing to count."""
    name = _FOLDED.get(verb, verb)
    if name == "WITH":
        name = "SELECT"
    counted = max(count, 0)
    if verb == "PREDICT" and "INTO" not in keys_of(text, 12):
        return f"SELECT {counted}"
    if name == "INSERT":
        return f"INSERT 0 {counted}"
    if name in _COUNTED:
        return f"{name} {counted}"
    if name in ("CREATE", "DROP", "ALTER", "DEPLOY", "TRAIN", "TRUNCATE", "IMPORT", "EXPORT", "EVALUATE", "UNDEPLOY"):
        keys = keys_of(text, 8)
        if name == "CREATE" and count >= 0:
            return f"SELECT {counted}"  # CREATE TABLE … AS
        what = next((key for key in keys[1:] if key in _OBJECTS), "TABLE" if name == "TRUNCATE" else "")
        return f"{name} {_FOLDED.get(what, what) if what == 'MACRO' else what}".strip()
    return name
