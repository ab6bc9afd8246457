"""Which option of EXPORT or IMPORT an error is about, noted where it is raised."""

from __future__ import annotations

from typing import TypeVar

from sqlml.errors import Error

_Any = TypeVar("_Any", bound=Error)
_OPTION = "option"


def about(option: str, error: _Any) -> _Any:
    """The same error, which is about an option."""
    vars(error)[_OPTION] = option
    return error


def option_of(error: Error) -> str | None:
    """The option that an error is about."""
    found = vars(error).get(_OPTION)
    return found if isinstance(found, str) else None
