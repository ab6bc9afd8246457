"""What a worker does with requests that are slow, wrong among good ones, or many: its own parts, in this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlml_runners.serving.access_log import LIMIT_BYTES, Access, AccessLog
from sqlml_runners.serving.app import make_app
from sqlml_runners.serving.connection import HEAD_SECONDS, sweep
from sqlml_runners.serving.forms import Reply
from sqlml_runners.serving.hot import Hot
from sqlml_runners.serving.job import Job, Result
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.paths import parse_path
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.reception import Reception
from sqlml_runners.serving.worker import Server, _config

from sqlml.bundles.manifest import MANIFEST, file_sha256
from sqlml.catalog import Arm, Endpoint
from sqlml.types import Task
from tests.serving.conftest import EXAMPLE, write_bundle


async def nobody(_what: str) -> None:
    return None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The endpoint ``e``, loaded as a worker loads it."""
    folder = tmp_path_factory.mktemp("home") / "bundles" / "b"
    write_bundle(folder, Task.CLASSIFICATION, 0)
    arm = Arm("m", 1, "u", folder, file_sha256(folder / MANIFEST), "classification")
    models = Models()
    endpoint = Endpoint("e", (arm,), 1, datetime.now(UTC))
    models.announce(endpoint)
    models.load(endpoint)
    assert models.switch("e", 1)
    return models


def test_a_bad_request_among_good_ones_hurts_none_of_them(models: Models) -> None:
    good = {"rows": [EXAMPLE, {**EXAMPLE, "age": 20}]}
    bodies: list[Any] = [good, {"rows": [{"age": "old"}]}, good, b"{", good, {"rows": [{"agee": 1}]}, good]

    async def ask(bodies: list[Any]) -> tuple[list[Result], dict[int, int]]:
        reception, answers = Reception(models), dict[int, Result]()
        for number, body in enumerate(bodies):
            target = parse_path("/models/e/predict")
            assert target is not None
            job = Job(target, "POST", "/models/e/predict", b"", {}, "", str(number), time.perf_counter())
            reception.admit(job)
            assert reception.prepare(job, body if isinstance(body, bytes) else json.dumps(body).encode())
            job.finish = lambda result, number=number: answers.__setitem__(number, result)  # type: ignore[misc]
            reception.batcher.put(job)
        while len(answers) < len(bodies):
            await asyncio.sleep(0)
        return [answers[number] for number in range(len(bodies))], reception.batcher.take_sizes()

    [alone], _ = asyncio.run(ask([good]))
    answers, sizes = asyncio.run(ask(bodies))
    assert sizes == {4: 1}  # the good ones were scored together
    assert isinstance(alone, Reply)
    for body, answer in zip(bodies, answers, strict=True):
        if body is good:
            assert isinstance(answer, Reply)
            assert json.loads(answer.body) == json.loads(alone.body)
        else:
            assert isinstance(answer, BadRequest)
    assert [answer.status for answer in answers] == [200, 422, 200, 400, 200, 422, 200]


@pytest.mark.parametrize("trickle", [False, True])
def test_a_head_that_does_not_arrive_is_given_up(models: Models, trickle: bool) -> None:
    async def run() -> bytes:
        listener = socket.create_server(("127.0.0.1", 0))
        config = _config(Hot(make_app(models, nobody), Reception(models)))
        server = Server(config, listener, None)
        address = listener.getsockname()
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST /models/e/predict HTTP/1.1\r\nhost: x\r\n")
        while not server.server_state.connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        began = loop.time()
        sweep(server.server_state, began + HEAD_SECONDS / 2)
        if trickle:  # a byte now and then is no head
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert len(server.server_state.connections) == 1
        sweep(server.server_state, began + HEAD_SECONDS + 1)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        server.stop_listening()
        server.should_exit = True
        await serving
        return answer

    answer = asyncio.run(run())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body) == {"error": "the head of the request did not arrive within 20 s"}


def test_a_head_that_does_not_end_is_refused(models: Models) -> None:
    async def run() -> bytes:
        listener = socket.create_server(("127.0.0.1", 0))
        server = Server(_config(Hot(make_app(models, nobody), Reception(models))), listener, None)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"POST /models/e/predict HTTP/1.1\r\nhost: x\r\nx-long: ")
        answering = asyncio.create_task(reader.read())
        sent = 0
        while not answering.done() and sent < 50_000_000:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await asyncio.sleep(0.001)
        answer = await asyncio.wait_for(answering, 20)
        writer.close()
        server.stop_listening()
        server.should_exit = True
        await serving
        return answer

    head, _, body = asyncio.run(run()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body) == {"error": "the head of the request is larger than 64 kB"}


@pytest.mark.parametrize("size", [100, 100_000])
def test_bodies_that_do_not_arrive_keep_no_other_out(models: Models, size: int) -> None:
    """As many as the queue is long, and more: of short ones and of long ones."""

    async def run() -> list[bytes]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=600)
        server = Server(_config(Hot(make_app(models, nobody), Reception(models))), listener, None)
        serving = asyncio.create_task(server.serve())
        half = []
        while not server.started:
            await asyncio.sleep(0.01)
        for _ in range(models.route("e").policy.max_queue + 20):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"POST /models/e/predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n{" % size)
            half.append((reader, writer))
        while len(server.server_state.connections) < len(half):
            await asyncio.sleep(0.01)
        body = json.dumps({"rows": [EXAMPLE]}).encode()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"POST /models/e/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        answer = await asyncio.wait_for(reader.read(), 20)
        refused = [reader for reader, _ in half if reader._buffer]  # type: ignore[attr-defined]  # who was answered at once
        found = [answer, *[await asyncio.wait_for(reader.read(12), 20) for reader in refused]]
        writers = [writer, *(writer for _, writer in half)]
        for one in writers:
            one.close()
        await asyncio.gather(*(one.wait_closed() for one in writers), return_exceptions=True)
        server.stop_listening()
        server.should_exit = True
        await serving
        return found

    answer, *refused = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert all(line == b"HTTP/1.1 503" for line in refused)
    assert len(refused) == (20 if size > 50_000 else 0)  # no more long bodies than that are held in memory


def test_the_access_log_turns_over_and_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(LIMIT_BYTES - 500)  # a file that is nearly full, and takes no place on the disk
    logs = [AccessLog(tmp_path) for _ in range(3)]  # as many workers

    def write(log: AccessLog, worker: int) -> None:
        log.start()
        for i in range(50):
            log.add(Access(time.time(), f"{worker}-{i}", "POST", "/models/e/predict", 200, 1.0, "127.0.0.1"))
            log.flush()
        log.close()

    threads = [threading.Thread(target=write, args=(log, worker)) for worker, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    old, new = (tmp_path / "access.log.1").read_bytes().lstrip(b"\0"), path.read_bytes()
    assert path.stat().st_size < LIMIT_BYTES / 2
    ids = [json.loads(line)["id"] for line in (old + new).splitlines()]
    assert sorted(ids) == sorted(f"{worker}-{i}" for worker in range(3) for i in range(50))
    assert sum(log.dropped for log in logs) == 0
    assert path.stat().st_mode & 0o077 == 0
