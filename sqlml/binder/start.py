"""WARM START: the version to go on from, and whether training can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlml_dialect import Span, Train

from sqlml.binder.transform import Models
from sqlml.catalog import Version
from sqlml.contracts import Algorithm
from sqlml.errors import BindError, listing
from sqlml.plan import StartPlan, TransformPlan
from sqlml.registry import get_algorithm, names
from sqlml.types import Column, Task


def start_version(node: Train, source: str, models: Models) -> Version | None:
    """The version that WARM START names; None where there is no such clause."""
    return None if node.warm_start is None else models.resolve(node.warm_start)


def start_algorithm(node: Train, source: str, version: Version, able: Sequence[Algorithm] | None) -> tuple[Algorithm, ...]:
    """The algorithm of the version to go on from, which must be one of those that USING names (None: none named)."""
    place = node.warm_start.span if node.warm_start else (0, 0)
    if len(version.targets) > 1 or version.task is Task.TRANSFORM:
        message = f"WARM START cannot go on from {version.name}: it has no one target to learn"
        raise BindError(message, source=source, span=place)
    if able is not None and version.algorithm not in [a.name for a in able]:
        span = node.algorithm.span if node.algorithm else None
        raise BindError(
            f"WARM START needs the same algorithm: {version.name} was trained with {version.algorithm}", source=source, span=span,
            hint=f"USING {version.algorithm}",
        )  # fmt: skip
    algorithm = get_algorithm(version.algorithm)
    if not algorithm.warm_start:
        can = (name for name in names("algorithm") if get_algorithm(name).warm_start)
        message = f"{algorithm.name} cannot go on from an earlier version"
        raise BindError(message, source=source, span=place, hint=f"these can: {listing(can, 20)}")
    return (algorithm,)


def bind_start(
    node: Train,
    source: str,
    version: Version,
    models: Models,
    targets: Sequence[Column],
    features: Sequence[Column],
    transform: TransformPlan | None,
) -> StartPlan:
    """Settle where training begins.  ``BindError`` where target, inputs or TRANSFORM are not those of the version."""
    place = node.warm_start.span if node.warm_start else (0, 0)
    wanted, given = [t.name for t in version.targets], [t.name for t in targets]
    if [name.lower() for name in wanted] != [name.lower() for name in given]:
        message = f"WARM START needs the same target: {version.name} predicts {', '.join(wanted) or 'no target'}"
        raise BindError(message, source=source, span=place, hint=f"this statement has {', '.join(given) or 'none'}")
    try:
        before = models.plan(version).transform
    except BindError as error:
        raise error.located(source, place) from None
    if _items(transform) != _items(before):
        message = f"WARM START needs the TRANSFORM of {version.name}, item by item"
        raise BindError(message, source=source, span=place, hint=f"SHOW CREATE MODEL {version.name} shows it")
    _check_inputs(version, features, source, place)
    return StartPlan(version.name, str(version.bundle.absolute()), version.sha256)


def _items(transform: TransformPlan | None) -> Iterable[object]:
    return [(item.text, item.name, item.text in transform.frozen) for item in transform.items] if transform else []


def _check_inputs(version: Version, features: Sequence[Column], source: str, span: Span) -> None:
    here, there = {c.name: c.kind for c in features}, {i.name: i.kind for i in version.inputs}
    wrong = [f"{name} is missing" for name in there if name not in here]
    wrong += [f"{name} is new" for name in here if name not in there]
    wrong += [f"{name} is {here[name]}, and was {kind}" for name, kind in there.items() if here.get(name, kind) is not kind]
    if wrong:
        message = f"WARM START needs the inputs of {version.name}: {listing(wrong)}"
        raise BindError(message, source=source, span=span, hint=f"they are: {listing(there, 20)}")
