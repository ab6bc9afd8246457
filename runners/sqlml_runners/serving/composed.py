"""An endpoint that computes a query over several models, loaded and warm: one ``Served`` for all of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from sqlml.catalog import Arm, Endpoint
from sqlml.composition.plan import Ask, Composition
from sqlml.composition.run import Composed
from sqlml.composition.truths import QueryTargets, query_targets, truths_of
from sqlml.errors import BindError, BundleError
from sqlml.home import Home
from sqlml.plan import TargetColumn
from sqlml_runners.serving.outputs import Answer, Output, Predictions
from sqlml_runners.serving.protocol import Columns, Rows, columns_of
from sqlml_runners.serving.rows import decode_rows, row_form, row_writer
from sqlml_runners.serving.served import QUICK_SECONDS, Served, load_served, seconds_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.features.dataset import Values

QUERY = "query"


@dataclass(frozen=True)
class ServedQuery(Served):
    """The query as a request sees it: its parameters are the columns, ``arm`` stands for all of its models."""

    composed: Composed | None = None
    labels: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # the classes of the answers that are labels, by slot

    @property
    def example(self) -> dict[str, Any]:
        """One row of parameters."""
        return {} if self.composed is None else dict(self.composed.composition.example)

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of the query's answer but for lists, those passed on last."""
        return self._targets.names

    @cached_property
    def truth_targets(self) -> tuple[TargetColumn, ...]:
        """What the columns can be: the classes of a model whose label stands in one, numbers; anything where nothing is known."""
        results = () if self.composed is None else self.composed.composition.results
        return tuple(target for result in results for target in truths_of(result, self.labels.get(result.slot, ())))

    @property
    def sole_target(self) -> str | None:
        """The only column, or the only one that is not passed on."""
        return self._targets.sole

    @cached_property
    def _targets(self) -> QueryTargets:
        return query_targets(() if self.composed is None else self.composed.composition.results)

    def target_fault(self, target: str | None, who: str) -> str | None:
        """As of a model; feedback that names no column is about the only one, or the only one that is not passed on."""
        return self._targets.fault(target, who)

    def check_explains(self) -> None:
        """``BindError``: contributions to the answers of several models are not those to the query's."""
        raise BindError("the answers of a query have no contributions; those of one model have: DEPLOY MODEL …")

    def run(self, columns: Columns) -> Predictions:
        """Run the query.  ``DataError`` for a row that it cannot compute."""
        if self.composed is None:
            raise TypeError("a query that was not opened")
        with self.flight:
            return self.composed.run(columns)

    def run_rows(self, rows: Rows) -> Predictions:
        """The same for rows of values."""
        return self.run(columns_of(self.rows.inputs, rows))


def load_query(endpoint: Endpoint) -> ServedQuery:
    """Load a query's models and tables, and answer its example row a few times: once to warm it, then to time it."""
    if endpoint.definition is None:
        raise BundleError(f"the endpoint {endpoint.name} has no query", hint="deploy it again")
    composition = Composition.from_json(endpoint.definition)
    arms = {arm.uid: arm for arm in endpoint.arms}
    parts = [load_served(endpoint.name, arms[part.uid]) for part in composition.parts]
    first = parts[0].arm
    folder = Home(first.bundle.parent.parent).lookups
    composed = Composed.open(composition, [part.model for part in parts], folder, [_raw(part) for part in parts])
    form = row_form(composition.parameters)
    body = msgspec.json.encode({"rows": [dict(composition.example)]})
    sample = composed.run(columns_of(form.inputs, decode_rows(form, body)))
    outputs = tuple(
        Output(result.name, result.classes, nullable=True, type=_type(answer))
        for result, answer in zip(composition.results, sample, strict=True)
    )
    version = endpoint.query_version
    arm = Arm(endpoint.name, version, endpoint.query_uid or first.uid, first.bundle, first.sha256, QUERY)
    writer = row_writer(endpoint.name, version, outputs)
    served = ServedQuery(
        endpoint.name, arm, parts[0].model, form, outputs, writer, sample, composed=composed, labels=_labels(composition, parts)
    )
    return replace(served, quick=min(seconds_of(served, body) for _ in range(3)) < QUICK_SECONDS)


def _labels(composition: Composition, parts: Sequence[Served]) -> dict[str, tuple[Any, ...]]:
    """The classes of what classifiers answer as it is, by slot."""
    asked = [step for step in composition.steps if isinstance(step, Ask) and "predict" in step.answers]
    heads = {step.answers["predict"]: parts[step.part].model.heads for step in asked}
    return {slot: tuple(own[0].classes) for slot, own in heads.items() if len(own) == 1 and own[0].classes}


def _raw(part: Served) -> Callable[[Mapping[str, Values]], NDArray[Any]] | None:
    """The raw scores of a model's only head, by whatever computes them quickest."""
    if len(part.runtimes) != 1:
        return None
    model, runtime = part.model, part.runtimes[0]

    def raw(columns: Mapping[str, Values]) -> NDArray[Any]:
        rows = model.prepare(columns)
        return runtime.raw(model.head.encode(rows.columns, rows.n))

    return raw


def _type(answer: Answer) -> pa.DataType:
    return answer.type if isinstance(answer, pa.Array) else pa.float64()
