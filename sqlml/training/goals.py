"""The figures that tuning can aim at: of each task, and whether more of it is better.  The first is the default."""

from __future__ import annotations

from collections.abc import Mapping

from sqlml.types import Task

GOALS: Mapping[Task, Mapping[str, bool]] = {
    Task.CLASSIFICATION: {
        "roc_auc": True,
        "log_loss": False,
        "accuracy": True,
        "precision": True,
        "recall": True,
        "f1": True,
        "pr_auc": True,
        "mcc": True,
        "balanced_accuracy": True,
        "brier": False,
    },
    Task.REGRESSION: {
        "rmse": False,
        "mae": False,
        "r2": True,
        "medae": False,
        "mape": False,
        "explained_variance": True,
        "mse": False,
        "msle": False,
    },
    Task.CLUSTERING: {"davies_bouldin": False, "silhouette": True, "mean_squared_distance": False},
    Task.PROJECTION: {"total_explained_variance_ratio": True, "reconstruction_error": False},
}
