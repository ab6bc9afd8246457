"""Versions that read other columns behind one endpoint, on a real server: in every form a request has the columns of all."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.catalog import Endpoint, Share, Version
from sqlml.endpoint_options import own_options
from sqlml.errors import BindError
from sqlml.features.transform import Transform
from sqlml.rollout import Guard
from sqlml.types import Task
from tests.bundles.handmade import Learn, fit_transform
from tests.serving.conftest import Place
from tests.serving.load import until

pytestmark = pytest.mark.slow  # servers, and models that are loaded

N = 200
RANDOM = np.random.default_rng(0)
TABLE = pa.table({name: pa.array(RANDOM.random(N) * 100) for name in ("age", "balance", "visits")})
OLD, NEW = {"age": 41.0, "balance": 7.5}, {"age": 41.0, "visits": 3.0}


class Bank(Place):
    """Versions of one model that read age and balance (1), age (2), age and visits (3); one of another model (age)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Task.REGRESSION)
        self.both, self.fewer, self.other = (
            self.learn("m", *names) for names in (("age", "balance"), ("age",), ("age", "visits"))
        )
        self.namesake = self.learn("n", "age")

    def learn(self, model: str, *names: str, **how: Any) -> Version:
        table = TABLE.select(names)
        example = dict.fromkeys(names, 1.0)
        learn = Learn("linear_regression", "y", pa.array(TABLE["age"].to_numpy() * 2))
        return self.publish_made(model, table, learn, example=example, **how)

    def put(self, name: str, *shares: Share, **options: Any) -> None:
        revision = self.catalog.put_endpoint(name, shares, options=options, reason="DEPLOY")
        self.server.wait_ready(name, revision, 30)

    def halves(self, name: str, first: Version, second: Version, **options: Any) -> None:
        """Two versions, each with half of the traffic, the first of them there before."""
        self.put(name, Share(first.uid), **options)
        self.put(name, Share(first.uid, weight=50), Share(second.uid, weight=50), **options)

    def endpoint(self, name: str) -> Endpoint:
        found = self.catalog.endpoint(name)
        assert found is not None
        return found

    def rows(self, name: str, row: Mapping[str, Any]) -> tuple[int, Any]:
        return self.call(f"/models/{name}/predict", {"rows": [row]})

    def infer(self, name: str, row: Mapping[str, Any], version: str | None = None) -> tuple[int, Any]:
        tensors = [{"name": key, "shape": [1], "datatype": "FP64", "data": [value]} for key, value in row.items()]
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        return self.call(f"{path}/infer", {"inputs": tensors})

    def bulk(self, name: str, row: Mapping[str, Any], kind: str) -> tuple[int, Any]:
        body = arrow_of(row) if "arrow" in kind else csv_of(row)
        status, _, answer = self.send(f"/models/{name}/predict", body, {"content-type": kind, "accept": "application/json"})
        return status, json.loads(answer)

    def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        host, _, port = str(self.server.url()).removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            connection.request("POST", path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()


def csv_of(row: Mapping[str, Any]) -> bytes:
    return (",".join(row) + "\n" + ",".join(str(value) for value in row.values()) + "\n").encode()


def arrow_of(row: Mapping[str, Any]) -> bytes:
    table, sink = pa.table({name: [value] for name, value in row.items()}), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.sqlml")
    yield bank
    bank.close()


ARROW = "application/vnd.apache.arrow.stream"
FORMS: dict[str, Callable[[Bank, str, Mapping[str, Any]], tuple[int, Any]]] = {
    "rows": lambda bank, name, row: bank.rows(name, row),
    "any case": lambda bank, name, row: bank.rows(name, {key.upper(): value for key, value in row.items()}),
    "v2": lambda bank, name, row: bank.infer(name, row),
    "csv": lambda bank, name, row: bank.bulk(name, row, "text/csv"),
    "arrow": lambda bank, name, row: bank.bulk(name, row, ARROW),
}


def asked(bank: Bank, form: str, name: str, row: Mapping[str, Any], times: int = 20) -> Counter[tuple[int, str]]:
    """The statuses of some requests, and the versions that answered."""
    found = [FORMS[form](bank, name, row) for _ in range(times)]
    return Counter((status, str(answer.get("version", answer.get("model_version")))) for status, answer in found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", [OLD, NEW, OLD | NEW], ids=["old", "new", "both"])
def test_each_version_takes_its_own_columns(bank: Bank, form: str, row: dict[str, float]) -> None:
    if bank.catalog.endpoint("mixed") is None:
        bank.halves("mixed", bank.both, bank.other)
    statuses = asked(bank, form, "mixed", row)
    assert set(statuses) == {(200, "1"), (200, "3")}, statuses


@pytest.mark.parametrize("form", FORMS)
def test_a_column_that_none_reads_is_refused_by_all(bank: Bank, form: str) -> None:
    if bank.catalog.endpoint("mixed") is None:
        bank.halves("mixed", bank.both, bank.other)
    found = [FORMS[form](bank, "mixed", OLD | {"weight": 1.0}) for _ in range(10)]
    assert {status for status, _ in found} == {400 if form == "v2" else 422}
    assert all("it has: age, " in answer["error"] and "balance" in answer["error"] for _, answer in found), found


def test_a_wrong_value_in_anothers_column_is_refused_by_all(bank: Bank) -> None:
    if bank.catalog.endpoint("mixed") is None:
        bank.halves("mixed", bank.both, bank.other)
    found = [bank.rows("mixed", OLD | {"visits": "often"}) for _ in range(10)]
    assert {(status, answer["field"]) for status, answer in found} == {(422, "rows[0].visits")}


def test_v2_wants_what_all_versions_read(bank: Bank) -> None:
    bank.halves("strict", bank.both, bank.other)
    found = [bank.infer("strict", {"balance": 1.0, "visits": 1.0}) for _ in range(10)]
    assert {(status, answer["error"]) for status, answer in found} == {(400, "missing inputs: age")}


def test_callers_of_before_are_answered_after_a_promotion_and_no_others(bank: Bank) -> None:
    guard = Guard(bank.fewer.uid, promote_after=5, max_error_rate=0.0).to_json()
    bank.halves("grown", bank.both, bank.fewer, rollout=guard)
    assert until(lambda: bank.rows("grown", OLD)[0] == 200 and len(bank.endpoint("grown").arms) == 1, 30)
    assert bank.endpoint("grown").main.uid == bank.fewer.uid
    bank.server.wait_ready("grown", bank.endpoint("grown").revision, 30)
    for form in FORMS:
        assert asked(bank, form, "grown", OLD, 3) == {(200, "2"): 3}
        assert {status for status, _ in asked(bank, form, "grown", NEW, 3)} == {400 if form == "v2" else 422}
    bank.put("grown", Share(bank.both.uid))  # nothing of before is left: it begins anew
    bank.put("grown", Share(bank.fewer.uid))
    assert bank.rows("grown", OLD)[0] == 422


def test_v2_takes_null_after_a_promotion_for_what_callers_never_sent(bank: Bank) -> None:
    bank.halves("more", bank.fewer, bank.both)
    bank.put("more", Share(bank.both.uid))
    assert asked(bank, "v2", "more", {"age": 41.0}, 3) == {(200, "1"): 3}
    bank.catalog.rollback_endpoint("more")
    assert [arm.uid for arm in bank.endpoint("more").arms] == [bank.fewer.uid, bank.both.uid]


def test_callers_of_a_version_that_was_rolled_back_are_answered_on(bank: Bank) -> None:
    bank.halves("undone", bank.fewer, bank.both, rollout=Guard(bank.both.uid, max_error_rate=0.0).to_json())
    revision = bank.endpoint("undone").revision
    assert bank.catalog.settle_endpoint("undone", promote=False, reason="slow", of=revision)
    assert (own_options(bank.endpoint("undone").options), bank.endpoint("undone").main.uid) == ({}, bank.fewer.uid)
    bank.server.wait_ready("undone", bank.endpoint("undone").revision, 30)
    for form in FORMS:
        assert asked(bank, form, "undone", OLD, 3) == {(200, "2"): 3}
        assert {status for status, _ in asked(bank, form, "undone", NEW, 3)} == {400 if form == "v2" else 422}
    with pytest.raises(BindError, match="has no earlier state"):  # the roll-out was one step, and it is taken
        bank.catalog.rollback_endpoint("undone")


def test_rollback_of_a_whole_deploy_fails_no_caller(bank: Bank) -> None:
    bank.put("whole", Share(bank.fewer.uid))
    bank.put("whole", Share(bank.both.uid))
    bank.put("whole", Share(bank.other.uid))
    assert bank.rows("whole", NEW)[0] == 200
    bank.catalog.rollback_endpoint("whole")
    bank.server.wait_ready("whole", bank.endpoint("whole").revision, 30)
    for form in FORMS:
        assert asked(bank, form, "whole", OLD, 3) == {(200, "1"): 3}
        assert asked(bank, form, "whole", NEW, 3) == {(200, "1"): 3}  # in V2, too: balance is NULL
        assert {status for status, _ in asked(bank, form, "whole", OLD | {"weight": 1.0}, 3)} == {400 if form == "v2" else 422}
    bank.catalog.rollback_endpoint("whole")  # one further back, and an option on top
    bank.put("whole", Share(bank.fewer.uid), timeout=20.0)
    for row in (OLD, NEW, OLD | NEW, {"age": 3.0}):
        assert bank.rows("whole", row)[0] == 200
    bank.put("whole", Share(bank.both.uid))  # it begins anew
    assert bank.rows("whole", NEW)[0] == 422


def test_metadata_show_the_inputs_of_all_versions(bank: Bank) -> None:
    bank.halves("shown", bank.both, bank.other)
    _, metadata = bank.call("/v2/models/shown")
    assert [(i["name"], i.get("parameters")) for i in metadata["inputs"]] == [
        ("age", None), ("balance", {"optional": True}), ("visits", {"optional": True}),
    ]  # fmt: skip
    for version, names in (("1", ["age", "balance"]), ("3", ["age", "visits"])):
        inputs = bank.call(f"/v2/models/shown/versions/{version}")[1]["inputs"]
        assert [(i["name"], i.get("parameters")) for i in inputs] == [(name, None) for name in names]
    document = bank.call("/openapi.json")[1]
    schema = document["paths"]["/models/shown/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]["rows"]["items"]["properties"]) == {"age", "balance", "visits"}


# --- who is to blame for a refusal ---------------------------------------------------------------------------------------


def picky(bank: Bank) -> Version:
    """A version that cannot compute some rows: its TRANSFORM casts a text to a number."""
    table = pa.table({"age": TABLE["age"], "note": pa.array(["1"] * N)})
    transform: Transform = fit_transform(table, age="age", note="CAST(note AS DOUBLE)")
    learn = Learn("linear_regression", "y", pa.array(TABLE["age"].to_numpy() * 2))
    return bank.publish_made("m", table, learn, example={"age": 1.0, "note": "1"}, transform=transform)


def figures(bank: Bank, name: str, version: Version) -> tuple[int, int]:
    """The requests that a version has answered, and its errors."""
    [found] = [arm for arm in bank.server.states()[name].arms if arm.uid == version.uid]
    return found.requests, found.errors


def test_a_guard_counts_refusals_that_the_main_version_would_not_give(bank: Bank) -> None:
    new = picky(bank)
    row = {"age": 1.0, "note": "none"}
    assert new.inputs != bank.fewer.inputs
    bank.halves("picky", bank.fewer, new, rollout=Guard(new.uid, promote_after=10, max_error_rate=0.2).to_json())
    statuses = set[int]()

    def settled() -> bool:
        statuses.add(bank.rows("picky", row)[0])
        return len(bank.endpoint("picky").arms) == 1

    assert until(settled, 30)
    assert (statuses, bank.endpoint("picky").main.uid) == ({200, 422}, bank.fewer.uid)
    assert "requests failed" in str(bank.catalog.endpoint_changes()[-1]["reason"])


def test_a_request_that_no_version_answers_is_the_callers_fault(bank: Bank) -> None:
    bank.halves("callers", bank.both, bank.fewer)
    for _ in range(20):
        assert bank.rows("callers", {"age": "old"})[0] == 422
    assert until(lambda: figures(bank, "callers", bank.fewer)[0] + figures(bank, "callers", bank.both)[0] == 20, 20)
    assert (figures(bank, "callers", bank.fewer)[1], figures(bank, "callers", bank.both)[1]) == (0, 0)


def test_what_a_shadow_refuses_is_an_error_of_its(bank: Bank) -> None:
    new = picky(bank)
    bank.put("dark", Share(bank.fewer.uid))
    bank.put("dark", Share(bank.fewer.uid), Share(new.uid, "shadow", 0))
    for note in ("1", "none", "none"):
        assert bank.rows("dark", {"age": 1.0, "note": note})[0] == 200
    assert until(lambda: figures(bank, "dark", new) == (3, 2), 20), figures(bank, "dark", new)


# --- names of versions, and what callers stick by ------------------------------------------------------------------------


def test_versions_of_several_models_have_names(bank: Bank) -> None:
    bank.halves("named", bank.both, bank.namesake)
    _, metadata = bank.call("/v2/models/named")
    assert metadata["versions"] == ["m@1", "n@1"]
    for version in metadata["versions"]:
        assert bank.call(f"/v2/models/named/versions/{version}/ready")[0] == 200
        status, answer = bank.infer("named", OLD, version)
        assert (status, answer["model_version"]) == (200, version)
    status, answer = bank.infer("named", OLD, "1")
    assert (status, answer["error"]) == (404, "endpoint named has several versions 1; it serves m@1, n@1")
    bank.halves("plain", bank.both, bank.fewer)
    assert bank.call("/v2/models/plain")[1]["versions"] == ["1", "2"]
    assert {bank.infer("plain", OLD, version)[1]["model_version"] for version in ("2", "m@2", "M%402")} == {"2"}


def test_an_empty_value_sticks_to_nothing(bank: Bank) -> None:
    bank.halves("sticky", bank.both, bank.fewer, sticky="header:x-user")
    body = json.dumps({"rows": [OLD]}).encode()

    def versions(user: str) -> set[int]:
        found = [bank.send("/models/sticky/predict", body, {"x-user": user}) for _ in range(20)]
        return {json.loads(answer)["version"] for _, _, answer in found}

    assert (versions(""), versions("  "), len(versions("anna"))) == ({1, 2}, {1, 2}, 1)


@pytest.mark.parametrize("form", FORMS)
def test_callers_stick_by_a_column_that_only_one_version_reads(bank: Bank, form: str) -> None:
    if bank.catalog.endpoint("kept") is None:
        bank.halves("kept", bank.fewer, bank.both, sticky="column:balance")
    found = [set(asked(bank, form, "kept", {"age": 1.0, "balance": float(i)}, 3)) for i in range(12)]
    assert all(len(versions) == 1 for versions in found)
    assert set.union(*found) == {(200, "1"), (200, "2")}
