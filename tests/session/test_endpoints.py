"""DEPLOY with options, traffic and shadow, ALTER and ROLLBACK ENDPOINT, API keys: what the catalog and the server have after."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sqlml
from sqlml.catalog import Catalog

TRAINED = """
    CREATE TABLE t AS SELECT range % 17 AS age, range % 5 AS visits, (range % 17) * 2.0 AS spent,
        CASE WHEN range % 17 > 8 THEN 'yes' ELSE 'no' END AS bought FROM range(300);
    TRAIN MODEL m USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t;
    TRAIN MODEL m USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t WHERE age > 2;
    TRAIN MODEL m USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t WHERE age > 3;
    TRAIN MODEL small USING logistic_regression TARGET bought EXCLUDE (spent, visits) ON inline AS FROM t;
    TRAIN MODEL texts USING logistic_regression TARGET bought ON inline AS SELECT age::VARCHAR AS age, bought FROM t;
    TRAIN MODEL number USING linear_regression TARGET spent EXCLUDE (bought) ON inline AS FROM t;
"""


class Bank:
    """A database with versions to deploy, and its server."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.notices: list[str] = []
        self.connection = sqlml.connect(database, on_event=self._see)
        self.connection.execute(TRAINED)

    def _see(self, event: Any) -> None:
        if event["event"] == "notice":
            self.notices.append(event["text"])

    def run(self, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        self.notices.clear()
        cursor = self.connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def dicts(self, statement: str) -> list[dict[str, Any]]:
        return list(self.connection.execute(statement).fetch_arrow_table().to_pylist())

    def traffic(self, endpoint: str = "e") -> dict[str, int | None]:
        return dict(self.run(f"SELECT version, traffic FROM sqlml.endpoints WHERE endpoint = '{endpoint}'"))

    def options(self, endpoint: str = "e") -> Any:
        return json.loads(self.run(f"SELECT options FROM sqlml.endpoints WHERE endpoint = '{endpoint}'")[0][0])

    def stop(self) -> None:
        self.connection.execute("SELECT 1")
        sqlml_server(self.database).stop()


def sqlml_server(database: Path) -> Any:
    from sqlml_runners.serving.control import LocalServer

    return LocalServer(database.with_suffix(".sqlml"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.duckdb")
    yield bank
    bank.stop()
    bank.connection.close()


@pytest.fixture
def bank(trained: Bank) -> Iterator[Bank]:
    """With m@1 behind the endpoint e, and nothing else deployed; the server goes on."""
    trained.run("DEPLOY MODEL m@1 TO ENDPOINT e")
    yield trained
    for (name,) in trained.run("SELECT DISTINCT endpoint FROM sqlml.endpoints WHERE endpoint <> 'e'"):
        trained.run(f'UNDEPLOY ENDPOINT "{name}"')
    trained.run("ALTER ENDPOINT e SET (replicas = NULL, timeout = NULL, auth = NULL, sticky = NULL, log = NULL)")
    for (name,) in trained.run("SELECT api_key FROM sqlml.api_keys"):
        trained.run(f"DROP API KEY {name}")


# --- DEPLOY -------------------------------------------------------------------------------------------------------------


def test_a_part_of_the_traffic_is_taken_from_the_others_in_proportion(bank: Bank) -> None:
    rows = bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 20)")
    assert [row[:3] + row[4:] for row in rows] == [("e", "m@1", 80, "ready"), ("e", "m@2", 20, "ready")]
    bank.run("DEPLOY MODEL m@3 TO ENDPOINT e WITH (traffic = 50)")
    assert bank.traffic() == {"m@1": 40, "m@2": 10, "m@3": 50}
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = ?)", [0])
    assert bank.traffic() == {"m@1": 44, "m@2": 0, "m@3": 56}
    bank.run("DEPLOY MODEL m@3 TO ENDPOINT E")
    assert bank.traffic() == {"m@3": 100}


def test_a_shadow_has_no_share(bank: Bank) -> None:
    rows = bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (shadow = true)")
    assert [row[1:3] for row in rows] == [("m@1", 100), ("m@2", None)]
    assert bank.run("SELECT version, role FROM sqlml.endpoints") == [("m@1", "serves"), ("m@2", "shadow")]
    bank.run("ALTER ENDPOINT e SET TRAFFIC (m@1 = 30, m@3 = 70)")
    assert bank.traffic() == {"m@1": 30, "m@3": 70, "m@2": None}
    bank.run("ALTER ENDPOINT e SET TRAFFIC (m@2 = 100)")
    assert bank.traffic() == {"m@2": 100}


def test_options_stay_until_they_are_changed(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT e WITH (replicas = 2, timeout = '2 s', max_body = '1 MB')")
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT e")
    assert bank.options() == {"replicas": 2, "timeout": 2.0, "max_body": 1_000_000}
    bank.run("ALTER ENDPOINT e SET (max_replicas = 3, timeout = NULL, max_body = NULL, log = ?)", [0.5])
    assert bank.options() == {"max_replicas": 3, "log": 0.5}
    shown = bank.run("SELECT option, value, own FROM sqlml.endpoint_options WHERE option IN ('log', 'timeout', 'sticky')")
    assert shown == [("timeout", "30.0", False), ("sticky", None, False), ("log", "0.5", True)]
    bank.run("ALTER ENDPOINT e SET (max_replicas = NULL)")
    assert bank.traffic() == {"m@2": 100}


def test_what_a_caller_could_not_read_is_refused(bank: Bank) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="number@1 answers in other columns than m@1"):
        bank.run("DEPLOY MODEL number TO ENDPOINT e WITH (traffic = 10)")
    with pytest.raises(sqlml.ProgrammingError, match="the column age is a number for m@1 and a text for texts@1"):
        bank.run("DEPLOY MODEL texts TO ENDPOINT e WITH (shadow = true)")
    assert bank.traffic() == {"m@1": 100}
    bank.run("DEPLOY MODEL number TO ENDPOINT e")  # alone it may answer what it likes
    assert bank.traffic() == {"number@1": 100}


def test_versions_that_read_other_columns_are_told(bank: Bank) -> None:
    bank.run("DEPLOY MODEL small TO ENDPOINT e WITH (traffic = 60)")
    assert bank.notices == ["m@1 also reads visits, which small@1 does not: NULL where a request lacks it"]
    assert bank.traffic() == {"m@1": 40, "small@1": 60}
    bank.notices.clear()
    bank.run("ALTER ENDPOINT e SET TRAFFIC (m@1 = 60, small = 40)")
    leaves_out = "it leaves that out of a request, now and when it has all of the traffic"
    assert bank.notices == [f"small@1 does not read visits, which m@1 does: {leaves_out}"]


# --- guarded roll-outs --------------------------------------------------------------------------------------------------


def rollout(bank: Bank) -> str | None:
    found = bank.run("SELECT rollout FROM sqlml.endpoints WHERE rollout IS NOT NULL")
    return found[0][0] if found else None


def test_a_guard_is_kept_until_the_roll_out_is_settled(bank: Bank) -> None:
    bank.run(
        "DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 10, promote_after = 1000, max_error_rate = 0.01, max_latency = '50 ms')"
    )
    shown = "promote_after = 1000, max_error_rate = 0.01, max_latency = '50 ms'"
    assert rollout(bank) == shown
    with pytest.raises(sqlml.ProgrammingError, match="endpoint e is trying out m@2 already"):
        bank.run("DEPLOY MODEL m@3 TO ENDPOINT e WITH (traffic = 10)")
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 50)")
    bank.run("ALTER ENDPOINT e SET (log = 0.5)")
    assert (rollout(bank), bank.traffic()) == (shown, {"m@1": 50, "m@2": 50})
    bank.run("ALTER ENDPOINT e SET TRAFFIC (1 = 70, 2 = 30)")
    assert rollout(bank) is None
    bank.run("ROLLBACK ENDPOINT e")
    assert rollout(bank) == shown
    bank.run("DEPLOY MODEL m@3 TO ENDPOINT e")
    assert rollout(bank) is None


