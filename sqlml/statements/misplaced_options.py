"""Options of endpoints, of their server and of their keys that are asked of the wrong statement: which one takes them.

So, too, statements of the database that are about endpoints, of which it knows nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from sqlml_dialect import Option, quote_string
from sqlml_dialect.tokens import Kind, name_value, scan

from sqlml.contracts import OptionSpec
from sqlml.endpoint_options import (
    KEPT_OPTIONS,
    KEY_OPTIONS,
    ROLLOUT_OPTIONS,
    ROTATE_OPTIONS,
    SERVER_OPTIONS,
    STATEMENT_OPTIONS,
)
from sqlml.errors import BindError

_Home: TypeAlias = tuple[Sequence[OptionSpec], str, str]
_HOMES: tuple[_Home, ...] = (
    (KEPT_OPTIONS, "of one endpoint", "ALTER ENDPOINT e SET ({} = …)"),
    (SERVER_OPTIONS, "of all endpoints together", "ALTER ENDPOINTS SET ({} = …)"),
    (KEY_OPTIONS, "of an API key", "ALTER API KEY k SET ({} = …)"),
    (ROTATE_OPTIONS, "of a key's new secret", "ALTER API KEY k ROTATE WITH ({} = …)"),
    (STATEMENT_OPTIONS + ROLLOUT_OPTIONS, "of DEPLOY", "DEPLOY MODEL m TO ENDPOINT e WITH ({} = …)"),
)
"""Options, whose they are, and what sets one of them."""


_NAMES = (Kind.WORD, Kind.QUOTED)
_SCOPES = ("SESSION", "GLOBAL", "LOCAL")


def meant_of_endpoints(text: str, schema: str) -> str | None:
    """What to write instead of a statement that the database refused: DESCRIBE ENDPOINT, ALTER SERVER, SET and RESET of an
    option that is none of its own.  None where no endpoint is meant.
    """
    tokens = [token for token in scan(text) if token.key not in _SCOPES]
    first, second = (tokens[ahead].key if ahead < len(tokens) else "" for ahead in (0, 1))
    name = name_value(tokens[2]) if len(tokens) > 2 and tokens[2].kind in _NAMES else "e"
    if first in ("DESCRIBE", "DESC") and second in ("ENDPOINT", "ENDPOINTS"):
        like = f" LIKE {quote_string(name)}" if second == "ENDPOINT" else ""
        return f"write SHOW ENDPOINTS{like}; FROM {schema}.endpoint_options has the options"
    if first == "ALTER" and second in ("SERVER", "SERVERS"):
        return "the endpoints' server has its options by ALTER ENDPOINTS SET (port = …)"
    if first not in ("SET", "RESET"):
        return None
    if first == "RESET" and second in ("ENDPOINT", "ENDPOINTS"):
        return f"write ALTER {second} {name + ' ' if second == 'ENDPOINT' else ''}SET (option = NULL)"
    home = _home_of(name_value(tokens[1]).lower()) if len(tokens) > 1 and tokens[1].kind in _NAMES else None
    if home is None:
        return None
    _, whose, statement = home
    written = statement.format(second.lower())
    return f"it is an option {whose}: {written.replace('…', 'NULL', 1) if first == 'RESET' else written}"


def _home_of(name: str) -> _Home | None:
    return next((home for home in _HOMES if name in {spec.name for spec in home[0]}), None)


def check_placed(options: Sequence[Option], specs: Sequence[OptionSpec], source: str) -> None:
    """``BindError`` for an option that is none of a statement's ``specs``, and that another statement takes."""
    own = {spec.name for spec in specs}
    for option in options:
        name = option.name.name.lower()
        home = None if name in own else _home_of(name)
        if home is not None:
            _, whose, statement = home
            raise BindError(
                f"{name} is an option {whose}", source=source, span=option.name.span, hint=f"write {statement.format(name)}"
            )
