"""What a gRPC call is let in by, before its message is read: a server in this process, whose readings are counted."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlml_runners.serving.app import make_app
from sqlml_runners.serving.doors import Door
from sqlml_runners.serving.grpc_port import held_port
from sqlml_runners.serving.grpc_wire import MOST_FIELDS, WireError, find_bytes
from sqlml_runners.serving.hot import Hot
from sqlml_runners.serving.keys import KeyEntry, KeyRing
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.reception import Reception

from sqlml.bundles.manifest import MANIFEST, file_sha256
from sqlml.catalog import Arm, Endpoint
from sqlml.types import Task
from tests.serving.conftest import EXAMPLE, write_bundle

pytest.importorskip("google.protobuf", reason="protobuf is not installed")
grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
from sqlml_runners.serving.grpc_form import NAME_BYTES, read_name  # noqa: E402 - needs protobuf
from sqlml_runners.serving.grpc_messages import message_class  # noqa: E402
from sqlml_runners.serving.grpc_server import GrpcServer  # noqa: E402 - needs grpcio

KEY = (("authorization", "Bearer secret"),)
WRONG = (("authorization", "Bearer guessed"),)
MOST_BODY = 2_000_000
NAME = b"\x0a\x01e"  # field 1: e


class Counting(GrpcServer):
    """A server that counts the messages it reads."""

    read_so_far = 0

    def read(self, body: bytes, name: str) -> Any:
        self.read_so_far += 1
        return super().read(body, name)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The endpoint ``e``, which needs a key."""
    folder = tmp_path_factory.mktemp("home") / "bundles" / "b"
    write_bundle(folder, Task.CLUSTERING, 0)
    arm = Arm("m", 1, "u", folder, file_sha256(folder / MANIFEST), "clustering")
    models = Models()
    endpoint = Endpoint("e", (arm,), 1, datetime.now(UTC), options={"auth": "key", "max_body": MOST_BODY})
    models.announce(endpoint)
    models.load(endpoint)
    assert models.switch("e", 1)
    return models


Ask = Callable[..., Awaitable[str]]


def serve(models: Models, steps: Callable[[Ask], Awaitable[None]]) -> int:
    """Run some steps against a server; how many messages it read.  ``ask(body, metadata)`` gives the status' name."""

    async def nobody(_what: str) -> None:
        return None

    async def run(address: str) -> int:
        reception = Reception(models)
        reception.keys = KeyRing([KeyEntry("k", ((hashlib.sha256(b"secret").hexdigest(), None),))])
        server = Counting(Hot(make_app(models, nobody), reception), Door(lambda: reception.keys), address, None)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

                async def ask(body: bytes, metadata: Any = KEY) -> str:
                    try:
                        await call(body, metadata=metadata, timeout=20)
                    except grpc.RpcError as error:
                        return str(error.code().name)
                    return "OK"

                await steps(ask)
        finally:
            await server.stop(1)
        assert reception.tally.waiting("e") == 0
        return server.read_so_far

    with held_port("127.0.0.1", 0) as address:
        assert address is not None
        return asyncio.run(run(address))


def request(**more: Any) -> bytes:
    message = message_class("ModelInferRequest")(model_name="e", **more)
    for name, value in EXAMPLE.items():
        datatype = "FP64" if name == "age" else "BOOL" if name == "own house" else "BYTES"
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[1])
        field = {"FP64": "fp64_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}[datatype]
        getattr(tensor.contents, field).append(value.encode() if isinstance(value, str) else value)
    return bytes(message.SerializeToString())


def test_who_may_not_come_in_has_nothing_read(models: Models) -> None:
    large = request(raw_input_contents=[b"x" * 1_000_000])
    nonsense = NAME + b"\xff" * 1_000_000

    async def steps(ask: Ask) -> None:
        for body in (large, nonsense):
            assert await ask(body, WRONG) == await ask(body, ()) == "UNAUTHENTICATED"
        assert await ask(request(raw_input_contents=[b"x" * MOST_BODY])) == "RESOURCE_EXHAUSTED"
        assert await ask(b"\x0a\x04nope" + large[3:]) == "NOT_FOUND"
        assert await ask(b"\xff" * 1_000_000) == "INVALID_ARGUMENT"

    assert serve(models, steps) == 0


def test_who_comes_in_has_it_read_once(models: Models) -> None:
    async def steps(ask: Ask) -> None:
        assert await ask(request()) == "OK"
        assert await ask(request()[3:] + NAME) == "OK"  # the name at the end
        assert await ask(NAME + b"\xff\xff") == "INVALID_ARGUMENT"
        assert await ask(request()[:-3]) == "INVALID_ARGUMENT"
        assert await ask(request() + b"\x0a\x05other") == "INVALID_ARGUMENT"  # let in for e, and then for another

    assert serve(models, steps) == 5


# --- the wire -----------------------------------------------------------------------------------------------------------


def test_a_field_is_found_among_others_of_every_kind() -> None:
    varint, fixed64, fixed32, text = b"\x10\x96\x01", b"\x19" + b"a" * 8, b"\x25" + b"b" * 4, b"\x2a\x03two"
    name = b"\x0a\x05churn"
    for message in (name, varint + name, fixed64 + fixed32 + name + text, text + varint + name, name + b"\x0a\x04last"):
        assert find_bytes(message, 1, 10) == b"churn"
    assert find_bytes(varint + text, 1, 10) is None
    assert find_bytes(b"", 1, 10) is None
    assert find_bytes(b"\x08\x01" + name, 1, 10) == b"churn"  # a number under its number is another field


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\x0a", "in the middle of a number"),
        (b"\x0a\x05chu", "in the middle of a field"),
        (b"\x19aaaa", "in the middle of a field"),
        (b"\x10" + b"\xff" * 12, "more than 64 bits"),
        (b"\x02\x00", "no field has the number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0a\x0b" + b"x" * 11, "has 11 bytes; it may have 10"),
        (b"\x12\x00" * MOST_FIELDS + b"\x0a\x01e", "none of the first 4,096"),
    ],
)
def test_bytes_that_are_no_message_say_why(message: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        find_bytes(message, 1, 10)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_name_or_a_refusal(body: bytes) -> None:
    with suppress(BadRequest):  # and nothing else
        assert len(read_name(body).encode()) <= NAME_BYTES


@given(st.text(max_size=30), st.lists(st.binary(max_size=20), max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_it_finds_what_protobuf_finds_in_any_order(name: str, contents: list[bytes], random: Any) -> None:
    kind = message_class("ModelInferRequest")
    parts = [kind(model_name=name), kind(model_version="1"), kind(id="7"), *(kind(raw_input_contents=[c]) for c in contents)]
    random.shuffle(parts)
    body = b"".join(part.SerializeToString() for part in parts)
    assert read_name(body) == kind.FromString(body).model_name == name
