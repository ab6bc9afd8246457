"""Whole items of a statement's own SELECT list: what can be computed from a result as it comes, where the database cannot.

``SELECT id, PREDICT_REASONS(m) AS why FROM t`` becomes ``SELECT id, (age) AS "…0", (job) AS "…1", NULL AS why FROM t``: the
database gives the arguments beside a column without values, and this side puts the answers into that column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlml_dialect import Span, quote_identifier
from sqlml_dialect.tokens import Kind, Token, name_value, scan, words

from sqlml.binder.text import Piece, Sql
from sqlml.catalog import Version

_ENDS = words("FROM WHERE GROUP HAVING ORDER LIMIT OFFSET FETCH WINDOW FOR INTO AS")
_SETS = words("UNION INTERSECT EXCEPT DISTINCT")
_PLACES = words("ORDER GROUP")


@dataclass(frozen=True)
class ItemPiece(Piece):
    """The arguments of an item, as columns ``prefix0``, ``prefix1`` …, and then a column for its answers."""

    prefix: str = ""
    version: Version | None = None
    output: str = ""


def item_sql(source: str, span: Span, arguments: Mapping[str, Sql], prefix: str, version: Version, output: str) -> Sql:
    """What stands in an item's place."""
    pieces: list[Piece] = []
    for number, argument in enumerate(arguments.values()):
        pieces += [*argument.pieces, Piece(f" AS {quote_identifier(f'{prefix}{number}')}, ", span)]
    return Sql(source, (*pieces, ItemPiece("NULL", span, prefix=prefix, version=version, output=output)))


def items_of(sql: Sql) -> list[ItemPiece]:
    """The items of a statement that are computed from its result."""
    return [piece for piece in sql.pieces if isinstance(piece, ItemPiece)]


def is_select_item(source: str, span: Span, call: Span) -> bool:
    """Whether a call is an item of the statement's own SELECT list, by itself, and nothing else depends on the items' numbers."""
    tokens = list(scan(source, *span))
    top = _top_level(tokens)
    keys = [token.key for token in top]
    if not keys or keys[0] not in ("SELECT", "WITH") or any(key in _SETS for key in keys) or _counts_items(top):
        return False
    select = keys.index("SELECT") if "SELECT" in keys else len(keys)
    first_clause = next((i for i, key in enumerate(keys) if i > select and key in _ENDS and key != "AS"), len(keys))
    inside = [i for i, token in enumerate(top) if call[0] <= token.start < call[1]]
    if not inside or not select < inside[0] < first_clause:
        return False
    before, after = top[inside[0] - 1], top[inside[-1] + 1 :]
    if before.key not in ("SELECT", ",", "ALL") or _is_named_again(after, top[first_clause:]):
        return False
    return not after or after[0].key in _ENDS or after[0].key == "," or after[0].kind in (Kind.WORD, Kind.QUOTED)


def _is_named_again(after: Sequence[Token], clauses: Sequence[Token]) -> bool:
    """Whether ORDER BY or GROUP BY names the item, which has no values in the database."""
    alias = after[1:2] if after and after[0].key == "AS" else [t for t in after[:1] if t.kind in (Kind.WORD, Kind.QUOTED)]
    if not alias or alias[0].key in _ENDS:
        return False
    name = name_value(alias[0]).lower()
    return any(name_value(token).lower() == name for token in clauses if token.kind in (Kind.WORD, Kind.QUOTED))


def _top_level(tokens: Sequence[Token]) -> list[Token]:
    """The tokens outside brackets, the brackets themselves included."""
    found, depth = [], 0
    for token in tokens:
        depth -= token.text == ")"
        if depth == 0:
            found.append(token)
        depth += token.text == "("
    return found


def _counts_items(top: Sequence[Token]) -> bool:
    """``ORDER BY 2``: the number of an item, which others would move."""
    for index, token in enumerate(top):
        if token.key in _PLACES and top[index + 1 : index + 2] and top[index + 1].key == "BY":
            rest = top[index + 1 :]
            for before, here in pairwise(rest):
                if here.key in _ENDS:
                    break
                if here.kind is Kind.NUMBER and before.key in ("BY", ","):
                    return True
    return False
