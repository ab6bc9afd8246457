"""One version behind one endpoint, loaded and warm: rows in, predictions out.

rows of values → RowEncoder → HeadRuntime → the columns of the answer        few rows, the quick way
Arrow columns → TRANSFORM → FeatureEncoder → HeadRuntime → the same          many rows, lists, TRANSFORM
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from sqlml.bundles.model import Model
from sqlml.catalog import Arm
from sqlml.errors import BindError, DataError, did_you_mean, listing
from sqlml.features.row_values import RowEncoder, lay_out_numbers
from sqlml.generation.generator import INPUT
from sqlml.plan import InputColumn, TargetColumn
from sqlml.types import Kind
from sqlml_runners.serving.crossovers import runtimes_of
from sqlml_runners.serving.flight import NO_FLIGHT, Flight
from sqlml_runners.serving.outputs import Output, Predictions, head_answers, model_outputs, run_model
from sqlml_runners.serving.protocol import BadRequest, Columns, Rows, columns_of
from sqlml_runners.serving.rows import RowForm, RowWriter, decode_rows, row_form, row_writer
from sqlml_runners.serving.runtime import HeadRuntime
from sqlml_runners.serving.spare import Spare
from sqlml_runners.serving.v2 import decode_infer, encode_infer
from sqlml_runners.serving.v2_metadata import model_metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.features.dataset import Values

Block: TypeAlias = "NDArray[Any]"

QUICK_SECONDS = 0.002
"""A request that takes no longer than this for one row may be answered on the event loop."""
FEW_ROWS = 512
"""More rows than this are laid out by Arrow, column by column, unless they are numbers alone."""


@dataclass(frozen=True)
class Served:
    """One version behind one endpoint, warm.  Safe to use from many threads.

    ``encoders``, one a head, are there where rows of values can go the quick way; ``quick``: one row takes no longer than
    ``QUICK_SECONDS``; ``numbered``: its number alone says which of the endpoint's versions it is.
    """

    endpoint: str  # its name
    arm: Arm
    model: Model
    rows: RowForm
    outputs: tuple[Output, ...]
    writer: RowWriter
    sample: Predictions  # of the manifest's example row
    runtimes: tuple[HeadRuntime, ...] = ()
    encoders: tuple[RowEncoder, ...] = ()
    quick: bool = True
    flight: Flight = NO_FLIGHT
    numbered: bool = True

    @cached_property
    def name(self) -> str:
        """``churn@3``."""
        return self.arm.name

    @cached_property
    def label(self) -> str:
        """What V2 calls the version: ``3``, or ``churn@3`` beside another model's third version."""
        return str(self.arm.version) if self.numbered else self.arm.name

    def beside(self, spare: Spare, *, numbered: bool) -> Served:
        """The same version beside others."""
        if spare == self.rows.spare:
            return replace(self, numbered=numbered)
        return replace(self, rows=row_form(self.rows.inputs, self.arm.keys, spare), numbered=numbered)

    @property
    def example(self) -> dict[str, Any]:
        """One row that it answers, JSON values."""
        return dict(self.model.manifest.example)

    @property
    def targets(self) -> tuple[str, ...]:
        """What of its answers can turn out to be otherwise: the columns that feedback can be about."""
        return tuple(head.target for head in self.model.heads if head.target is not None)

    @cached_property
    def truth_targets(self) -> tuple[TargetColumn, ...]:
        """The targets with what their truths can be."""
        return tuple(head.manifest.target for head in self.model.heads if head.manifest.target is not None)

    @property
    def sole_target(self) -> str | None:
        """What feedback is about that names no target."""
        return self.targets[0] if len(self.targets) == 1 else None

    def target_fault(self, target: str | None, who: str) -> str | None:
        """What is wrong with the target of a row of feedback, and what to do; None where nothing is."""
        if not self.targets:
            return f"{who} has no target: nothing could turn out to be true of its answers"
        if target is None:
            return f"{who} has several targets; say which: {listing(self.targets)}" if len(self.targets) > 1 else None
        if target.lower() in (name.lower() for name in self.targets):
            return None
        hint = did_you_mean(target, self.targets) or f"it has: {listing(self.targets) or 'none'}"
        return f"{who} has no target {target!r}; {hint}"

    def check_explains(self) -> None:
        """``BindError`` unless its answers can be taken apart into contributions."""
        if not self.model.head.explains:
            raise BindError(f"models of {self.model.head.algorithm} have no contributions")

    def run(self, columns: Columns) -> Predictions:
        """Predict.  ``BindError`` or ``DataError`` for a row from which TRANSFORM can compute nothing."""
        with self.flight:
            return run_model(self.model, columns, self._raw)

    def run_rows(self, rows: Rows) -> Predictions:
        """The same for rows of values."""
        if not self.encoders or len(rows) > FEW_ROWS:
            return self.run(columns_of(self.rows.inputs, rows))
        heads = zip(self.model.heads, self.runtimes, self.encoders, strict=True)
        with self.flight:
            return [a for head, runtime, encoder in heads for a in head_answers(head, runtime.raw(encoder.matrix(rows)))]

    def block(self, rows: Rows) -> Block | None:
        """The rows as one array, where all inputs are numbers: float64 (n, inputs), NaN for NULL; None for other models."""
        return lay_out_numbers(rows, len(self.rows.inputs)) if self.only_numbers else None

    def run_block(self, block: Block) -> Predictions:
        """Predict from such an array, which stays as it is."""
        heads = zip(self.model.heads, self.runtimes, self.encoders, strict=True)
        with self.flight:
            return [a for head, runtime, encoder in heads for a in head_answers(head, runtime.raw(encoder.from_inputs(block)))]

    @cached_property
    def only_numbers(self) -> bool:
        """Whether a row is numbers alone, which nothing stands before."""
        return bool(self.encoders) and all(column.kind is Kind.NUMBER for column in self.rows.inputs)

    def _raw(self, i: int, features: Mapping[str, Values], n: int) -> NDArray[Any]:
        return self.runtimes[i].raw(self.model.heads[i].encode(features, n))

    def predict(self, body: bytes) -> bytes:
        """Answer the plain form."""
        return self.writer.encode(self._answer(decode_rows(self.rows, body), 422))

    def infer(self, body: bytes) -> bytes:
        """Answer a V2 inference request in JSON."""
        call = decode_infer(self.rows.inputs, body, keys=self.rows.keys, spare=self.rows.spare)
        return encode_infer(self.endpoint, self.label, call, self.outputs, self._answer(call.rows, 400)).body

    def _answer(self, rows: Rows, status: int) -> Predictions:
        """Predict.  ``BadRequest`` with this status for a row from which TRANSFORM can compute nothing."""
        try:
            return self.run_rows(rows)
        except (DataError, BindError) as error:
            raise BadRequest(status, error.message) from error

    def metadata(
        self, versions: Sequence[str] = (), inputs: Sequence[InputColumn] = (), optional: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """The V2 metadata of this version, or of an endpoint that shows it, with the ``inputs`` of all its versions;
        ``optional``: those that a request may lack (in lower case).
        """
        shown = versions or (self.label,)
        return model_metadata(self.endpoint, shown, inputs or self.rows.inputs, self.outputs, self.sample, optional)


def load_served(endpoint: str, arm: Arm) -> Served:
    """Load a bundle and answer its example row a few times: once to warm it, then to time it."""
    model = Model.open(arm.bundle, arm.sha256)
    form = row_form(model.inputs, arm.keys)
    outputs = model_outputs(model)
    if model.language is not None:  # it writes a token to be warm, and always in a thread
        text = model.generator.complete(str(model.manifest.example[INPUT]), 1)
        return Served(endpoint, arm, model, form, outputs, row_writer(arm.model, arm.version, outputs), [[text]], quick=False)
    runtimes = runtimes_of(model.heads, arm)
    body = msgspec.json.encode({"rows": [dict(model.manifest.example)]})
    served = Served(
        endpoint, arm, model, form, outputs, row_writer(arm.model, arm.version, outputs), (), runtimes, _row_encoders(model, form)
    )  # fmt: skip
    rows = decode_rows(form, body)
    sample = served.run_rows(rows)
    if len(model.heads) == 1 and model.head.explains:  # what explains may be a library that predicts nothing, and slow to import
        model.explain(columns_of(form.inputs, rows), 1)
    return replace(served, sample=sample, quick=min(seconds_of(served, body) for _ in range(3)) < QUICK_SECONDS)


def _row_encoders(model: Model, form: RowForm) -> tuple[RowEncoder, ...]:
    """An encoder of rows for each head; none where TRANSFORM or a list stands before it."""
    if model.transform is not None or not model.heads or not all(RowEncoder.takes(head.encoder) for head in model.heads):
        return ()
    names = [*(column.name for column in form.inputs), *form.keys]
    return tuple(RowEncoder(head.encoder, names) for head in model.heads)


def seconds_of(served: Served, body: bytes) -> float:
    """How long a request takes, once."""
    began = time.perf_counter()
    served.predict(body)
    return time.perf_counter() - began
