"""A causal language model as an ONNX graph: tokens in, scores of the next one out, with a cache where it has one.

The names are those that exporters write: ``input_ids``, ``attention_mask``, ``position_ids``, ``past…`` and ``present…``,
``use_cache_branch``, ``logits``.  Anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.errors import BundleError, NotSupportedError, listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKENS, MASK, POSITIONS, BRANCH = "input_ids", "attention_mask", "position_ids", "use_cache_branch"
_KNOWN = (TOKENS, MASK, POSITIONS, BRANCH)
_TYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(bool)": np.dtype(np.bool_),
}


@dataclass(frozen=True)
class Past:
    """One part of the cache: the input that takes it, the output that gives it, its type, and its shape with nothing in it."""

    name: str
    present: str
    dtype: np.dtype[Any]
    empty: tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """Where everything goes in a graph; no ``past``: it has no cache, and every token is computed anew each time."""

    inputs: Mapping[str, np.dtype[Any]]
    logits: str
    past: tuple[Past, ...]


class Decoder:
    """A graph that is loaded; safe to use from many threads.  ``context``: how many tokens it can read, None: not known."""

    def __init__(self, session: Any, form: Form) -> None:
        self._session = session
        self.form = form

    @classmethod
    def of(cls, session: Any) -> Decoder:
        """Take a session of onnxruntime for what it is.  ``NotSupportedError`` where it is no such graph."""
        return cls(session, graph_form(session))

    @property
    def cached(self) -> bool:
        """Whether it has a cache."""
        return bool(self.form.past)

    def start(self) -> Reading:
        """Begin a text."""
        return Reading(self._session, self.form)


class Reading:
    """One text, as far as it has been read; for one thread."""

    def __init__(self, session: Any, form: Form) -> None:
        self._session = session
        self._form = form
        self._past: list[NDArray[Any]] = [np.zeros(past.empty, past.dtype) for past in form.past]
        self._read: list[int] = []

    def read(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens, at least one; the scores (tokens of the vocabulary,) of what follows the last."""
        new = list(tokens) if self._form.past else [*self._read, *tokens]
        self._read += tokens
        feeds = self._feeds(new)
        outputs = [self._form.logits, *(past.present for past in self._form.past)]
        try:
            logits, *self._past = self._session.run(outputs, feeds)
        except Exception as error:  # onnxruntime's errors have no root of their own
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"the language model cannot read {len(self._read)} tokens: {text}") from error
        return np.asarray(logits[0, -1], np.float32)

    def _feeds(self, new: Sequence[int]) -> dict[str, NDArray[Any]]:
        whole = len(self._read)
        values: Mapping[str, NDArray[Any]] = {
            TOKENS: np.array([new]),
            MASK: np.ones((1, whole)),
            POSITIONS: np.arange(whole - len(new), whole)[None],
            BRANCH: np.array([whole > len(new)]),
        }
        feeds = {name: np.asarray(values[name], dtype) for name, dtype in self._form.inputs.items()}
        return feeds | {past.name: array for past, array in zip(self._form.past, self._past, strict=True)}


# --- what a graph is --------------------------------------------------------------------------------------------------


def graph_form(session: Any) -> Form:
    """Where everything goes.  ``NotSupportedError`` says what the graph has that a causal language model has not."""
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    given = [name for name in inputs if name not in _KNOWN]
    wrong = [name for name in given if not name.lower().startswith("past")]
    if TOKENS not in inputs or wrong:
        raise NotSupportedError(
            f"the graph takes {listing(inputs)}, and a language model takes {TOKENS}, {MASK}, {POSITIONS} and past…",
            hint="export the decoder with these names, as text-generation or text-generation-with-past",
        )
    logits = _logits(outputs)
    past = _past([inputs[name] for name in given], [o for name, o in outputs.items() if name != logits])
    types = {name: _dtype(i) for name, i in inputs.items() if name in _KNOWN}
    return Form(types, logits, past)


def _dtype(port: Any) -> np.dtype[Any]:
    if port.type not in _TYPES:
        raise NotSupportedError(f"the graph's {port.name} is {port.type}", hint="export it with float32, float16 or integers")
    return _TYPES[port.type]


def _logits(outputs: Mapping[str, Any]) -> str:
    named = [name for name in outputs if name.lower() == "logits"]
    found = named or [name for name, o in outputs.items() if not name.lower().startswith("present") and len(o.shape) == 3]
    if len(found) != 1 or len(outputs[found[0]].shape) != 3:
        raise NotSupportedError(
            f"the graph gives {listing(outputs)}: no logits (batch, tokens, vocabulary)", hint="export the model with its head"
        )
    return found[0]


def _past(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Past, ...]:
    presents = [o for o in outputs if o.name.lower().startswith("present")]
    if not inputs:
        return ()
    if len(inputs) != len(presents):
        raise NotSupportedError(
            f"the graph takes {len(inputs)} parts of a cache and gives {len(presents)}",
            hint="each past… needs its present…, in the same order",
        )
    return tuple(Past(i.name, o.name, _dtype(i), _empty(i)) for i, o in zip(inputs, presents, strict=True))


def _empty(port: Any) -> tuple[int, ...]:
    """The shape of a cache with no token in it: one text, and 0 for the only other size that is left open."""
    open_axes = [axis for axis, size in enumerate(port.shape) if axis and not isinstance(size, int)]
    if len(open_axes) != 1:
        raise NotSupportedError(
            f"the graph's {port.name} has the shape {port.shape}: which of its sizes counts the tokens is not clear",
            hint="export it with dynamic axes for the batch and the tokens alone",
        )
    return tuple(1 if axis == 0 else 0 if axis in open_axes else size for axis, size in enumerate(port.shape))