def test_a_metric_says_which_way_is_better(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (shadow = true, metric = 'log_loss', tolerance = 0.01, min_feedback = 5)")
    assert rollout(bank) == "metric = 'log_loss', tolerance = 0.01, min_feedback = 5"
    with pytest.raises(sqlml.ProgrammingError, match="a version that is tried out needs some traffic"):
        bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 0, promote_after = 5)")


@pytest.mark.parametrize("options", ["promote_after = 20", "traffic = 100, max_error_rate = 0.1", "metric = 'log_loss'"])
def test_a_guard_needs_a_share_to_watch(bank: Bank, options: str) -> None:
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 10)")
    with pytest.raises(sqlml.ProgrammingError, match="a guard watches a share, and m@2 would take all") as refused:
        bank.run(f"DEPLOY MODEL m@2 TO ENDPOINT e WITH ({options})")
    assert "add traffic = 10" in str(refused.value)
    assert bank.traffic() == {"m@1": 90, "m@2": 10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("traffic = 10, tolerance = 0.1", "tolerance says nothing alone: it belongs to a metric"),
        ("traffic = 10, promote_after = 5, tolerance = 0.1", "tolerance belongs to a metric, and none is given"),
        ("traffic = 10, max_latency = 1, min_feedback = 5", "min_feedback belongs to a metric, and none is given"),
        ("traffic = 10, metric = 'log_loss', log = 0", "log_loss is computed from the prediction log, and log = 0 keeps none"),
    ],
)
def test_what_could_never_settle_a_roll_out_is_refused(bank: Bank, options: str, message: str) -> None:
    with pytest.raises(sqlml.ProgrammingError, match=message):
        bank.run(f"DEPLOY MODEL m@2 TO ENDPOINT e WITH ({options})")
    assert bank.traffic() == {"m@1": 100}


