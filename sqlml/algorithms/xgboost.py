"""Gradient-boosted trees by XGBoost: its native API on a float32 matrix, categories as codes, missing values as NaN.

xgboost is imported when a model is fitted or loaded, so that the options can be checked without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sqlml.algorithms.arrays import save_arrays
from sqlml.algorithms.devices import DEVICE, device_number, gpu_notice, used_memory, xgboost_device
from sqlml.contracts import FeatureMatrix, FitSpec, OptionSpec, Report, TrainingData
from sqlml.errors import NotSupportedError, TrainingDataError
from sqlml.types import Task

if TYPE_CHECKING:
    import xgboost
    from numpy.typing import NDArray

    from sqlml.algorithms.boosters import Forest
    from sqlml.algorithms.xgboost_kernel import BoosterKernel

_FILE = "model.ubj"
_PACKED = "trees.npz"

TREE_OPTIONS = (
    OptionSpec("n_estimators", "int", 100, "number of boosting rounds", low=1),
    OptionSpec("max_depth", "int", 6, "depth of a tree; 0: no limit", low=0),
    OptionSpec("learning_rate", "float", 0.3, "what each tree adds is multiplied by this", low=0, high=1, open_low=True),
    OptionSpec("max_leaves", "int", 0, "leaves of a tree; 0: no limit", low=0),
    OptionSpec("max_bin", "int", 256, "bins into which a number's values are put", low=2),
    OptionSpec("grow_policy", "str", "depthwise", "which node is split next", choices=("depthwise", "lossguide")),
    OptionSpec("tree_method", "str", "hist", "how splits are found", choices=("hist", "approx", "exact")),
    OptionSpec("min_child_weight", "float", 1.0, "least sum of hessians in a leaf", low=0),
    OptionSpec("gamma", "float", 0.0, "least gain for a split", low=0),
    OptionSpec("max_delta_step", "float", 0.0, "largest step of a leaf; 0: no limit", low=0),
    OptionSpec("subsample", "float", 1.0, "part of the rows drawn for each tree", low=0, high=1, open_low=True),
    OptionSpec("colsample_bytree", "float", 1.0, "part of the features drawn for each tree", low=0, high=1, open_low=True),
    OptionSpec("colsample_bylevel", "float", 1.0, "part of the features drawn for each level", low=0, high=1, open_low=True),
    OptionSpec("colsample_bynode", "float", 1.0, "part of the features drawn for each split", low=0, high=1, open_low=True),
    OptionSpec("reg_alpha", "float", 0.0, "L1 regularisation of leaf values", low=0),
    OptionSpec("reg_lambda", "float", 1.0, "L2 regularisation of leaf values", low=0),
    OptionSpec("num_parallel_tree", "int", 1, "trees grown in each round", low=1),
    OptionSpec("max_cat_to_onehot", "int", 4, "columns with fewer categories are split one against the rest", low=1),
    OptionSpec("max_cat_threshold", "int", 64, "most categories considered in one split", low=1),
    OptionSpec("base_score", "float", None, "the prediction before the first tree; left out: estimated from the target"),
    OptionSpec("early_stopping_rounds", "int", None, "stop after so many rounds without improvement", low=1),
    DEVICE,
)

_CLASSIFIER_METRICS = ("logloss", "error", "auc", "aucpr")
_REGRESSOR_METRICS = ("rmse", "mae", "mape", "rmsle", "mphe", "poisson-nloglik", "gamma-nloglik", "gamma-deviance")
_OBJECTIVES = (
    "reg:squarederror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:squaredlogerror",
    "count:poisson",
    "reg:gamma",
    "reg:tweedie",
)
_METRIC_NAMES = {"mlogloss": "logloss", "merror": "error", "auc": "roc_auc", "aucpr": "pr_auc"}
_RANKED_ROWS = 20_000
"""With more held-out rows than this the area under the curve is not followed round by round: it sorts them all each time."""
_FOLLOWED_ROWS = 50_000
"""Of twice as many rows the loss is followed every second round, and so on: of the training rows it takes a third of a round."""


class XgboostClassifier:
    """Gradient-boosted trees for two or more classes."""

    name = "xgboost_classifier"
    task = Task.CLASSIFICATION
    encoding = "codes"
    early_stopping: str | None = "early_stopping_rounds"
    rounds: str | None = "n_estimators"
    streams: float | None = 0.0
    warm_start = True
    explains = True
    doc = "gradient-boosted trees for classes (XGBoost)"
    libraries = ("xgboost",)
    options = (
        *TREE_OPTIONS,
        OptionSpec("scale_pos_weight", "float", 1.0, "weight of the second of two classes", low=0, open_low=True),
        OptionSpec("eval_metric", "str", "logloss", "what is followed and decides when to stop", choices=_CLASSIFIER_METRICS),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> TreePredictor:
        """Boost with a logistic loss, or a softmax for more than two classes."""
        metric = spec.options["eval_metric"]
        if data.n_classes == 2:
            return boost(data, spec, report, {"objective": "binary:logistic"}, metric, "auc")
        params = {"objective": "multi:softprob", "num_class": data.n_classes}
        metric = {"logloss": "mlogloss", "error": "merror"}.get(metric, metric)
        return boost(data, spec, report, params, metric, None, drop=("scale_pos_weight",))

    def load(self, folder: Path) -> TreePredictor:
        """Read what ``save`` wrote."""
        return TreePredictor.load(folder)


class XgboostRegressor:
    """Gradient-boosted trees for a number."""

    name = "xgboost_regressor"
    task = Task.REGRESSION
    encoding = "codes"
    early_stopping: str | None = "early_stopping_rounds"
    rounds: str | None = "n_estimators"
    streams: float | None = 0.0
    warm_start = True
    explains = True
    doc = "gradient-boosted trees for a number (XGBoost)"
    libraries = ("xgboost",)
    options = (
        *TREE_OPTIONS,
        OptionSpec("objective", "str", "reg:squarederror", "the loss", choices=_OBJECTIVES),
        OptionSpec("tweedie_variance_power", "float", 1.5, "of reg:tweedie", low=1, high=2, open_low=True, open_high=True),
        OptionSpec("huber_slope", "float", 1.0, "of reg:pseudohubererror", low=0, open_low=True),
        OptionSpec("eval_metric", "str", "rmse", "what is followed and decides when to stop", choices=_REGRESSOR_METRICS),
    )

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> TreePredictor:
        """Boost with the loss that ``objective`` names."""
        objective = spec.options["objective"]
        own = {"reg:tweedie": "tweedie_variance_power", "reg:pseudohubererror": "huber_slope"}.get(objective)
        drop = tuple(name for name in ("tweedie_variance_power", "huber_slope") if name != own)
        return boost(data, spec, report, {"objective": objective}, spec.options["eval_metric"], None, drop=drop)

    def load(self, folder: Path) -> TreePredictor:
        """Read what ``save`` wrote."""
        return TreePredictor.load(folder)


class TreePredictor:
    """A booster.  One thread for each call unless ``threads`` is raised: the callers are parallel themselves.

    It predicts by the native kernel where that was built, else by XGBoost; the answers are the same to a float32's last digits.
    """

    def __init__(self, booster: xgboost.Booster | Path, kernel: BoosterKernel | None = None) -> None:
        """``booster`` may be its file, which is read when it is first needed, where the ``kernel`` is given."""
        self._given = booster
        self._threads = 1
        self.gpu_memory = 0  # bytes that training it took of a GPU; not kept
        if kernel is not None:
            self.kernel = kernel  # in the cached property's place
            self._objective, self._outputs = kernel.objective, kernel.outputs
        else:
            self._objective = self.booster.attr("objective") or ""
            self._outputs = int(self.booster.attr("outputs") or 1)

    @cached_property
    def booster(self) -> xgboost.Booster:
        """XGBoost's own, for everything but predictions."""
        if not isinstance(self._given, Path):
            return self._given
        import xgboost

        booster = xgboost.Booster(params={"nthread": self._threads})
        booster.load_model(self._given)
        return booster

    @property
    def threads(self) -> int:
        """Threads that one call of ``predict`` uses."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        self._threads = count
        if "booster" in self.__dict__:
            self.booster.set_param({"nthread": count})

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """float32 (n, k) → float64 (n, classes), or (n,) for a regression."""
        if not len(x):
            classes = self._objective.startswith(("binary:", "multi:"))
            return np.empty((0, self._outputs) if classes else 0)
        if self.kernel is not None:
            return self.kernel.answers(x, self._threads)
        raw = np.asarray(self.booster.inplace_predict(np.ascontiguousarray(x)), np.float64)
        return np.column_stack([1.0 - raw, raw]) if self._objective.startswith("binary:") else raw

    @cached_property
    def kernel(self) -> BoosterKernel | None:
        """The native kernel; None where it was not built, or does not know such trees."""
        from sqlml.algorithms.xgboost_kernel import kernel_of
        from sqlml.native.trees import TreeKernel

        if not TreeKernel.available():  # then nobody needs to read the trees
            return None
        return None if self._forest is None else kernel_of(self._forest)

    @cached_property
    def _forest(self) -> Forest | None:
        """The booster's trees, read once; None for a booster of another kind."""
        from sqlml.algorithms.boosters import read_forest

        try:
            return read_forest(self.booster)
        except NotSupportedError:
            return None

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """(n, outputs, k + 1): exact TreeSHAP values in the margin, which is a logarithm for poisson, gamma and tweedie."""
        import xgboost

        k = x.shape[1]
        if not len(x):
            return np.empty((0, self._outputs if self._objective.startswith("multi:") else 1, k + 1))
        rows = xgboost.DMatrix(x, feature_types=self.booster.feature_types, nthread=self._threads)
        values = self.booster.predict(rows, pred_contribs=True)
        return np.asarray(values, np.float64).reshape(len(x), -1, k + 1)

    def importance(self) -> NDArray[np.float64]:
        """Each feature's share of the total gain of all splits."""
        gain = np.zeros(self.booster.num_features())
        for name, value in self.booster.get_score(importance_type="total_gain").items():
            gain[int(name[1:])] = value
        return gain / gain.sum() if gain.sum() > 0 else gain

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """``weight``, ``gain`` and ``cover`` (k,): splits on each feature, and averages over them; ``rounds`` (1,)."""
        return self.split_figures() | {"rounds": np.array([self.booster.num_boosted_rounds()], np.float64)}

    def split_figures(self) -> dict[str, NDArray[Any]]:
        """``weight``, ``gain`` and ``cover`` of the splits on each feature, each (k,); 0 where there is none."""
        figures = {name: np.zeros(self.booster.num_features()) for name in ("weight", "gain", "cover")}
        for name, values in figures.items():
            for feature, value in self.booster.get_score(importance_type=name).items():
                values[int(feature[1:])] = value
        return figures

    def continued(self, features: FeatureMatrix, objective: str) -> xgboost.Booster:
        """The booster to go on from.  ``TrainingDataError`` where it was learnt from other features, or with another loss."""
        if self.booster.num_features() != len(features.names):
            raise TrainingDataError("the model to go on from has other features")
        if self._objective != objective:
            raise TrainingDataError(f"the model to go on from was trained for {self._objective}, and this is {objective}")
        return self.booster

    def save(self, folder: Path) -> None:
        """Write ``model.ubj``, XGBoost's own UBJSON; and beside it the trees as the kernel takes them, so that who only predicts
        need not load XGBoost.
        """
        from sqlml.algorithms.xgboost_kernel import packed

        self.booster.save_model(folder / _FILE)
        arrays = None if self._forest is None else packed(self._forest, self._objective, self._outputs)
        if arrays is not None:
            save_arrays(folder / _PACKED, arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the packed trees where they are there and can be used, else ``model.ubj``."""
        from sqlml.algorithms.xgboost_kernel import unpacked

        if (folder / _PACKED).exists() and (kernel := unpacked(folder / _PACKED)) is not None:
            return cls(folder / _FILE, kernel)
        import xgboost

        booster = xgboost.Booster(params={"nthread": 1})
        booster.load_model(folder / _FILE)
        return cls(booster)

    def onnx(self) -> bytes | None:
        """With the probabilities or values as the only output.  None for an objective that is not known there."""
        from sqlml.algorithms.xgboost_onnx import trees_onnx

        return None if self._forest is None else trees_onnx(self._forest)


def boost(
    data: TrainingData,
    spec: FitSpec,
    report: Report,
    params: Mapping[str, Any],
    metric: str,
    ranked: str | None,
    drop: tuple[str, ...] = (),
) -> TreePredictor:
    """Train, from ``spec.start`` on where it is given: ``n_estimators`` more rounds.

    ``metric`` decides when to stop; ``ranked`` is shown beside it where the held-out rows are few enough.
    """
    import xgboost

    from sqlml.algorithms.xgboost_matrices import training_matrices

    start = spec.start.continued(data.features, str(params["objective"])) if isinstance(spec.start, TreePredictor) else None

    device = _device(spec.options)
    before = used_memory(device_number(device)) if device != "cpu" else 0
    apart = {"n_estimators", "early_stopping_rounds", "eval_metric", "device", *drop}
    options = {name: value for name, value in spec.options.items() if name not in apart and value is not None}
    if start is not None:
        options.pop("base_score", None)  # the trees so far were grown upon theirs
    metrics = [metric]
    if ranked and ranked != metric and data.heldout_x is not None and len(data.heldout_x) <= _RANKED_ROWS:
        metrics.append(ranked)
    settings = options | dict(params) | {"seed": spec.seed, "nthread": spec.threads, "eval_metric": metrics, "verbosity": 0}
    settings["device"] = device
    rounds = spec.options["n_estimators"]
    callbacks: list[Any] = []
    patience = spec.options["early_stopping_rounds"]
    if patience and data.valid_x is not None:
        callbacks.append(xgboost.callback.EarlyStopping(rounds=patience, metric_name=metric, data_name="valid"))
    try:
        # the trees so far answer exactly for plain rows only, not for binned ones
        train, evals = training_matrices(data, spec, binned=options["tree_method"] == "hist" and start is None)
        every = _every(data)
        now_and_then = {name: (matrix, every[name]) for matrix, name in evals if every.get(name, 1) > 1}
        callbacks.insert(0, _follow(rounds, report, now_and_then))
        always = [(matrix, name) for matrix, name in evals if name not in now_and_then]
        booster = xgboost.train(settings, train, rounds, evals=always, verbose_eval=False, callbacks=callbacks, xgb_model=start)
    except xgboost.core.XGBoostError as error:
        raise TrainingDataError(f"xgboost: {_reason(error)}") from error
    memory = used_memory(device_number(device)) - before if device != "cpu" else 0
    if len(callbacks) > 1:
        booster = booster[: booster.best_iteration + 1]
    for name in booster.attributes():
        booster.set_attr(**{name: None})
    booster.set_attr(objective=str(params["objective"]), outputs=str(data.n_classes or 1))
    booster.set_param({"device": "cpu"})
    predictor = TreePredictor(booster)
    predictor.gpu_memory = max(0, memory)
    if device != "cpu":
        report.notice(gpu_notice(device, predictor.gpu_memory))
    return predictor


def _device(options: Mapping[str, Any]) -> str:
    """Where to train; splits of tree_method = 'exact' are found on the CPU alone."""
    wanted = str(options.get("device", "auto"))
    return "cpu" if wanted == "auto" and options["tree_method"] == "exact" else xgboost_device(wanted)


def _every(data: TrainingData) -> dict[str, int]:
    """After how many rounds the loss of each part is followed, but for the rows that decide when to stop: what is told of the
    training rows is told with that of the held-out ones.
    """
    held = max(1, -(-len(data.heldout_x) // _FOLLOWED_ROWS)) if data.heldout_x is not None else 1
    rows = 0 if data.y is None else len(data.y)
    return {"heldout": held, "train": held * max(1, -(-rows // (held * _FOLLOWED_ROWS)))}


def _follow(rounds: int, report: Report, now_and_then: Mapping[str, tuple[Any, int]]) -> Any:
    """A callback that reports each round; of some parts only each so many rounds, and the last: matrix and rounds, by name."""
    import xgboost

    class Follow(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, list[Any]]]) -> bool:
            found = {(part, name): float(values[-1]) for part, log in evals_log.items() for name, values in log.items()}
            last = epoch + 1 == rounds
            due = [(matrix, name) for name, (matrix, every) in now_and_then.items() if last or (epoch + 1) % every == 0]
            if due:
                found = _figures(model.eval_set(due, epoch)) | found
            report.step(
                epoch + 1, rounds, {f"{part}_{_METRIC_NAMES.get(name, name)}": value for (part, name), value in found.items()}
            )
            return False

    return Follow()


def _figures(told: str) -> dict[tuple[str, str], float]:
    """``[3]\ttrain-logloss:0.48`` by part and name."""
    pairs = (figure.rsplit(":", 1) for figure in told.split("\t")[1:])
    return {(name.partition("-")[0], name.partition("-")[2]): float(value) for name, value in pairs}


def _reason(error: Exception) -> str:
    """The sentence in an XGBoost error: without time, file and stack."""
    lines = [line.strip() for line in str(error).split("Stack trace")[0].splitlines() if line.strip()]
    text = re.sub(r"^\[\d\d:\d\d:\d\d\]\s+\S+:\d+:\s*", "", lines[0])
    return " ".join([text, *lines[1:]])
