"""Language models among the algorithms: imported, never trained."""

from __future__ import annotations

from pathlib import Path

from sqlml.contracts import FitSpec, OptionSpec, Predictor, Report, TrainingData
from sqlml.errors import BindError
from sqlml.types import Task


class ImportedLanguageModel:
    """Texts, from an ONNX graph and a tokenizer."""

    name = "onnx_language_model"
    task = Task.GENERATION
    doc = "texts by a causal language model, imported as ONNX with its tokenizer; cannot be trained"
    encoding = "codes"
    early_stopping: str | None = None
    rounds: str | None = None
    streams = None
    warm_start = False
    explains = False
    libraries: tuple[str, ...] = ("onnxruntime", "tokenizers")
    options: tuple[OptionSpec, ...] = ()

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> Predictor:
        """There is no training: ``BindError``."""
        raise BindError("a language model cannot be trained here", hint="IMPORT MODEL lm FROM 'folder' brings one")

    def load(self, folder: Path) -> Predictor:
        """It predicts no columns: ``BindError``."""
        raise BindError("a language model predicts no columns", hint="PREDICT(lm USING text AS prompt) gives its text")