def test_a_version_that_fails_is_not_promoted_by_promote_after_alone(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 10, promote_after = 1000)")
    assert rollout(bank) == "promote_after = 1000, max_error_rate = 0.01"
    bank.run(
        "DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 10, promote_after = 1000, max_error_rate = 0.5, metric = 'log_loss')"
    )
    assert "max_error_rate = 0.5" in str(rollout(bank))
    with pytest.raises(sqlml.ProgrammingError, match="log = 0 keeps none"):
        bank.run("ALTER ENDPOINT e SET (log = 0)")


# --- ALTER and ROLLBACK -------------------------------------------------------------------------------------------------


def test_traffic_is_divided_anew(bank: Bank) -> None:
    rows = bank.run("ALTER ENDPOINT E SET TRAFFIC (m@2 = 90, 3 = 10)")
    assert [row[:3] for row in rows] == [("e", "m@2", 90), ("e", "m@3", 10)]
    bank.run("ALTER ENDPOINT e SET TRAFFIC (m = ?, small = ?)", [25, 75])
    assert bank.traffic() == {"m@3": 25, "small@1": 75}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ("m@1 = 60, m@2 = 60", "the shares add up to 120 %, not 100 %"),
        ("m@1 = 50, 1 = 50", "m@1 is given twice"),
        ("m@1 = 33.5, m@2 = 66.5", r"the share of m@1 is a whole percentage from 0 to 100 \(got the number 33.5\)"),
        ("m@1 = 'all'", r"the share of m@1 is a whole percentage from 0 to 100 \(got the text 'all'\)"),
        ("m@1 = true", "the share of m@1 is a whole percentage"),
        ("m@1 = 101, m@2 = -1", "the share of m@1 is a whole percentage"),
        ("9 = 100", "model m has no version 9"),
        ("nobody = 100", "unknown model nobody"),
        ("m@1 = 50, number = 50", "number@1 answers in other columns"),
    ],
)
def test_shares_that_are_refused(bank: Bank, shares: str, message: str) -> None:
    with pytest.raises(sqlml.ProgrammingError, match=message):
        bank.run(f"ALTER ENDPOINT e SET TRAFFIC ({shares})")
    assert bank.traffic() == {"m@1": 100}


@pytest.mark.parametrize(
    ("shares", "bad"),
    [("1 = 50, m@1 = 50", "m@1 = 50"), ("m@1 = 33.5, m@2 = 66.5", "m@1 = 33.5"), ("1 = 10, 9 = 90", "9 = 90")],
)
def test_a_share_that_is_refused_is_pointed_at(bank: Bank, shares: str, bad: str) -> None:
    with pytest.raises(sqlml.ProgrammingError) as refused:
        bank.run(f"ALTER ENDPOINT e SET TRAFFIC ({shares})")
    [line, carets] = str(refused.value).splitlines()[1:3]
    assert line[carets.index("^") : carets.rindex("^") + 1] == bad


