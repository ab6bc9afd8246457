"""The SQL that sqlml adds: text to frozen trees, trees to text, and our calls inside the database's own queries.

>>> from sqlml_dialect import find_calls, parse
>>> [statement.kind for statement in parse("SELECT 1; TRAIN MODEL churn TARGET left_us AS FROM customers")]
['sql', 'train']
>>> find_calls("SELECT id, PREDICT(churn@3) FROM customers").calls[0].model.text
'churn@3'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlml_dialect.surface import *  # noqa: F403 - its names are listed there
    from sqlml_dialect.surface import __all__ as __all__


def __dir__() -> list[str]:
    return [*__getattr__("__all__")]


def __getattr__(name: str) -> Any:
    """The names of ``surface``, all at the first that is asked for: who needs ``sqlml_dialect.tokens`` imports that alone."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    surface = importlib.import_module("sqlml_dialect.surface")
    globals().update({own: getattr(surface, own) for own in surface.__all__}, __all__=surface.__all__)
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]
