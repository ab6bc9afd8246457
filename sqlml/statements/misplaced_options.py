"""Options of endpoints, of their server and of their keys that are asked of the wrong statement: which one takes them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlml_dialect import Option

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

_HOMES: tuple[tuple[Sequence[OptionSpec], str, str], ...] = (
    (KEPT_OPTIONS, "of one endpoint", "ALTER ENDPOINT e SET ({} = …)"),
    (SERVER_OPTIONS, "of all endpoints together", "ALTER ENDPOINTS SET ({} = …)"),
    (KEY_OPTIONS, "of an API key", "ALTER API KEY k SET ({} = …)"),
    (ROTATE_OPTIONS, "of a key's new secret", "ALTER API KEY k ROTATE WITH ({} = …)"),
    (STATEMENT_OPTIONS + ROLLOUT_OPTIONS, "of DEPLOY", "DEPLOY MODEL m TO ENDPOINT e WITH ({} = …)"),
)
"""Options, whose they are, and what sets one of them."""


def check_placed(options: Sequence[Option], specs: Sequence[OptionSpec], source: str) -> None:
    """``BindError`` for an option that is none of a statement's ``specs``, and that another statement takes."""
    own = {spec.name for spec in specs}
    for option in options:
        name = option.name.name.lower()
        home = None if name in own else next((home for home in _HOMES if name in {spec.name for spec in home[0]}), None)
        if home is not None:
            _, whose, statement = home
            raise BindError(
                f"{name} is an option {whose}", source=source, span=option.name.span, hint=f"write {statement.format(name)}"
            )
