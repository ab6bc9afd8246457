"""Linear models and k-means by Spark's MLlib, turned into the predictors that scikit-learn's become.

MLlib's objectives are divided by the sum of the weights, ours as scikit-learn has them; the strengths are converted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.kmeans import CentrePredictor
from sqlml.algorithms.linear import LinearPredictor, LinearState
from sqlml.contracts import Report
from sqlml.errors import NotSupportedError, TrainingDataError, count_of
from sqlml.features.encode import FeatureEncoder
from sqlml.training.aims import Learner
from sqlml.types import Task
from sqlml_runners.spark.executors import Columns, moment_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLERANCE = 1e-2
"""MLlib's tolerance is of the objective's change, scikit-learn's of the gradient: about so much smaller for the same answer."""
_DEFAULTS = {"solver": None, "init": "k-means++", "algorithm": "lloyd"}


@dataclass(frozen=True)
class Rows:
    """Training rows: as they are (with ``w``), and encoded (``features``, ``y``, ``w``)."""

    frame: Any
    columns: Columns
    encoder: FeatureEncoder
    encoded: Any


def vectors(frame: Any) -> Any:
    """The column ``features`` as MLlib's vectors."""
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as sf

    return frame.withColumn("features", array_to_vector(sf.col("features").cast("array<double>")))


def tell_unused(learner: Learner, report: Report) -> None:
    """Say which options are of scikit-learn's solvers alone."""
    for name in ("solver", "algorithm"):
        if name in learner.options and learner.options[name] != _DEFAULTS[name]:
            report.notice(f"{name} = '{learner.options[name]}' has no part on Spark: MLlib has one way to solve it")


def fit_logistic(rows: Rows, learner: Learner, report: Report) -> LinearPredictor:
    """Logistic regression: C and l1_ratio as scikit-learn's."""
    from pyspark.ml.classification import LogisticRegression

    frame, weight, mean, spread = _prepared(rows)
    options = learner.options
    two = len(learner.classes) == 2
    model = LogisticRegression(
        featuresCol="features",
        labelCol="y",
        weightCol="w",
        family="binomial" if two else "multinomial",
        regParam=1.0 / (options["C"] * weight),
        elasticNetParam=options["l1_ratio"],
        maxIter=options["max_iter"],
        tol=options["tol"] * _TOLERANCE,
        fitIntercept=options["fit_intercept"],
        standardization=False,
    ).fit(frame)
    _tell_rounds(model, options["max_iter"], report)
    coef = np.asarray(model.coefficientMatrix.toArray(), np.float64)
    intercept = np.asarray(model.interceptVector.toArray(), np.float64)
    return _linear(Task.CLASSIFICATION, coef, intercept, mean, spread)


def fit_linear(rows: Rows, learner: Learner, report: Report) -> LinearPredictor:
    """Least squares, plain or regularised: alpha and l1_ratio as scikit-learn's ElasticNet.

    MLlib standardises the target: its L2 strength is divided by the target's deviation, its L1 strength is not.
    """
    from pyspark.ml.regression import LinearRegression
    from pyspark.sql import functions as sf

    options = learner.options
    if options["positive"]:
        raise NotSupportedError(
            "positive = true: MLlib cannot hold coefficients above 0", hint="ON process trains it", about="positive"
        )
    frame, weight, mean, spread = _prepared(rows)
    centre = frame.agg(sf.sum(sf.col("w") * sf.col("y"))).first()[0] / weight
    deviation = float((frame.agg(sf.sum(sf.col("w") * (sf.col("y") - centre) ** 2)).first()[0] / weight) ** 0.5)
    one, two = options["alpha"] * options["l1_ratio"], options["alpha"] * (1 - options["l1_ratio"]) * deviation
    model = LinearRegression(
        featuresCol="features",
        labelCol="y",
        weightCol="w",
        regParam=one + two,
        elasticNetParam=one / (one + two) if one + two else 0.0,
        maxIter=options["max_iter"],
        tol=options["tol"] * _TOLERANCE,
        fitIntercept=options["fit_intercept"],
        standardization=False,
    ).fit(frame)
    _tell_rounds(model, options["max_iter"], report)
    coef = np.asarray(model.coefficients.toArray(), np.float64)[None]
    return _linear(Task.REGRESSION, coef, np.array([model.intercept], np.float64), mean, spread)


def fit_kmeans(rows: Rows, learner: Learner, report: Report) -> CentrePredictor:
    """K-means: of ``n_init`` runs the best; the first centre has most rows."""
    from pyspark.ml.clustering import KMeans

    options = learner.options
    wanted = options["n_clusters"]
    frame = vectors(rows.encoded).select("features", "w").persist()
    try:
        different = frame.select("features").distinct().limit(wanted).count()
        if different < wanted:
            verb = "is" if different == 1 else "are"
            raise TrainingDataError(
                f"n_clusters = {wanted} needs as many different rows; there {verb} {different}",
                hint=f"WITH (n_clusters = {different})" + (" or fewer" if different > 1 else ""),
            )
        mode = "k-means||" if options["init"] == "k-means++" else "random"
        runs = options["n_init"] or (1 if mode == "k-means||" else 10)
        best: Any = None
        for run in range(runs):
            solver = KMeans(
                featuresCol="features", weightCol="w", k=wanted, initMode=mode, seed=learner.seed + run,
                maxIter=options["max_iter"], tol=options["tol"],
            )  # fmt: skip
            model = solver.fit(frame)
            report.step(run + 1, runs, {"train_inertia": float(model.summary.trainingCost)})
            if best is None or model.summary.trainingCost < best.summary.trainingCost:
                best = model
        sizes = np.array(best.summary.clusterSizes)
        centres = np.array(best.clusterCenters(), np.float64)
    finally:
        frame.unpersist()
    if len(centres) < wanted:
        raise TrainingDataError(f"only {count_of(len(centres), 'cluster')} of {wanted} found any rows")
    return CentrePredictor(centres[np.argsort(-sizes, kind="stable")])


def _prepared(rows: Rows) -> tuple[Any, float, NDArray[np.float64], NDArray[np.float64]]:
    """(vectors with ``y`` and ``w``, the sum of the weights, each feature's weighted mean and spread)."""
    found = rows.frame.mapInArrow(
        partial(moment_batches, columns=rows.columns, encoder=json.dumps(rows.encoder.to_json())),
        "weight double, sums array<double>, squares array<double>",
    ).toArrow()
    weight = float(np.sum(found.column("weight").to_numpy()))
    sums = np.sum(np.stack(found.column("sums").to_pylist()), 0)
    squares = np.sum(np.stack(found.column("squares").to_pylist()), 0)
    mean = sums / weight
    return vectors(rows.encoded), weight, mean, np.sqrt(np.maximum(squares / weight - mean**2, 0.0))


def _linear(
    task: Task, coef: NDArray[np.float64], intercept: NDArray[np.float64], mean: NDArray[np.float64], spread: NDArray[np.float64]
) -> LinearPredictor:
    return LinearPredictor(LinearState(task.value, coef.tolist(), intercept.tolist(), mean.tolist(), spread.tolist()))


def _tell_rounds(model: Any, most: int, report: Report) -> None:
    """Each iteration's objective: the loss with what regularisation adds."""
    history = [float(value) for value in model.summary.objectiveHistory]
    if len(history) < 2:  # solved at once
        report.step(1, 1, {})
        return
    for i, value in enumerate(history):
        report.step(i + 1, len(history), {"train_objective": value})
    if len(history) > most:
        report.notice(f"not converged in {count_of(most, 'iteration')}: a larger max_iter may give a better model")
