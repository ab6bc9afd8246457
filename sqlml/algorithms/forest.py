"""Random forests by XGBoost: one round of many trees, each of drawn rows and features, as its XGBRFClassifier grows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlml.algorithms.xgboost import TREE_OPTIONS, TreePredictor, XgboostClassifier, boost
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEFAULTS = {"subsample": 0.8, "colsample_bynode": 0.8, "reg_lambda": 1e-5}
_OF_ROUNDS = ("learning_rate", "num_parallel_tree", "early_stopping_rounds")
_FOREST_OPTIONS = (
    OptionSpec("n_estimators", "int", 100, "number of trees", low=1),
    *(replace(o, default=_DEFAULTS.get(o.name, o.default)) for o in TREE_OPTIONS[1:] if o.name not in _OF_ROUNDS),
)


class RandomForestClassifier:
    """A random forest for two or more classes."""

    name = "random_forest_classifier"
    task = Task.CLASSIFICATION
    encoding = "codes"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = True
    doc = "a random forest for classes (XGBoost)"
    libraries = ("xgboost",)
    options = (*_FOREST_OPTIONS, *(o for o in XgboostClassifier.options if o.name == "scale_pos_weight"))

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> ForestPredictor:
        """Grow all trees at once; each splits by the logistic loss, or the softmax of more than two classes."""
        if data.n_classes == 2:
            grown = boost(data, _one_round(spec), report, {"objective": "binary:logistic"}, "logloss", "auc")
        else:
            params = {"objective": "multi:softprob", "num_class": data.n_classes}
            grown = boost(data, _one_round(spec), report, params, "mlogloss", None, drop=("scale_pos_weight",))
        return ForestPredictor(grown.booster)

    def load(self, folder: Path) -> ForestPredictor:
        """Read what ``save`` wrote."""
        return ForestPredictor.load(folder)


class RandomForestRegressor:
    """A random forest for a number."""

    name = "random_forest_regressor"
    task = Task.REGRESSION
    encoding = "codes"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = True
    doc = "a random forest for a number (XGBoost)"
    libraries = ("xgboost",)
    options = _FOREST_OPTIONS

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> ForestPredictor:
        """Grow all trees at once; each splits by the squared error."""
        return ForestPredictor(boost(data, _one_round(spec), report, {"objective": "reg:squarederror"}, "rmse", None).booster)

    def load(self, folder: Path) -> ForestPredictor:
        """Read what ``save`` wrote."""
        return ForestPredictor.load(folder)


class ForestPredictor(TreePredictor):
    """A booster of one round."""

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``weight``, ``gain`` and ``cover`` (k,), as of boosted trees; there are no rounds to stop at."""
        return self.split_figures()


def _one_round(spec: FitSpec) -> FitSpec:
    """The options as boosting has them: one round of ``n_estimators`` trees, each counting in full."""
    own = {"num_parallel_tree": spec.options["n_estimators"], "n_estimators": 1, "learning_rate": 1.0}
    return replace(spec, options={**spec.options, **own, "early_stopping_rounds": None})
