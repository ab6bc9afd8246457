"""A model as one SELECT in the SQL of any database: inputs cleaned, features, scores, answers, each a step of its own.

What it computes is compared with the model itself, on rows made for it, before it is handed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlglot import exp

from sqlml.algorithms.boosters import LOG, LOGIT, SURE, read_forest
from sqlml.algorithms.xgboost import TreePredictor
from sqlml.bundles.head import Head
from sqlml.bundles.model import Model
from sqlml.errors import NotSupportedError
from sqlml.exports.sql_build import (
    Stages,
    check_dialect,
    column,
    constant,
    double,
    exp_call,
    integer,
    number,
    sigmoid,
    total,
    when,
)
from sqlml.exports.sql_features import encode_sql, feature_columns
from sqlml.exports.sql_linear import components_sql, distances_sql, linear_sql, smallest_sql
from sqlml.exports.sql_transform import transform_sql
from sqlml.exports.sql_trees import margins_sql
from sqlml.features.column_code import CODES
from sqlml.types import SQL_TYPE, UNMEASURED, Kind, Task

TABLE = "rows_to_predict"
DIALECT = "duckdb"
MAX_NODES = 20_000

_MOST_LOGISTIC = 700.0
"""Further from 0 the logistic function is 0 or 1 in 64 bits, and an exponential may overflow."""

_MOST_FLOAT = 88.7
"""XGBoost's own bound."""

Outputs = list[tuple[str, exp.Expression]]


def model_sql(
    model: Model,
    *,
    title: str = "",
    dialect: str = DIALECT,
    table: str = TABLE,
    keep: Sequence[str] | None = None,
    max_nodes: int = MAX_NODES,
) -> str:
    """The query as text, with a comment that says how to use it.

    ``keep`` are the columns of the table that the result keeps: the model's inputs, if left out.  ``NotSupportedError`` names
    what cannot be SQL; ``BindError`` an unknown dialect.
    """
    dialect = check_dialect(dialect)
    query = model_query(model, dialect=dialect, table=table, keep=keep, max_nodes=max_nodes)
    return _comment(model, title, dialect, table) + query.sql(dialect, pretty=True, copy=False) + ";\n"


def model_query(
    model: Model, *, dialect: str, table: str = TABLE, keep: Sequence[str] | None = None, max_nodes: int = MAX_NODES
) -> exp.Select:
    """The query as a tree."""
    if not model.heads:
        raise NotSupportedError(f"the model {UNMEASURED[model.task]}: it has no answer to export", hint="FORMAT bundle keeps it")
    inputs = [i.name for i in model.inputs]
    stages = Stages(table, inputs if keep is None else keep, inputs)
    source = _source(model, stages, dialect)
    outputs: Outputs = []
    for head in model.heads:
        outputs += head_sql(head, stages, source, dialect, max_nodes, several=len(model.heads) > 1)
    return stages.finish(outputs, dialect)


def _source(model: Model, stages: Stages, dialect: str) -> Mapping[str, exp.Expression]:
    """The expression of each column that the encoders read."""
    if model.transform is not None:
        return transform_sql(model.transform, stages, dialect)
    if len(model.heads) == 1:
        return {i.name: column(i.name) for i in model.inputs}
    copies = {i.name: stages.fresh("i") for i in model.inputs}  # the table itself is read by the first step alone
    stages.add("inputs", [(own, column(name)) for name, own in copies.items()])
    return {name: column(own) for name, own in copies.items()}


def head_sql(
    head: Head, stages: Stages, source: Mapping[str, exp.Expression], dialect: str, max_nodes: int, several: bool
) -> Outputs:
    """The steps of one head, and its outputs."""
    if head.encoder.encoding != CODES and head.algorithm not in _DENSE:
        raise _not_sql(head)
    if isinstance(head.predictor, TreePredictor):
        return _trees(head, stages, source, dialect, max_nodes, several)
    if head.algorithm not in _DENSE:
        raise _not_sql(head)
    groups = encode_sql(head.encoder, stages, source, dialect)
    spans = _spans(head)
    learnt = head.predictor.parameters()
    if head.task is Task.CLUSTERING:
        return _clusters(distances_sql(groups, spans, learnt["centers"], stages))
    if head.task is Task.PROJECTION:
        turn, shift = _turn(head)
        found = components_sql(groups, spans, turn, shift)
        return [(f"principal_component_{i + 1}", value) for i, value in enumerate(found)]
    values = linear_sql(groups, spans, learnt["coef"], learnt["intercept"])
    names = [stages.fresh("s") for _ in values]
    stages.add("scores", list(zip(names, values, strict=True)))
    if head.task is Task.REGRESSION:
        return [(f"predicted_{head.target}", column(names[0]))]
    return _classes(head, names, stages, several, 0.0, _MOST_LOGISTIC)


_DENSE = frozenset({"logistic_regression", "linear_regression", "kmeans", "pca"})
"""The algorithms on dense features whose learnt numbers are all that they compute with."""


