"""The Open Inference Protocol as a real client speaks it: ``tritonclient[http]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.serving.conftest import Place

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")


@pytest.fixture
def client(bank: Place) -> Iterator[Any]:
    client = triton.InferenceServerClient(str(bank.server.url()).removeprefix("http://"))
    yield client
    client.close()


def tensor(name: str, datatype: str, values: Any) -> Any:
    made = triton.InferInput(name, [len(values)], datatype)
    made.set_data_from_numpy(np.array(values, dtype=object if datatype == "BYTES" else None), binary_data=False)
    return made


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("deposit")
    assert client.is_model_ready("deposit", "1")
    assert not client.is_model_ready("deposit", "2")
    assert client.get_server_metadata()["name"] == "sqlml"
    assert client.get_model_metadata("deposit")["versions"] == ["1"]


def test_infer(client: Any) -> None:
    inputs = [
        tensor("age", "FP64", [41.0, 30.0]),
        tensor("job", "BYTES", ["technician", "admin"]),
        tensor("own house", "BOOL", [True, False]),
        tensor("since", "BYTES", ["2024-05-31", "2020-01-01"]),
        tensor("seen", "BYTES", ["2024-05-31 13:45:00", "2020-01-01 00:00:00"]),
    ]
    wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in ("predicted_y", "predicted_y_probs")]
    answer = client.infer("deposit", inputs, outputs=wanted, request_id="42")
    assert answer.get_response()["id"] == "42"
    assert {str(value) for value in answer.as_numpy("predicted_y")} <= {"no", "yes"}
    assert answer.as_numpy("predicted_y_probs").sum(axis=1) == pytest.approx([1, 1])


def test_an_error_is_read(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException, match="missing inputs: job"):
        client.infer("deposit", [tensor("age", "FP64", [41.0])])
    with pytest.raises(triton.InferenceServerException, match="unknown model 'nope'"):
        client.infer("nope", [tensor("age", "FP64", [41.0])])
