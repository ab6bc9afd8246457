"""Errors as JSON and back: the same class, words and place on the other side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlml import errors
from sqlml.errors import Error, InternalError

_CLASSES = {name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, Error)}


def error_head(error: BaseException) -> dict[str, Any]:
    """An error in pieces; one that is none of ours is a fault of sqlml itself."""
    if not isinstance(error, Error):
        return {"class": InternalError.__name__, "message": f"a fault of sqlml itself: {type(error).__name__}: {error}"}
    known = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _CLASSES)
    return {
        "class": known,
        "message": error.message,
        "source": error.source,
        "span": error.span,
        "hint": error.hint,
        "about": error.about,
    }


def error_of(head: Mapping[str, Any]) -> Error:
    """The error of ``error_head``; of a class that this version has not, the root of all."""
    span = head.get("span")
    return _CLASSES.get(str(head.get("class")), Error)(
        str(head.get("message")),
        source=head.get("source"),
        span=(int(span[0]), int(span[1])) if span else None,
        hint=head.get("hint"),
        about=head.get("about"),
    )
