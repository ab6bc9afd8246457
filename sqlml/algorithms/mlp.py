"""Multi-layer perceptrons for tables by torch: categories embedded, numbers normalised inside the model.

torch is imported when a model is fitted, never to check options or to predict.
"""

from __future__ import annotations

from pathlib import Path

from sqlml.algorithms.devices import DEVICE
from sqlml.algorithms.mlp_predictor import ACTIVATIONS, HIDDEN, MlpPredictor
from sqlml.contracts import FitSpec, OptionSpec, Report, TrainingData
from sqlml.types import Task

_OPTIONS = (
    OptionSpec("hidden", "list[int]", HIDDEN, "how many units each hidden layer has; [] for a linear model", low=1, high=65_536),
    OptionSpec("activation", "str", "relu", "what follows each hidden layer", choices=tuple(ACTIVATIONS)),
    OptionSpec(
        "dropout", "float", 0.1, "part of a hidden layer's units left out at random in training", low=0, high=1, open_high=True
    ),
    OptionSpec("embedding_dim", "int", 0, "numbers that stand for a category; 0: by how many there are", low=0, high=1024),
    OptionSpec("batch_size", "int", None, "rows of one step; left out: 256, of small tables a 32nd, but 16 or more", low=1),
    OptionSpec("max_epochs", "int", 30, "times that all rows are gone through, at most", low=1),
    OptionSpec("learning_rate", "float", 0.002, "of AdamW, after the warm-up", low=0, open_low=True),
    OptionSpec("weight_decay", "float", 0.01, "of AdamW, for the layers' weights", low=0),
    OptionSpec(
        "schedule",
        "str",
        "cosine",
        "the learning rate: falling along a cosine; a fifth of it when a third of patience goes by without improvement; constant",
        choices=("cosine", "plateau", "constant"),
    ),
    OptionSpec("warmup", "float", 0.05, "part of all steps in which the learning rate rises from 0", low=0, high=1),
    OptionSpec("patience", "int", 10, "stop after so many epochs without improvement, and keep the best; 0: never", low=0),
    OptionSpec("precision", "str", "auto", "of the layers' products; auto: bf16 on a GPU", choices=("auto", "float32", "bf16")),
    DEVICE,
)


class _Mlp:
    """What both share."""

    encoding = "codes"
    early_stopping: str | None = "patience"
    rounds: str | None = "max_epochs"
    warm_start = True
    explains = True
    streams: float | None = 0.2
    libraries = ("torch", "onnxruntime", "onnx")  # to fit; to predict and to be kept
    options = _OPTIONS

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> MlpPredictor:
        """Minimise the log loss, or the squared error of the standardised target, by AdamW in batches of shuffled rows.

        The same for the same rows, options, seed and number of threads on the same kind of CPU.  Where ``spec.folder`` holds a
        checkpoint it goes on from there, to the very same result.
        """
        from sqlml.algorithms.mlp_training import train_mlp

        return train_mlp(data, spec, report)

    def load(self, folder: Path) -> MlpPredictor:
        """Read what ``save`` wrote."""
        return MlpPredictor.load(folder)


class MlpClassifier(_Mlp):
    """A multi-layer perceptron for two or more classes."""

    name = "mlp_classifier"
    task = Task.CLASSIFICATION
    doc = "a neural network for classes: embedded categories, layers (torch)"


class MlpRegressor(_Mlp):
    """A multi-layer perceptron for a number."""

    name = "mlp_regressor"
    task = Task.REGRESSION
    doc = "a neural network for a number: embedded categories, layers (torch)"
