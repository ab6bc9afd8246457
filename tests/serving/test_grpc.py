"""The Open Inference Protocol over gRPC, as a real client speaks it: ``tritonclient[grpc]``, and messages of any shape."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlml_runners.serving.state import read_state

from sqlml.catalog import Share
from sqlml.home import Home
from sqlml.prediction_log import prediction_files
from sqlml.types import Task
from tests.bundles.handmade import Learn
from tests.serving.conftest import EXAMPLE, TREES, Place, make_rows
from tests.serving.load import until
from tests.serving.test_tls import Papers, server

triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytestmark = pytest.mark.slow  # servers of their own

ROWS = [EXAMPLE, {**EXAMPLE, "age": 30, "job": "admin", "own house": False}]


@contextmanager
def grpc_place(folder: Path, task: Task, *arguments: str) -> Iterator[tuple[Place, str]]:
    """A home whose server speaks gRPC, with the endpoint ``deposit``; and where."""
    place = Place(folder / "bank.sqlml", task)
    place.catalog.deploy("deposit", place.publish("deposit"))
    with server(place.folder, "--grpc-port", "0", *arguments):
        place.server.wait_ready("deposit", 1, 20)
        state = read_state(place.folder)
        assert state is not None
        yield place, state.grpc
        place.close()


@pytest.fixture(scope="module")
def bank_over_grpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, str]]:
    with grpc_place(tmp_path_factory.mktemp("grpc"), Task.CLASSIFICATION) as made:
        yield made


@pytest.fixture
def client(bank_over_grpc: tuple[Place, str]) -> Iterator[Any]:
    client = triton.InferenceServerClient(bank_over_grpc[1])
    yield client
    client.close()


def inputs_of(rows: list[dict[str, Any]]) -> list[Any]:
    """Tensors in ``raw_input_contents``, as this client sends them."""
    datatypes = {"age": "FP64", "own house": "BOOL"}
    made = []
    for name in EXAMPLE:
        values, datatype = [row[name] for row in rows], datatypes.get(name, "BYTES")
        tensor = triton.InferInput(name, [len(values)], datatype)
        kind: Any = object if datatype == "BYTES" else float if datatype == "FP64" else bool
        tensor.set_data_from_numpy(np.array(values, dtype=kind))
        made.append(tensor)
    return made


def typed_request(rows: list[dict[str, Any]], **more: Any) -> Any:
    """The same values in ``contents``."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="deposit", **more)
    for name in EXAMPLE:
        values = [row[name] for row in rows]
        datatype = {"age": "INT32", "own house": "BOOL"}.get(name, "BYTES")
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(values), 1])
        if datatype == "BYTES":
            tensor.contents.bytes_contents.extend(value.encode() for value in values)
        else:
            getattr(tensor.contents, "int_contents" if datatype == "INT32" else "bool_contents").extend(values)
    return request


def stub(address: str) -> Any:
    from tritonclient.grpc import service_pb2_grpc

    return service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))


def over_http(place: Place) -> list[Mapping[str, Any]]:
    predictions: list[Mapping[str, Any]] = place.call("/models/deposit/predict", {"rows": ROWS})[1]["predictions"]
    return predictions


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("deposit")
    assert client.is_model_ready("Deposit", "1")
    assert client.get_server_metadata().name == "sqlml"
    metadata = client.get_model_metadata("deposit")
    assert (list(metadata.versions), metadata.platform) == (["1"], "sqlml")
    assert {(i.name, i.datatype, tuple(i.shape)) for i in metadata.inputs} >= {("age", "FP64", (-1,)), ("job", "BYTES", (-1,))}
    assert [(o.name, tuple(o.shape)) for o in metadata.outputs][1] == ("predicted_y_probs", (-1, 2))


def test_raw_contents_give_what_http_gives(client: Any, bank_over_grpc: tuple[Place, str]) -> None:
    expected = over_http(bank_over_grpc[0])
    answer = client.infer("deposit", inputs_of(ROWS), request_id="42", model_version="1")
    assert answer.get_response().id == "42"
    assert answer.get_response().raw_output_contents
    assert [value.decode() for value in answer.as_numpy("predicted_y")] == [row["predicted_y"] for row in expected]
    assert answer.as_numpy("predicted_y_probs")[:, 0] == pytest.approx([row["predicted_y_probs"]["no"] for row in expected])
    wanted = [triton.InferRequestedOutput("predicted_y_probs")]
    only = client.infer("deposit", inputs_of(ROWS), outputs=wanted).get_response()
    assert [output.name for output in only.outputs] == ["predicted_y_probs"]
    assert only.outputs[0].parameters["classes"].string_param == "no, yes"


