"""What models of other tools have in common once they are read: a bundle, a plan and an outcome, as if they were trained here."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlml.bundles.manifest import NATIVE, HeadManifest, Manifest
from sqlml.contracts import Algorithm, Predictor
from sqlml.errors import BindError, count_of
from sqlml.exports.blame import about
from sqlml.exports.bundle import Card
from sqlml.features.column_code import CODES, ColumnCode
from sqlml.features.encode import FeatureEncoder
from sqlml.features.target import label_type
from sqlml.plan import InputColumn, Limits, SplitPlan, TargetColumn, TrainOutcome, TrainPlan
from sqlml.types import SQL_TYPE, Column, Kind, Task, sql_type

TARGET = "prediction"
TASKS = (Task.CLASSIFICATION.value, Task.REGRESSION.value)


@dataclass(frozen=True)
class Wishes:
    """The options of IMPORT: what the file itself may not tell."""

    inputs: tuple[str, ...] | None = None
    target: str | None = None
    classes: tuple[Any, ...] | None = None
    task: str | None = None
    ends: tuple[str, ...] | None = None  # of a language model: the tokens that end a text
    context: int | None = None  # … how many tokens it can read

    def names(self, found: Sequence[str] | None, count: int) -> tuple[str, ...]:
        """The names of ``count`` inputs: as told, else as the file has them, else f0, f1, …"""
        if self.inputs is None:
            return tuple(found or (f"f{i}" for i in range(count)))
        if len(self.inputs) != count:
            raise about(
                "inputs",
                BindError(
                    f"the model takes {count_of(count, 'input')}, and the option inputs names {len(self.inputs)}",
                    hint=f"give {count_of(count, 'name')}, in the order of the model's features",
                ),
            )
        if len({name.lower() for name in self.inputs}) < count:
            twice = BindError("the option inputs has a name twice", hint="SQL tells columns apart by name, whatever their case")
            raise about("inputs", twice)
        return self.inputs

    def labels(self, found: Sequence[Any] | None, count: int) -> tuple[Any, ...]:
        """The names of ``count`` classes: as told, else as the file has them, else 0, 1, …"""
        if self.classes is None:
            return tuple(found or range(count))
        if len(self.classes) != count:
            apart = f"the model tells {count_of(count, 'class', 'classes')} apart"
            raise about(
                "classes",
                BindError(
                    f"{apart}, and the option classes names {len(self.classes)}",
                    hint="give a name for each, in the order of the probabilities",
                ),
            )
        if len(set(map(str, self.classes))) < count:
            raise about("classes", BindError("the option classes has a name twice"))
        return self.classes


def number_code(name: str) -> ColumnCode:
    """An input that is a number, NULL where missing."""
    return ColumnCode(name, Kind.NUMBER, ("value",), True)


def category_code(name: str, categories: Sequence[str]) -> ColumnCode:
    """An input that is a category, in the order of the codes; others are missing."""
    return ColumnCode(name, Kind.TEXT, ("code",), True, tuple(categories))


def write_foreign(
    folder: Path,
    algorithm: Algorithm,
    predictor: Predictor,
    codes: Sequence[ColumnCode],
    classes: tuple[Any, ...],
    wishes: Wishes,
    origin: str,
) -> Card:
    """Write the bundle into ``folder``, which is made; its plan and its outcome."""
    target = wishes.target or TARGET
    if target.lower() in {code.name.lower() for code in codes}:
        same = BindError(f"the target {target} has the name of an input", hint="WITH (target = '…') gives it another name")
        raise about("target", same)
    kind = sql_type(label_type(classes)) if classes else "DOUBLE"
    (folder / NATIVE).mkdir(parents=True)
    predictor.save(folder / NATIVE)
    encoder = FeatureEncoder(codes, CODES)
    column = TargetColumn(target, kind, algorithm.task, classes)
    head = HeadManifest(algorithm.name, algorithm.task, column, encoder.to_json(), {})
    inputs = tuple(InputColumn(code.name, SQL_TYPE[code.kind], code.kind) for code in codes)
    example = {code.name: code.categories[0] if code.categories else "" if code.kind is Kind.TEXT else 0 for code in codes}
    sha256 = Manifest(inputs, (head,), example).write(folder)
    outcome = TrainOutcome(
        algorithm=algorithm.name,
        options={},
        rows=0,
        heldout_rows=0,
        fingerprint="",
        metrics={},
        curves=(),
        bundle_sha256=sha256,
        duration=0.0,
        peak_memory=0,
        libraries=library_versions(algorithm.libraries),
        host=platform.node(),
        encodings=dict(encoder.describe()),
        feature_info=(),
        notes=(f"imported from {origin}: what it was trained on is not known",),
    )
    return Card(target, datetime.now(UTC).isoformat(timespec="seconds"), foreign_plan(algorithm.name, target, inputs), outcome)


def foreign_plan(algorithm: str, target: str, inputs: Sequence[InputColumn]) -> TrainPlan:
    """The plan of a model that was not trained here: what it predicts from what, and nothing else."""
    return TrainPlan(
        model="",
        algorithm=algorithm,
        targets=(target,),
        features=tuple(Column(i.name, i.sql_type, i.kind) for i in inputs),
        key=(),
        excluded=(),
        weight=None,
        split=SplitPlan("none"),
        sample_rows=None,
        options={},
        seed=0,
        limits=Limits(),
        runner="",
        query="",
        statement="",
    )


def renamed(plan: TrainPlan, model: str, statement: str) -> TrainPlan:
    """The plan of an imported version under its model's name here; its own statement stays where it has one."""
    return replace(plan, model=model, statement=plan.statement or statement)


def library_versions(names: Sequence[str]) -> Mapping[str, str]:
    """The versions of packages that are installed, whichever build of each."""
    found = {}
    for name in names:
        for package in (name, f"{name}-cpu", f"{name}-gpu"):
            try:
                found[name] = version(package)
                break
            except PackageNotFoundError:
                continue
    return found
