"""DEPLOY with options, traffic and shadow, ALTER and ROLLBACK ENDPOINT: what the catalog and the server have after."""

from __future__ import annotations

from pathlib import Path

import pytest

import sqlml
from tests.session.endpoint_bank import Bank, plan

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
    assert bank.run("SELECT changed_at > created_at FROM sqlml.endpoints WHERE endpoint = 'e'") == [(True,)]
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
    changes = "SELECT reason, versions, undone FROM sqlml.endpoint_changes WHERE endpoint = 'gone' ORDER BY revision"
    assert bank.run(changes) == [("DEPLOY", "m@1", True), ("UNDEPLOY", None, False)]
    assert bank.run("UNDEPLOY ENDPOINT IF EXISTS gone") == []
    with pytest.raises(sqlml.ProgrammingError, match="unknown endpoint gone"):
        bank.run("UNDEPLOY ENDPOINT gone")


# --- EXPLAIN ------------------------------------------------------------------------------------------------------------


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