def test_a_bare_version_needs_an_only_model(bank: Bank) -> None:
    bank.run("ALTER ENDPOINT e SET TRAFFIC (m@1 = 50, small = 50)")
    with pytest.raises(sqlml.ProgrammingError, match="endpoint e serves several models: version 1 of which"):
        bank.run("ALTER ENDPOINT e SET TRAFFIC (1 = 100)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("traffic = 10", "traffic is an option of DEPLOY"),
        ("promote_after = 10", "promote_after belongs to the roll-out of a version"),
        ("replica = 2", "an endpoint has no option replica"),
        ("grpc_port = 1", r"grpc_port is an option of all endpoints together(?s:.*)write ALTER ENDPOINTS SET \(grpc_port = …\)"),
        ("rate_limit = 1", r"rate_limit is an option of an API key(?s:.*)write ALTER API KEY k SET \(rate_limit = …\)"),
        ("log = 'all'", "option log of an endpoint is a number"),
        ("", "no option is given"),
    ],
)
def test_options_that_are_refused(bank: Bank, options: str, message: str) -> None:
    before = bank.options()
    with pytest.raises(sqlml.ProgrammingError, match=message):
        bank.run(f"ALTER ENDPOINT e SET ({options})")
    assert bank.options() == before


def test_rollback_goes_back_change_by_change(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT e WITH (timeout = '2 s')")
    bank.run("ALTER ENDPOINT e SET TRAFFIC (m@2 = 50, m@3 = 50)")
    rows = bank.run("ROLLBACK ENDPOINT e")
    assert [row[:3] for row in rows] == [("e", "m@2", 100)]
    bank.run("ROLLBACK ENDPOINT e")
    assert (bank.traffic(), bank.options()) == ({"m@1": 100}, {})
    last = bank.dicts("SELECT reason, versions, undone FROM sqlml.endpoint_changes ORDER BY created_at DESC LIMIT 4")
    assert [(row["reason"], row["versions"], row["undone"]) for row in last] == [
        ("ROLLBACK", "m@1", False),
        ("ROLLBACK", "m@2", False),
        ("SET TRAFFIC", "m@2 50 %, m@3 50 %", True),
        ("DEPLOY", "m@2", True),
    ]


def test_a_version_that_cannot_be_served_changes_nothing(bank: Bank, tmp_path: Path) -> None:
    bank.run("TRAIN MODEL broken USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t WHERE age < 15")
    [(bundle,)] = bank.run("SELECT bundle FROM sqlml.versions WHERE model = 'broken'")
    manifest = Path(bundle) / "manifest.json"
    manifest.rename(tmp_path / "manifest.json")
    try:
        with pytest.raises(sqlml.OperationalError, match="endpoint e cannot serve"):
            bank.run("DEPLOY MODEL broken TO ENDPOINT e WITH (traffic = 10)")
        assert bank.traffic() == {"m@1": 100}
        assert bank.run("SELECT state FROM sqlml.endpoints") == [("ready",)]
    finally:
        (tmp_path / "manifest.json").rename(manifest)
        bank.run("DROP MODEL broken CASCADE")


@pytest.mark.parametrize(
    "statement",
    [
        "DEPLOY MODEL m TO ENDPOINT e",
        "ALTER ENDPOINT e SET (log = 0)",
        "ROLLBACK ENDPOINT e",
        "CREATE API KEY k FOR ENDPOINT e",
        "ALTER API KEY k ROTATE",
        "DROP API KEY IF EXISTS k",
    ],
)
def test_nothing_of_it_runs_inside_a_transaction(bank: Bank, statement: str) -> None:
    bank.run("BEGIN")
    try:
        with pytest.raises(sqlml.NotSupportedError, match="cannot run inside an open transaction"):
            bank.run(statement)
    finally:
        bank.run("ROLLBACK")
    assert bank.traffic() == {"m@1": 100}


def test_dropping_a_version_leaves_the_others(bank: Bank) -> None:
    bank.run("TRAIN MODEL gone USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t")
    bank.run("DEPLOY MODEL gone TO ENDPOINT e WITH (traffic = 40)")
    with pytest.raises(sqlml.ProgrammingError, match="model gone@1 is deployed at the endpoint e"):
        bank.run("DROP MODEL gone@1")
    bank.run("DROP MODEL gone@1 CASCADE")
    assert bank.traffic() == {"m@1": 100}


def test_an_endpoint_goes_if_it_exists(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT gone")
    assert bank.run("UNDEPLOY ENDPOINT IF EXISTS Gone") == []
    assert bank.run("SELECT endpoint FROM sqlml.endpoints") == [("e",)]
    assert bank.run("UNDEPLOY ENDPOINT IF EXISTS gone") == []
    with pytest.raises(sqlml.ProgrammingError, match="unknown endpoint gone"):
        bank.run("UNDEPLOY ENDPOINT gone")


# --- API keys -----------------------------------------------------------------------------------------------------------


def test_a_secret_is_shown_once(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT e WITH (auth = 'key')")
    assert bank.notices == ["no API key opens endpoint e yet: CREATE API KEY name FOR ENDPOINT e"]
    [(name, secret, endpoints, expires)] = bank.run(
        "CREATE API KEY shop FOR ENDPOINT E WITH (rate_limit = 50, expires = '90 days')"
    )
    assert (name, endpoints) == ("shop", "e")
    assert secret.startswith("sqlml_")
    assert expires is not None
    [key] = bank.dicts("SHOW API KEYS LIKE 'SH%'")
    assert (key["prefix"], key["endpoints"], key["rate_limit"], key["secrets"]) == (secret[:10], ["e"], 50.0, 1)
    [(_, second, *_)] = bank.run("ALTER API KEY Shop ROTATE WITH (grace = '1 hour')")
    assert bank.dicts("SHOW API KEYS")[0]["secrets"] == 2
    everything = [
        bank.run(f"SELECT * FROM sqlml.{relation}") for relation in ("api_keys", "endpoints", "endpoint_changes", "jobs")
    ]
    for hidden in (secret, second):
        assert hidden[10:] not in str(everything)
        for path in bank.database.parent.rglob("*"):
            assert not path.is_file() or hidden[10:].encode() not in path.read_bytes()
    bank.run("DROP API KEY shop")
    assert bank.run("SHOW API KEYS") == []


def test_what_looks_protected_and_is_not_is_told(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT open")
    bank.run("CREATE API KEY one FOR ENDPOINT open")
    assert bank.notices == ["endpoint open answers without a key, too: ALTER ENDPOINT open SET (auth = 'key')"]
    bank.run("ALTER ENDPOINT open SET (auth = 'key')")
    assert bank.notices == []
    catalog = Catalog.open(bank.database.with_suffix(".sqlml"))
    catalog.create_api_key("two", ["later"])  # as they were left behind once
    catalog.close()
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT later")
    told = "endpoint later answers without a key, though there are some for it (two): ALTER ENDPOINT later SET (auth = 'key')"
    assert bank.notices == [told]


def test_a_key_goes_with_its_endpoint_and_opens_no_other_of_its_name(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT shut WITH (auth = 'key')")
    alone = bank.run("CREATE API KEY alone FOR ENDPOINT shut")[0][1]
    both = bank.run("CREATE API KEY both FOR ENDPOINT shut, e")[0][1]
    every = bank.run("CREATE API KEY every FOR ALL ENDPOINTS")[0][1]
    [(url,)] = bank.run("SELECT url FROM sqlml.endpoints WHERE endpoint = 'shut'")
    assert [asked(url, secret) for secret in (alone, both, every)] == [200] * 3
    assert plan(bank, "UNDEPLOY ENDPOINT shut")["api_keys"] == ["alone"]
    bank.run("UNDEPLOY ENDPOINT shut")
    assert bank.notices == ["1 API key went with it: alone"]
    assert bank.run("SELECT api_key, endpoints FROM sqlml.api_keys") == [("both", ["e"]), ("every", None)]
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT shut WITH (auth = 'key')")
    assert [asked(url, secret) for secret in (alone, both, every)] == [401, 403, 200]


def test_keys_go_with_an_endpoint_that_nothing_is_left_of(bank: Bank) -> None:
    bank.run("TRAIN MODEL only USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t")
    bank.run("DEPLOY MODEL only TO ENDPOINT lone")
    for key in ("first", "second"):
        bank.run(f"CREATE API KEY {key} FOR ENDPOINT lone")
    bank.run("DROP MODEL only CASCADE")
    assert bank.notices == ["2 API keys went with the endpoint: first, second"]
    assert bank.run("SHOW API KEYS") == []


def test_a_key_opens_its_endpoint_until_it_is_dropped(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT other WITH (auth = 'key')")
    bank.run("ALTER ENDPOINT e SET (auth = 'key')")
    [(url,)] = bank.run("SELECT url FROM sqlml.endpoints WHERE endpoint = 'e'")
    first = bank.run("CREATE API KEY shop FOR ENDPOINT e")[0][1]
    assert until(lambda: asked(url, first) == 200)
    assert (asked(url, None), asked(url, first + "x"), asked(url.replace("models/e", "models/other"), first)) == (401, 401, 403)
    second = bank.run("ALTER API KEY shop ROTATE WITH (grace = '1 hour')")[0][1]
    assert until(lambda: asked(url, second) == 200)
    assert asked(url, first) == 200
    third = bank.run("ALTER API KEY shop ROTATE")[0][1]
    assert until(lambda: asked(url, third) == 200)
    assert (asked(url, first), asked(url, second)) == (401, 401)
    bank.run("DROP API KEY shop")
    assert until(lambda: asked(url, third) == 401)
    log = (bank.database.with_suffix(".sqlml") / "logs" / "server.log").read_text()
    assert not any(secret[10:] in log for secret in (first, second, third))


def asked(url: str, secret: str | None) -> int:
    """The status of a request to an endpoint whose V2 address is given, with a key or without."""
    base, _, name = url.partition("/v2/models/")
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    sent = urllib.request.Request(f"{base}/models/{name}/predict", data=b'{"rows": [{}]}', headers=headers)
    try:
        with urllib.request.urlopen(sent, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_keys_that_are_refused(bank: Bank) -> None:
    bank.run("CREATE API KEY every FOR ALL ENDPOINTS")
    with pytest.raises(sqlml.ProgrammingError, match="there is an API key every already"):
        bank.run("CREATE API KEY EVERY FOR ENDPOINT e")
    with pytest.raises(sqlml.ProgrammingError, match="unknown API key evry"):
        bank.run("ALTER API KEY evry ROTATE")
    with pytest.raises(sqlml.ProgrammingError, match="grace is 100 years at most"):
        bank.run("ALTER API KEY every ROTATE WITH (grace = '400000 days')")
    bank.run("DROP API KEY IF EXISTS nobody")
    assert [key["endpoints"] for key in bank.dicts("SHOW API KEYS")] == [None]


def test_a_database_in_memory_has_neither_endpoints_nor_keys() -> None:
    with sqlml.connect() as memory, pytest.raises(sqlml.NotSupportedError, match="an in-memory database cannot have API keys"):
        memory.execute("CREATE API KEY k FOR ALL ENDPOINTS")


# --- EXPLAIN ------------------------------------------------------------------------------------------------------------


def plan(bank: Bank, statement: str) -> Any:
    return json.loads(bank.run(f"EXPLAIN (FORMAT JSON) {statement}")[0][0])


def test_plans_say_what_would_be_there_and_change_nothing(bank: Bank) -> None:
    deploy = plan(bank, "DEPLOY MODEL m@2 TO ENDPOINT e WITH (traffic = 10, promote_after = 5, log = 0.5)")
    assert (deploy["now"], deploy["then"], deploy["rollout"]) == (
        "m@1",
        "m@1 90 %, m@2 10 %",
        "promote_after = 5, max_error_rate = 0.01",
    )
    assert deploy["options"] == {"log": 0.5}
    altered = plan(bank, "ALTER ENDPOINT e SET TRAFFIC (1 = 40, small = 60)")
    assert (altered["node"], altered["then"]) == ("alter_endpoint", "m@1 40 %, small@1 60 %")
    assert len(altered["notices"]) == 1
    bank.run("DEPLOY MODEL m@3 TO ENDPOINT e")
    back = plan(bank, "ROLLBACK ENDPOINT e")
    assert (back["now"], back["then"]) == ("m@3", "m@1")
    key = plan(bank, "CREATE API KEY k FOR ENDPOINT e WITH (expires = '1 hour')")
    assert (key["endpoints"], key["seconds"]) == ("e", 3600.0)
    assert plan(bank, "DROP API KEY IF EXISTS k") == {"node": "drop_api_key", "api_key": None}
    assert plan(bank, "UNDEPLOY ENDPOINT IF EXISTS nowhere") == {"node": "undeploy", "endpoint": None}
    assert plan(bank, "UNDEPLOY ENDPOINT IF EXISTS E")["now"] == "m@3"
    assert (bank.traffic(), bank.run("SHOW API KEYS")) == ({"m@3": 100}, [])


def test_a_key_s_rate_changes_with_its_secret_unchanged_and_rotation_keeps_it(bank: Bank) -> None:
    bank.run("ALTER ENDPOINT e SET (auth = 'key')")
    [(url,)] = bank.run("SELECT url FROM sqlml.endpoints WHERE endpoint = 'e'")
    [(_, secret, *_)] = bank.run("CREATE API KEY shop FOR ENDPOINT e WITH (rate_limit = 1)")

    def refused(secret: str, requests: int) -> int:
        answers = []
        for _ in range(requests):
            asked = urllib.request.Request(
                f"{url.replace('/v2', '')}/predict", b'{"rows": [{"age": 3}]}', {"authorization": f"Bearer {secret}"}
            )
            try:
                with urllib.request.urlopen(asked, timeout=20) as answer:
                    answers.append(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    answers.append(error.code)
        assert set(answers) <= {200, 429}
        return answers.count(429)

    assert refused(secret, 5) >= 3
    assert bank.run("ALTER API KEY shop SET (rate_limit = 500)") == [("shop", "e", 500.0, None)]
    time.sleep(1.1)  # what was spent at the old rate
    assert refused(secret, 20) == 0
    [(_, newer, *_)] = bank.run("ALTER API KEY shop ROTATE")
    assert bank.run("SELECT rate_limit FROM sqlml.api_keys") == [(500.0,)]
    bank.run("ALTER API KEY shop SET (rate_limit = 1)")
    assert refused(newer, 5) >= 3
    assert bank.run("ALTER API KEY shop SET (rate_limit = NULL, expires = '1 day')")[0][2:3] == (None,)
    time.sleep(1.1)
    assert refused(newer, 20) == 0
    for wrong in ("()", "(rate_limit = 0)", "(expires = '400 years')"):
        with pytest.raises(sqlml.Error):
            bank.run(f"ALTER API KEY shop SET {wrong}")
    for wrong, instead in (("grace", "ALTER API KEY k ROTATE WITH"), ("log", "ALTER ENDPOINT e SET")):
        with pytest.raises(sqlml.ProgrammingError, match=f"{wrong} is an option of (?s:.*)write {instead} "):
            bank.run(f"ALTER API KEY shop SET ({wrong} = 1)")
    assert "ALTER API KEY shop" in bank.run("EXPLAIN ALTER API KEY shop SET (rate_limit = 3)")[0][0]


def test_options_of_a_key_are_shown_in_one_order_and_given_once(bank: Bank) -> None:
    bank.run("CREATE API KEY shop FOR ALL ENDPOINTS WITH (rate_limit = 2)")
    for wrong in ("rate_limit = 5, rate_limit = NULL", "rate_limit = NULL, RATE_LIMIT = 5", "expires = NULL, expires = NULL"):
        with pytest.raises(sqlml.Error, match=r"option \w+ is given twice"):
            bank.run(f"ALTER API KEY shop SET ({wrong})")
    assert bank.run("SELECT rate_limit FROM sqlml.api_keys") == [(2.0,)]
    options = plan(bank, "ALTER API KEY shop SET (expires = NULL, rate_limit = NULL)")
    assert list(options)[-2:] == ["rate_limit", "expires"]


# --- feedback -----------------------------------------------------------------------------------------------------------


def test_feedback_is_kept_beside_the_log(bank: Bank) -> None:
    cursor = bank.connection.execute("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('E', ?, ?)", ["r1", "yes"])
    assert cursor.rowcount == 1
    cursor.executemany(
        "INSERT INTO sqlml.main.feedback (endpoint, request_id, row, truth) VALUES (?, ?, ?, ?)",
        [("e", "r2", 0, "no"), ("e", "r2", 1, "yes")],
    )
    bank.run("INSERT INTO sqlml.feedback (truth, key, endpoint) SELECT bought, age, 'e' FROM t ORDER BY ALL LIMIT 2")
    found = bank.run("SELECT request_id, row, key, truth FROM sqlml.feedback WHERE endpoint = 'e' ORDER BY given_at, row")
    assert found == [("r1", None, None, "yes"), ("r2", 0, None, "no"), ("r2", 1, None, "yes"), *[(None, None, "0", "no")] * 2]
    assert bank.run("SELECT count(*) FROM sqlml.feedback WHERE owner IS NULL OR given_at IS NULL") == [(0,)]


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        (
            "request_id, truth",
            "('r', 'yes'), ('r', 'Yess')",
            "the truth 'Yess' is none of the classes of bought.*did you mean yes",
        ),
        ("key, truth", "(1, 'true')", "the truth 'true' is none of the classes of bought.*they are: no, yes"),
        ("request_id, row, truth", "('r', -1, 'no')", "row is -1: the rows of a request are counted from 0"),
        ("request_id, truth, target", "('r', 'no', 'brought')", "endpoint e has no target 'brought'.*did you mean bought"),
    ],
)
def test_feedback_that_nothing_could_be_measured_by_is_refused(bank: Bank, columns: str, values: str, message: str) -> None:
    before = bank.run("SELECT count(*) FROM sqlml.feedback")
    with pytest.raises(sqlml.Error, match=f"(?s){message}"):
        bank.run(f"INSERT INTO sqlml.feedback (endpoint, {columns}) SELECT 'e', * FROM (VALUES {values})")
    assert bank.run("SELECT count(*) FROM sqlml.feedback") == before


def test_feedback_takes_no_part_in_a_transaction(bank: Bank) -> None:
    before = bank.run("SELECT count(*) FROM sqlml.feedback")
    bank.run("BEGIN")
    try:
        with pytest.raises(sqlml.NotSupportedError, match="INSERT into feedback cannot run inside an open transaction"):
            bank.run("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('e', 'r', 'yes')")
    finally:
        bank.run("ROLLBACK")
    with pytest.raises(sqlml.ProgrammingError, match="unknown endpoint nowhere"):
        bank.run("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('e', 'r', 'yes'), ('nowhere', 'r', 'yes')")
    assert bank.run("SELECT count(*) FROM sqlml.feedback") == before


def ask(url: str, rows: list[dict[str, Any]], request: str) -> Any:
    """Rows to an endpoint whose V2 address is given."""
    base, _, name = url.partition("/v2/models/")
    body = json.dumps({"rows": rows}).encode()
    sent = urllib.request.Request(f"{base}/models/{name}/predict", data=body, headers={"x-request-id": request})
    with urllib.request.urlopen(sent, timeout=20) as answer:
        return json.load(answer)["predictions"]


def test_what_was_really_answered_is_measured(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT live")
    [(url,)] = bank.run("SELECT url FROM sqlml.endpoints WHERE endpoint = 'live'")
    answers = [ask(url, [{"age": age, "visits": 1}, {"age": 16 - age, "visits": None}], f"r{age}") for age in range(10)]
    assert until(lambda: bank.run("SELECT count(*) FROM sqlml.predictions WHERE endpoint = 'live'") == [(20,)])
    logged = bank.dicts(
        "SELECT request_id, row, inputs->>'age' AS age, outputs->>'predicted_bought' AS bought "
        "FROM sqlml.predictions WHERE endpoint = 'live'"
    )
    assert {(row["request_id"], row["row"]): row["bought"] for row in logged} == {
        (f"r{age}", row): answer["predicted_bought"] for age, pair in enumerate(answers) for row, answer in enumerate(pair)
    }
    bank.run(
        "INSERT INTO sqlml.feedback (endpoint, request_id, row, truth) SELECT endpoint, request_id, row, "
        "CASE WHEN (inputs->>'age')::DOUBLE > 8 THEN 'yes' ELSE 'no' END FROM sqlml.predictions "
        "WHERE endpoint = 'live' AND row = 0"
    )
    [figures] = bank.dicts("EVALUATE ENDPOINT live")
    assert (figures["predictions"], figures["rows"]) == (20, 10)
    right = [pair[0]["predicted_bought"] == ("yes" if age > 8 else "no") for age, pair in enumerate(answers)]
    assert figures["accuracy"] == pytest.approx(sum(right) / 10)
    assert [row["rows"] for row in bank.dicts("EVALUATE ENDPOINT live BY visits")] == [10]
    live = bank.dicts("SELECT requests, errors, latency_p50 > 0 AS timed FROM sqlml.endpoints WHERE endpoint = 'live'")
    assert live == [{"requests": 10, "errors": 0, "timed": True}]


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()