def test_typed_contents_give_the_same_in_typed_contents(bank_over_grpc: tuple[Place, str]) -> None:
    place, address = bank_over_grpc
    answer = stub(address).ModelInfer(typed_request(ROWS, id="7"))
    assert (answer.model_name, answer.model_version, answer.id) == ("deposit", "1", "7")
    assert not answer.raw_output_contents
    expected = over_http(place)
    assert [value.decode() for value in answer.outputs[0].contents.bytes_contents] == [row["predicted_y"] for row in expected]
    probs = np.array(answer.outputs[1].contents.fp64_contents).reshape(answer.outputs[1].shape)
    assert probs[:, 1] == pytest.approx([row["predicted_y_probs"]["yes"] for row in expected])


def test_many_rows_go_to_a_thread(client: Any) -> None:
    one = client.infer("deposit", inputs_of(ROWS[:1])).as_numpy("predicted_y_probs")
    many = client.infer("deposit", inputs_of(ROWS[:1] * 5000)).as_numpy("predicted_y_probs")
    assert many == pytest.approx(np.repeat(one, 5000, axis=0))


def test_errors_are_statuses(client: Any, bank_over_grpc: tuple[Place, str]) -> None:
    def status_of(ask: Any) -> tuple[str, str]:
        with pytest.raises((triton.InferenceServerException if ask is not None else Exception, grpc.RpcError)) as caught:
            ask()
        error: Any = caught.value
        if isinstance(error, grpc.RpcError):
            return error.code().name, error.details()
        return error.status().removeprefix("StatusCode."), error.message()

    good = inputs_of(ROWS)
    assert status_of(lambda: client.infer("nope", good)) == ("NOT_FOUND", "unknown model 'nope'; deployed: deposit")
    assert status_of(lambda: client.infer("deposit", good, model_version="9"))[0] == "NOT_FOUND"
    assert status_of(lambda: client.infer("deposit", good[:1]))[0] == "INVALID_ARGUMENT"
    assert "missing inputs: job" in status_of(lambda: client.infer("deposit", good[:1]))[1]
    assert status_of(lambda: client.get_model_metadata("nope"))[0] == "NOT_FOUND"
    call = stub(bank_over_grpc[1]).ModelInfer
    wrong = typed_request(ROWS)
    wrong.inputs[0].shape[0] = 3
    assert status_of(lambda: call(wrong)) == ("INVALID_ARGUMENT", "input 'age' has the shape [3, 1] but 2 values")
    wrong = typed_request(ROWS)
    wrong.inputs[0].contents.fp32_contents.append(1)
    assert "its values stand in int_contents, not in fp32_contents" in status_of(lambda: call(wrong))[1]
    wrong = typed_request(ROWS)
    wrong.raw_input_contents.append(b"x")
    assert "raw_input_contents has 1 entry for 5 inputs" in status_of(lambda: call(wrong))[1]
    wrong = typed_request(ROWS)
    wrong.inputs[0].datatype = "FP128"
    assert "unknown datatype 'FP128'" in status_of(lambda: call(wrong))[1]


