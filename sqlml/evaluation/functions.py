"""The functions that give a table about a version, ``ML.EVALUATE(MODEL m, …)`` and its like: one table of them all.

A function says which versions it is for, which columns it gives for one (nothing is computed for that), and computes them.
Names and order of columns are BigQuery ML's where it has the function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from sqlml.contracts import OptionSpec
from sqlml.errors import BindError
from sqlml.evaluation import tables
from sqlml.evaluation.scores import Scores
from sqlml.evaluation.subject import Subject

Options: TypeAlias = Mapping[str, Any]

THRESHOLD = OptionSpec(
    "threshold", "float", None, "the probability from which the second of two classes is predicted", low=0, high=1
)
THRESHOLDS = OptionSpec("thresholds", "list[float]", None, "the thresholds to compute, instead of those of the scores")
CLASS = OptionSpec("class", "str", None, "the class that is told from the rest")
STANDARDIZE = OptionSpec("standardize", "bool", False, "as learnt, with every number standardised")


@dataclass(frozen=True)
class TableFunction:
    """One function.  ``fits`` gives what it is for and what to use instead, or None where the version is right."""

    doc: str
    fits: Callable[[Subject], tables.Misfit | None]
    columns: Callable[[Subject, Options], pa.Schema]
    compute: Callable[[Subject, Options, Sequence[Scores]], Sequence[Mapping[str, Any]]]
    options: tuple[OptionSpec, ...] = ()
    rows: bool = False  # measured on rows: those of a query, or those held out

    def table(self, subject: Subject, options: Options, scores: Sequence[Scores] = ()) -> pa.Table:
        """The function's answer."""
        schema = self.columns(subject, options)
        rows = [dict(row) for row in self.compute(subject, options, scores)]
        names = schema.names
        return pa.table([pa.array([row.get(name) for row in rows], schema.field(i).type) for i, name in enumerate(names)], schema)

    def empty(self, subject: Subject, options: Options) -> pa.Table:
        """The right columns, no rows."""
        return self.columns(subject, options).empty_table()


FUNCTIONS: Mapping[str, TableFunction] = {
    "ml.evaluate": TableFunction(
        "the field's figures, under BigQuery's names",
        tables.fits_measured, tables.evaluate_columns, tables.evaluate, (THRESHOLD,), rows=True,
    ),
    "ml.confusion_matrix": TableFunction(
        "how many rows of each class were predicted to be of each",
        tables.fits_classes, tables.confusion_columns, tables.confusion_matrix, (THRESHOLD,), rows=True,
    ),
    "ml.roc_curve": TableFunction(
        "what each threshold tells rightly and wrongly",
        tables.fits_classes, tables.roc_columns, tables.roc_curve, (THRESHOLDS, CLASS), rows=True,
    ),
    "ml.precision_recall_curve": TableFunction(
        "precision and recall at each threshold",
        tables.fits_classes, tables.precision_columns, tables.precision_recall_curve, (THRESHOLDS, CLASS), rows=True,
    ),
    "ml.calibration_curve": TableFunction(
        "how often a class is true where the model gives it some probability",
        tables.fits_classes, tables.calibration_columns, tables.calibration_curve,
        (
            OptionSpec("bins", "int", 10, "how many groups", low=1, high=10_000),
            OptionSpec("strategy", "str", "uniform", "equal widths, or equally many rows", choices=("uniform", "quantile")),
            CLASS,
        ),
        rows=True,
    ),
    "ml.training_info": TableFunction(
        "the loss after each step of training", tables.fits_all, tables.training_columns, tables.training_info
    ),
    "ml.feature_info": TableFunction(
        "what each input was like in the training rows", tables.fits_all, tables.feature_columns, tables.feature_info
    ),
    "ml.weights": TableFunction(
        "a linear model's weights", tables.fits_linear, tables.weight_columns, tables.weights, (STANDARDIZE,)
    ),
    "ml.centroids": TableFunction(
        "the centres of clusters", tables.fits_clusters, tables.centroid_columns, tables.centroids, (STANDARDIZE,)
    ),
    "ml.principal_components": TableFunction(
        "the directions of components", tables.fits_components, tables.component_columns, tables.principal_components
    ),
    "ml.principal_component_info": TableFunction(
        "the variance of each component", tables.fits_components, tables.component_info_columns, tables.principal_component_info
    ),
    "ml.feature_importance": TableFunction(
        "how trees use each column", tables.fits_trees, tables.importance_columns, tables.feature_importance
    ),
    "ml.global_explain": TableFunction(
        "how much each column moves the predictions",
        tables.fits_explained, tables.global_columns, tables.global_explain,
        (OptionSpec("class_level_explain", "bool", False, "for each class by itself"),),
    ),
    "ml.trial_info": TableFunction("what TUNE tried", tables.fits_tuned, tables.trial_columns, tables.trial_info),
}  # fmt: skip


def check_fits(name: str, subject: Subject) -> None:
    """``BindError`` where a function is not for such a version: what it is for, what this one is, what to use instead."""
    misfit = FUNCTIONS[name].fits(subject)
    if misfit is not None:
        shown = name.upper()
        raise BindError(f"{shown} is for {misfit.wanted}; {subject.name} {misfit.found}", hint=misfit.instead)