def _not_sql(head: Head) -> NotSupportedError:
    return NotSupportedError(
        f"{head.algorithm} cannot be written as SQL: linear models, trees, kmeans and pca can",
        hint="FORMAT onnx or FORMAT bundle",
    )


def _spans(head: Head) -> list[tuple[int, int]]:
    """The first and last feature of each input that has any."""
    ends = np.cumsum([len(code.features(head.encoder.encoding)) for code in head.encoder.columns])
    starts = np.concatenate([[0], ends[:-1]])
    return [(int(a), int(b)) for a, b, code in zip(starts, ends, head.encoder.columns, strict=True) if code.parts]


def _turn(head: Head) -> tuple[Any, Any]:
    """What components are made by, whitened or not: read off the predictor itself, since it is linear."""
    k = len(head.encoder.names)
    at_zero = head.predictor.predict(np.zeros((1, k), np.float32))[0]
    turn = head.predictor.predict(np.eye(k, dtype=np.float32)) - at_zero
    return turn.T, -at_zero


def _trees(
    head: Head, stages: Stages, source: Mapping[str, exp.Expression], dialect: str, max_nodes: int, several: bool
) -> Outputs:
    assert isinstance(head.predictor, TreePredictor)
    forest = read_forest(head.predictor.booster)
    groups = encode_sql(head.encoder, stages, source, dialect)
    features = feature_columns(groups)
    categories = [len(g.code.categories) if g.code.kind is Kind.TEXT else 0 for g in groups for _ in g.columns]
    margins = margins_sql(forest, features, categories, stages, dialect, max_nodes)
    if head.task is Task.CLASSIFICATION:
        return _classes(head, margins, stages, several, SURE, _MOST_FLOAT)
    value = double(column(margins[0]))
    if forest.objective in LOGIT:
        value = sigmoid(value, _MOST_FLOAT)
    elif forest.objective in LOG:
        value = exp_call(value)
    return [(f"predicted_{head.target}", value)]


def _classes(head: Head, scores: Sequence[str], stages: Stages, several: bool, tie: float, most: float) -> Outputs:
    """The likeliest class and the probability of each, from one margin for two classes or one for each of more."""
    labels = [constant(value) for value in head.classes]
    names = [f"probability_{head.target}_{c}" if several else f"probability_{c}" for c in head.class_names]
    predicted = f"predicted_{head.target}"
    if len(scores) == 1:
        p = stages.fresh("p")
        stages.add("probabilities", [(p, sigmoid(double(column(scores[0])), most))])
        second = exp.GT(this=column(scores[0]), expression=number(tie))
        one_less = exp.Sub(this=number(1.0), expression=column(p))
        return [(predicted, when([(second, labels[1])], labels[0])), (names[0], one_less), (names[1], column(p))]
    top, sum_ = stages.fresh("top"), stages.fresh("sum")
    stages.add("top", [(top, exp.Greatest(this=column(scores[0]), expressions=[column(s) for s in scores[1:]]))])
    # exp(-700) is 0 beside exp(0) = 1; further down some databases raise
    apart = [exp.Sub(this=double(column(s)), expression=double(column(top))) for s in scores]
    bounded = [exp.Greatest(this=a, expressions=[number(-_MOST_LOGISTIC)]) for a in apart]
    weights = [stages.fresh("e") for _ in scores]
    stages.add("weights", [(w, exp_call(b)) for w, b in zip(weights, bounded, strict=True)])
    stages.add("sums", [(sum_, total([column(w) for w in weights]))])
    likeliest = [(exp.EQ(this=column(s), expression=column(top)), label) for s, label in zip(scores, labels, strict=True)]
    answers: Outputs = [(predicted, when(likeliest[:-1], likeliest[-1][1]))]
    shares = [exp.Div(this=column(w), expression=column(sum_), typed=False, safe=False) for w in weights]
    return [*answers, *zip(names, shares, strict=True)]


def _clusters(distances: Sequence[str]) -> Outputs:
    nearest = smallest_sql(distances)
    last = integer(len(distances))
    chosen = when([(condition, integer(i + 1)) for condition, i in nearest], last) if nearest else last
    return [("centroid_id", chosen), *((f"distance_{i + 1}", column(d)) for i, d in enumerate(distances))]


def _comment(model: Model, title: str, dialect: str, table: str) -> str:
    """What it is, for whoever opens the file; nothing of a name can end the comment."""
    needs = ", ".join(f"{i.name} {SQL_TYPE[i.kind]}" for i in model.inputs)
    lines = [
        f"{title or 'a model'} as SQL for {dialect}: {', '.join(head.algorithm for head in model.heads)}",
        f"reads the table {table}, which needs the columns: {needs}",
        "NULL is a missing value, and so is a text that was not seen in training",
    ]
    return "".join("-- " + " ".join(line.split()) + "\n" for line in lines)
