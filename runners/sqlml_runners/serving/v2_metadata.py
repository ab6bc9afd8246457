"""The metadata of the Open Inference Protocol, version 2: of the server and of its models.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlml.plan import InputColumn
from sqlml_runners.serving.outputs import Answer, Output, Predictions
from sqlml_runners.serving.protocol import ITEM
from sqlml_runners.serving.v2 import DATATYPE, tensor_of

EXTENSIONS = ("binary_tensor_data",)


def server_metadata(version: str) -> dict[str, Any]:
    """``GET /v2``"""
    return {"name": "sqlml", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(
    endpoint: str,
    versions: Sequence[str],
    inputs: Sequence[InputColumn],
    outputs: Sequence[Output],
    sample: Predictions,
    optional: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """``GET /v2/models/{m}``; ``sample`` is any prediction of the model, for the outputs' widths.

    ``optional``: the inputs (in lower case) that a request may lack, since not all versions of the endpoint read them.
    """
    return {
        "name": endpoint,
        "versions": list(versions),
        "platform": "sqlml",
        "inputs": [
            {"name": column.name, "datatype": DATATYPE[column.kind], "shape": [-1, -1] if column.kind in ITEM else [-1]}
            | ({"parameters": {"optional": True}} if column.name.lower() in optional else {})
            for column in inputs
        ],
        "outputs": [_described_output(output, answer) for output, answer in zip(outputs, sample, strict=True)],
    }


def _described_output(output: Output, answer: Answer) -> dict[str, Any]:
    tensor = tensor_of(output, answer)
    more = {"parameters": tensor["parameters"]} if "parameters" in tensor else {}
    fixed = isinstance(answer, np.ndarray) and answer.ndim == 2  # lists are as long as the longest
    rest = tensor["shape"][1:] if fixed else [-1] * len(tensor["shape"][1:])
    return {"name": output.name, "datatype": tensor["datatype"], "shape": [-1, *rest]} | more