def test_bytes_that_are_no_message(bank_over_grpc: tuple[Place, str]) -> None:
    with grpc.insecure_channel(bank_over_grpc[1]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/inference.GRPCInferenceService/ModelTrain")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_no_bytes_end_the_worker(bank_over_grpc: tuple[Place, str]) -> None:
    place, address = bank_over_grpc
    workers = {worker["pid"] for worker in place.server.workers()}
    good, random = typed_request(ROWS).SerializeToString(), np.random.default_rng(0)
    tries = [good[:cut] for cut in range(0, len(good), 7)] + [random.bytes(int(n)) for n in random.integers(1, 200, 60)]
    for place_, byte in zip(random.integers(0, len(good), 150).tolist(), random.integers(0, 256, 150).tolist(), strict=True):
        tries.append(good[:place_] + bytes([byte]) + good[place_ + 1 :])
    seen = set()
    with grpc.insecure_channel(address) as channel:
        calls = {name: channel.unary_unary(f"/inference.GRPCInferenceService/{name}") for name in ("ModelInfer", "ModelReady")}
        for body in tries:
            for call in calls.values():
                try:
                    call(body, timeout=20)
                except grpc.RpcError as error:
                    seen.add(error.code().name)
        with pytest.raises(grpc.RpcError) as caught:
            calls["ModelReady"](b"\x12\x80\x80\x10" + b"x" * (256 * 1024))
        assert caught.value.code().name == "RESOURCE_EXHAUSTED"
    assert seen == {"INVALID_ARGUMENT", "NOT_FOUND"}
    assert {worker["pid"] for worker in place.server.workers()} == workers
    assert len(stub(address).ModelInfer(typed_request(ROWS)).outputs) == 2


def test_it_is_counted_and_logged_as_http_is(bank_over_grpc: tuple[Place, str]) -> None:
    place, address = bank_over_grpc
    stub(address).ModelInfer(typed_request(ROWS), metadata=(("x-request-id", "over-grpc"),))
    logs = place.folder / "logs" / "access.log"

    def line() -> dict[str, Any] | None:
        lines = [json.loads(text) for text in logs.read_text().splitlines()] if logs.exists() else []
        return next((entry for entry in lines if entry["id"] == "over-grpc"), None)

    assert until(lambda: line() is not None, 20)
    found = line()
    assert found is not None
    assert (found["status"], found["rows"], found["endpoint"]) == (200, 2, "deposit")

    def logged() -> int:
        files = [file for own in prediction_files(Home(place.folder)).values() for file in own]
        return sum(pq.read_table(file, columns=["request_id"])["request_id"].to_pylist().count("over-grpc") for file in files)

    assert until(lambda: logged() == 2, 20)


def test_keys_and_limits_count(tmp_path: Path) -> None:
    with grpc_place(tmp_path, Task.CLUSTERING) as (place, address):
        endpoint = place.catalog.endpoint("deposit")
        assert endpoint is not None
        secret = place.catalog.create_api_key("mine", ["deposit"])
        options = {"auth": "key", "max_rows": 1}
        revision = place.catalog.put_endpoint("deposit", endpoint.shares, options=options, reason="ALTER")
        place.server.wait_ready("deposit", revision, 20)
        call = stub(address).ModelInfer

        def code(request: Any, **how: Any) -> str:
            with pytest.raises(grpc.RpcError) as caught:
                call(request, **how)
            return str(caught.value.code().name)

        key = (("authorization", f"Bearer {secret}"),)
        assert code(typed_request(ROWS[:1])) == "UNAUTHENTICATED"
        assert code(typed_request(ROWS[:1]), metadata=(("authorization", "Bearer nonsense"),)) == "UNAUTHENTICATED"
        assert call(typed_request(ROWS[:1]), metadata=key).model_version == "1"
        assert code(typed_request(ROWS), metadata=key) == "RESOURCE_EXHAUSTED"  # two rows


def test_it_speaks_tls_where_http_does(tmp_path: Path) -> None:
    papers = Papers(tmp_path / "papers")
    with grpc_place(tmp_path, Task.CLUSTERING, *papers.options) as (_, address):
        trusted = grpc.ssl_channel_credentials(papers.authority)
        with grpc.secure_channel(address, trusted) as channel:
            from tritonclient.grpc import service_pb2_grpc

            answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(typed_request(ROWS))
            assert answer.model_version == "1"


def test_a_port_that_is_taken_is_an_error_before_anything_listens(bank_over_grpc: tuple[Place, str], tmp_path: Path) -> None:
    port = bank_over_grpc[1].rpartition(":")[2]
    with server(tmp_path / "other.sqlml", "--grpc-port", port) as child:
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 1
    assert f"gRPC cannot listen on 127.0.0.1 port {port}: Address already in use" in errors


def test_without_the_extra_the_line_that_installs_it_is_printed(tmp_path: Path) -> None:
    import subprocess

    blocked = "import sys; sys.modules['grpc'] = None; from sqlml_runners.serving.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", blocked, "--home", str(tmp_path / "a.sqlml"), "--foreground", "--grpc-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'pip install "sqlml[grpc]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rolling_restart_loses_no_call_that_is_tried_again_once(tmp_path: Path) -> None:
    with grpc_place(tmp_path, Task.CLUSTERING) as (place, address):
        state = read_state(place.folder)
        assert state is not None
        before = {worker["pid"] for worker in place.server.workers()}
        os.kill(state.pid, signal.SIGHUP)
        call, request, lost, done = stub(address).ModelInfer, typed_request(ROWS), 0, 0

        def renewed() -> bool:
            return not before & {worker["pid"] for worker in place.server.workers()}

        while done < 200 or not renewed():
            for attempt in range(2):
                try:
                    call(request, timeout=20, wait_for_ready=True)
                    break
                except grpc.RpcError:
                    lost += attempt
            done += 1
        assert lost == 0


def test_versions_that_read_other_columns(bank_over_grpc: tuple[Place, str]) -> None:
    place, address = bank_over_grpc
    table = pa.table(make_rows(300)).select(["age", "job"])
    answers = pa.array(np.where(table["age"].to_numpy() > 50, "yes", "no"))
    fewer = place.publish_made("small", table, Learn("xgboost_classifier", "y", answers, TREES), example={"age": 1.0, "job": "a"})
    shares = [Share(place.catalog.resolve("deposit", 1).uid, weight=50), Share(fewer.uid, weight=50)]
    place.server.wait_ready("mixed", place.catalog.put_endpoint("mixed", shares, options={}, reason="DEPLOY"), 30)
    client = triton.InferenceServerClient(address)
    try:
        whole, part = inputs_of(ROWS), inputs_of(ROWS)[:2]
        for tensors in (whole, part):
            found = {client.infer("mixed", tensors).get_response().model_version for _ in range(10)}
            assert found == {"deposit@1", "small@1"}
        with pytest.raises(triton.InferenceServerException, match="missing inputs: age"):
            client.infer("mixed", whole[1:])
    finally:
        client.close()
