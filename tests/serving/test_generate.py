"""Texts over HTTP: whole, as events, stopped by whoever goes away; a real model on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.generate import _run, decode_generate, encode_event
from sqlml_runners.serving.protocol import BadRequest

import sqlml
from sqlml.generation.generator import Ending, Piece
from tests.generation.gpt import greedy, make_gpt, make_tokenizer, write_folder

Client = httpx.Client


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return make_gpt(tokenizer)


@pytest.fixture(scope="module")
def connection(tokenizer: Any, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlml.Connection]:
    """``lm`` speaks, ``slow`` writes without an end and reads everything anew for each token."""
    folder = tmp_path_factory.mktemp("texts")
    small = write_folder(folder / "small", model, tokenizer, cached=True)
    endless = make_gpt(tokenizer, steps=0, context=4000, layers=3, width=64)
    slow = write_folder(folder / "slow", endless, tokenizer, cached=False, config={"n_positions": 4000, "eos_token_id": []})
    with sqlml.connect(folder / "texts.duckdb") as opened:
        opened.execute(f"IMPORT MODEL lm FROM '{small}'")
        opened.execute(f"IMPORT MODEL slow FROM '{slow}'")
        opened.execute("CREATE TABLE t AS SELECT range AS a, range * 2.0 AS y FROM range(40)")
        opened.execute("TRAIN MODEL line USING linear_regression TARGET y ON inline AS FROM t")
        for name in ("lm", "slow", "line"):
            opened.execute(f"DEPLOY MODEL {name}")
        yield opened
        LocalServer(folder / "texts.sqlml").stop()


@pytest.fixture(scope="module")
def client(connection: sqlml.Connection) -> Iterator[Client]:
    home = connection.models_home
    assert home is not None
    with httpx.Client(base_url=str(LocalServer(Path(home)).url()), timeout=30) as opened:
        yield opened


def ask(client: Client, **body: Any) -> Any:
    return client.post("/models/lm/generate", json={"prompt": "the cat", "temperature": 0, **body}).raise_for_status().json()


def events(client: Client, **body: Any) -> list[Any]:
    found = []
    with client.stream("POST", "/models/lm/generate", json={"prompt": "the cat", "stream": True, **body}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            assert not line or line.startswith("data: ")
            found += [json.loads(line[6:])] if line else []
    return found


def test_a_whole_text_with_its_figures(client: Client, model: Any, tokenizer: Any) -> None:
    found = ask(client, max_new_tokens=8)
    assert found["text"] == tokenizer.decode(greedy(model, tokenizer.encode("the cat").ids, 8))
    assert (found["finish_reason"], found["new_tokens"], found["prompt_tokens"]) == ("length", 8, 2)
    assert found["first_token_seconds"] <= found["seconds"]
    assert ask(client)["finish_reason"] == "end"
    assert ask(client, stop="mat")["text"] == " sat on the "
    assert ask(client, stop=["moon", " on"])["finish_reason"] == "stop"


def test_one_event_a_token_then_the_figures(client: Client) -> None:
    *tokens, last = events(client, temperature=0, max_new_tokens=10)
    assert len(tokens) == last["new_tokens"] == 10
    assert all(set(event) == {"token", "text"} for event in tokens)
    assert "".join(event["text"] for event in tokens) + last["rest"] == last["text"] == ask(client, max_new_tokens=10)["text"]
    assert (last["done"], last["finish_reason"]) == (True, "length")


def test_a_seed_gives_the_same_text_again(client: Client) -> None:
    wish = {"temperature": 1.5, "top_k": 30, "top_p": 0.9, "max_new_tokens": 12}
    assert ask(client, seed=3, **wish)["text"] == ask(client, seed=3, **wish)["text"]
    assert len({ask(client, seed=seed, **wish)["text"] for seed in range(8)}) > 1


def test_the_first_token_comes_before_the_last_is_written(client: Client, connection: sqlml.Connection) -> None:
    body = {"prompt": "moon", "max_new_tokens": 3900, "temperature": 0, "stream": True}
    queue = "SELECT queue FROM sqlml.endpoints WHERE endpoint = 'slow'"
    with client.stream("POST", "/models/slow/generate", json=body) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines)[6:])["token"] >= 0
        wait_until(lambda: connection.execute(queue).fetchall() == [(1,)])  # it still writes
    wait_until(lambda: connection.execute(queue).fetchall() == [(0,)])
    ended = ask(client, max_new_tokens=5)
    assert 0 < ended["first_token_seconds"] <= ended["seconds"]


def test_who_goes_away_stops_the_writing(client: Client, connection: sqlml.Connection) -> None:
    def writing() -> int:
        [(queue,)] = connection.execute("SELECT queue FROM sqlml.endpoints WHERE endpoint = 'slow'").fetchall()
        return int(queue)

    [(before,)] = connection.execute("SELECT requests FROM sqlml.endpoints WHERE endpoint = 'slow'").fetchall()
    body = {"prompt": "moon", "max_new_tokens": 3900, "temperature": 0}
    with client.stream("POST", "/models/slow/generate", json={**body, "stream": True}) as answer:
        lines = answer.iter_lines()
        assert [json.loads(next(line for line in lines if line)[6:])["token"] >= 0 for _ in range(3)] == [True] * 3
    wait_until(lambda: writing() == 0)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/models/slow/generate", json=body, timeout=0.5)
    wait_until(lambda: writing() == 0)
    [(requests, errors)] = connection.execute("SELECT requests, errors FROM sqlml.endpoints WHERE endpoint = 'slow'").fetchall()
    assert (requests - before, errors) == (2, 0)


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "prompt", 'prompt is missing: the body must be {"prompt": "…"}'),
        ({"prompt": 3}, "prompt", "prompt: expected a text, got the number 3"),
        ({"prompt": None}, "prompt", "prompt: expected a text, got null"),
        ({"prompt": "a", "temperature": -1}, "temperature", "temperature: expected a number from 0 to 100, got the number -1"),
        (
            {"prompt": "a", "temperature": "hot"},
            "temperature",
            "temperature: expected a number from 0 to 100, got the text 'hot'",
        ),
        ({"prompt": "a", "max_new_tokens": 0}, "max_new_tokens", "max_new_tokens: expected a whole number from 1 to "),
        ({"prompt": "a", "max_new_tokens": 1e9}, "max_new_tokens", "max_new_tokens: expected a whole number from 1 to "),
        ({"prompt": "a", "top_p": 0}, "top_p", "top_p: expected a number above 0, and 1 at most, got the number 0"),
        ({"prompt": "a", "top_k": 2.5}, "top_k", "top_k: expected a whole number from 0, got the number 2.5"),
        ({"prompt": "a", "seed": True}, "seed", "seed: expected a whole number from 0, got true"),
        ({"prompt": "a", "stop": 3}, "stop", "stop: expected a text, or a list of 8 at most, got the number 3"),
        ({"prompt": "a", "stop": ["a", 3]}, "stop[1]", "stop[1]: expected a text that is not empty, got the number 3"),
        ({"prompt": "a", "stop": [""]}, "stop[0]", "stop[0]: expected a text that is not empty, got the text ''"),
        ({"prompt": "a", "stop": ["x"] * 9}, "stop", "stop: expected a text, or a list of 8 at most, got a list"),
        ({"prompt": "a", "stream": "yes"}, "stream", "stream: expected true or false, got the text 'yes'"),
        ({"prompt": "a", "what": 1}, "what", "unknown field 'what'; there are: prompt, "),
        ({"prompt": "a", "strem": True}, "strem", "unknown field 'strem'; did you mean stream?"),
        ([], None, 'the body must be {"prompt": "…"}, got a list'),
    ],
)
def test_what_does_not_fit_is_named_as_predict_names_it(body: Any, field: str | None, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_generate(json.dumps(body).encode())
    assert (caught.value.status, caught.value.field) == (422, field)
    assert caught.value.message.startswith(message)


def test_a_number_that_nobody_can_hold_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"^seed: number out of range$") as caught:
        decode_generate(b'{"prompt": "a", "seed": 1e999}')
    assert (caught.value.status, caught.value.field) == (422, "seed")


def test_a_field_that_is_there_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"^stop\[1\]: expected "):
        decode_generate(b'{"prompt": "a", "stop": ["x", 3], "stop": ["x"]}')


def test_bad_requests(client: Client, model: Any) -> None:
    assert client.post("/models/lm/generate", content=b"{").status_code == 400
    long = client.post("/models/lm/generate", json={"prompt": "moon " * 60})
    assert (long.status_code, long.json()["field"]) == (422, "prompt")
    assert str(model.size.context) in long.json()["error"]
    other = client.post("/models/line/generate", json={"prompt": "a"})
    assert (other.status_code, other.json()["error"]) == (
        400,
        "endpoint line serves no language model: POST /models/line/predict",
    )
    assert client.post("/models/nothing/generate", json={"prompt": "a"}).status_code == 404


def test_a_fault_while_a_text_is_written_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def pieces() -> Iterator[Piece | Ending]:
        yield Piece(1, "a")
        raise ZeroDivisionError

    told: list[Any] = []
    _run(SimpleNamespace(flight=nullcontext()), pieces(), told.append)  # type: ignore[arg-type]
    assert [type(happening).__name__ for happening in told] == ["Piece", "InternalError", "NoneType"]
    assert encode_event(told[1]).startswith(b'data: {"done":true,"error":"internal error of the server; its log')
    assert caplog.records[0].exc_info is not None


def test_errors_are_of_one_form_with_those_of_predict(client: Client) -> None:
    for path, body, status, names in (
        ("generate", b'{"prompt": 3}', 422, {"error", "field"}),
        ("predict", b'{"rows": [{"prompt": 3}]}', 422, {"error", "field"}),
        ("generate", b"", 400, {"error"}),
        ("predict", b"", 400, {"error"}),
    ):
        answer = client.post(f"/models/lm/{path}", content=body)
        assert (answer.status_code, set(answer.json())) == (status, names)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
        assert "got the number 3" in answer.json()["error"] or status == 400


def test_rows_and_sql_give_the_likeliest_text(client: Client, connection: sqlml.Connection) -> None:
    text = ask(client)["text"]
    rows = client.post("/models/lm/predict", json={"rows": [{"prompt": "the cat"}, {}]}).json()["predictions"]
    assert rows == [{"generated_text": text}, {"generated_text": None}]
    assert connection.execute("SELECT PREDICT(lm USING 'the ' || 'cat' AS prompt)").fetchall() == [(text,)]
    [(model, task)] = connection.execute("SELECT model, task FROM sqlml.models WHERE model = 'lm'").fetchall()
    assert (model, task) == ("lm", "text generation")


def test_texts_at_the_same_time_do_not_mix(client: Client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    prompts = ["the cat", "a dog", "the moon", "Ümläut"] * 3
    alone = {prompt: ask(client, prompt=prompt)["text"] for prompt in prompts}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda prompt: ask(client, prompt=prompt)["text"], prompts))
    assert found == [alone[prompt] for prompt in prompts]


def test_the_document_shows_how_to_ask_and_deploy_gives_a_line_to_try(client: Client, connection: sqlml.Connection) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"]["/models/lm/generate"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["properties"]) >= {"prompt", "temperature", "stop", "stream"}
    assert client.post("/models/lm/generate", json=body["example"]).status_code == 200
    assert "/models/line/generate" not in document["paths"]


def test_a_key_and_a_size_are_asked_for_here_too(client: Client, connection: sqlml.Connection) -> None:
    connection.execute("ALTER ENDPOINT lm SET (auth = 'key', max_body = '1 kB')")
    try:
        assert client.post("/models/lm/generate", json={"prompt": "the cat"}).status_code == 401
        secret = connection.execute("CREATE API KEY k FOR ENDPOINT lm").fetch_arrow_table().to_pylist()[0]["secret"]
        headers = {"authorization": f"Bearer {secret}"}
        wait_until(lambda: client.post("/models/lm/generate", json={"prompt": "a dog"}, headers=headers).status_code == 200)
        large = client.post("/models/lm/generate", json={"prompt": "x" * 5000}, headers=headers)
        assert large.status_code == 413
    finally:
        connection.execute("ALTER ENDPOINT lm SET (auth = NULL, max_body = NULL)")
        connection.execute("DROP API KEY IF EXISTS k")


def test_a_shadow_writes_each_text_too_and_nobody_hears_it(client: Client, connection: sqlml.Connection) -> None:
    connection.execute("DEPLOY MODEL lm TO ENDPOINT dark")
    connection.execute("DEPLOY MODEL slow TO ENDPOINT dark WITH (shadow = true)")
    try:
        asked = {"prompt": "the cat", "temperature": 0, "max_new_tokens": 4}
        heard = client.post("/models/dark/generate", json=asked, headers={"x-request-id": "dark-1"}).raise_for_status().json()
        assert heard["text"] == client.post("/models/lm/generate", json=asked).json()["text"]
        with client.stream("POST", "/models/dark/generate", json=asked | {"stream": True}) as answer:
            assert answer.read().count(b"data: ") > 1
        query = "SELECT role, request_id = 'dark-1', outputs->>'generated_text' FROM sqlml.predictions WHERE endpoint = 'dark'"
        wait_until(lambda: len(connection.execute(query).fetchall()) == 4)
        found = sorted(connection.execute(query).fetchall())
        assert [row[:2] for row in found] == [("serves", False), ("serves", True), ("shadow", False), ("shadow", True)]
        assert {row[2] for row in found[:2]} == {heard["text"]}
        assert found[2][2] == found[3][2] != heard["text"]
        figures = "SELECT version, requests, errors FROM sqlml.endpoints WHERE endpoint = 'dark' ORDER BY ALL"
        wait_until(lambda: connection.execute(figures).fetchall() == [("lm@1", 2, 0), ("slow@1", 2, 0)])
    finally:
        connection.execute("UNDEPLOY ENDPOINT dark")


def test_texts_that_a_shadow_has_no_room_for_are_counted(client: Client, connection: sqlml.Connection) -> None:
    connection.execute("DEPLOY MODEL lm TO ENDPOINT rush")
    connection.execute("DEPLOY MODEL slow TO ENDPOINT rush WITH (shadow = true)")
    asked, times = {"prompt": "the cat", "temperature": 0, "max_new_tokens": 200}, 24
    labels = '{endpoint="rush",version="slow@1"}'

    def figure(name: str, more: str = labels) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + more))

    try:
        for _ in range(times):
            client.post("/models/rush/generate", json=asked).raise_for_status()
        wait_until(lambda: figure("sqlml_shadow_dropped_total") > 0)
        answered = '{endpoint="rush",status="200",version="slow@1"}'
        wait_until(lambda: figure("sqlml_shadow_dropped_total") + figure("sqlml_requests_total", answered) == times)
        assert connection.execute("SELECT errors FROM sqlml.endpoints WHERE endpoint = 'rush'").fetchall() == [(0,), (0,)]
    finally:
        connection.execute("UNDEPLOY ENDPOINT rush")


def test_a_caller_sticks_to_a_version_by_a_header(client: Client, connection: sqlml.Connection) -> None:
    connection.execute("DEPLOY MODEL lm TO ENDPOINT pair WITH (sticky = 'header:x-user')")
    connection.execute("DEPLOY MODEL slow TO ENDPOINT pair WITH (traffic = 50)")
    try:
        asked = {"prompt": "the cat", "temperature": 0, "max_new_tokens": 2}

        def texts(user: str) -> set[str]:
            answers = [client.post("/models/pair/generate", json=asked, headers={"x-user": user}) for _ in range(8)]
            return {str(answer.raise_for_status().json()["text"]) for answer in answers}

        assert {len(texts(user)) for user in ("anna", "ben", "carl", "dora")} == {1}
        assert len(texts("")) == 2
    finally:
        connection.execute("UNDEPLOY ENDPOINT pair")


def test_texts_are_logged_as_predictions_are(client: Client, connection: sqlml.Connection) -> None:
    whole = client.post(
        "/models/lm/generate", json={"prompt": "the cat", "temperature": 0}, headers={"x-request-id": "whole-1"}
    ).raise_for_status()
    with client.stream(
        "POST", "/models/lm/generate", json={"prompt": "the cat", "temperature": 0, "stream": True},
        headers={"x-request-id": "stream-1"},
    ) as answer:  # fmt: skip
        assert answer.headers["x-request-id"] == "stream-1"
        size = len(answer.read())
    query = "SELECT request_id, inputs->>'prompt', outputs->>'generated_text' FROM sqlml.predictions WHERE request_id = ANY(?)"
    names = ["stream-1", "whole-1"]
    deadline = time.monotonic() + 30
    while len(found := connection.execute(query, [names]).fetchall()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    text = whole.json()["text"]
    assert sorted(found) == [(name, "the cat", text) for name in names]
    assert connection.models_home is not None
    log = Path(connection.models_home) / "logs" / "access.log"
    wait_until(lambda: log.exists() and '"stream-1"' in log.read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    [told] = [line for line in lines if line["id"] == "stream-1"]
    assert (told["endpoint"], told["version"], told["rows"], told["bytes_out"]) == ("lm", 1, 1, size)
