"""CREATE, ALTER and DROP API KEY: who may ask an endpoint of a real server, how often, and until when."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import pytest

import sqlml
from sqlml.catalog import Catalog
from tests.session.endpoint_bank import Bank, asked, plan, until


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
    planned = plan(bank, "UNDEPLOY ENDPOINT shut")
    assert (planned["api_keys"], planned["narrowed_api_keys"]) == (["alone"], ["both"])
    bank.run("UNDEPLOY ENDPOINT shut")
    assert bank.notices == [
        "1 API key went with it: alone",
        "1 API key lost the endpoint shut and opens others still: both",
    ]
    assert bank.run("SELECT api_key, endpoints FROM sqlml.api_keys") == [("both", ["e"]), ("every", None)]
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT shut WITH (auth = 'key')")
    assert [asked(url, secret) for secret in (alone, both, every)] == [401, 403, 200]


def test_keys_go_with_an_endpoint_that_nothing_is_left_of(bank: Bank) -> None:
    bank.run("TRAIN MODEL only USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t")
    bank.run("DEPLOY MODEL only TO ENDPOINT lone")
    bank.run("DEPLOY MODEL only TO ENDPOINT twin")
    for key, endpoints in (("first", "lone"), ("second", "lone, twin"), ("third", "twin, e"), ("fourth", "twin, e")):
        bank.run(f"CREATE API KEY {key} FOR ENDPOINT {endpoints}")
    bank.run("DROP MODEL only CASCADE")
    assert bank.notices == [
        "2 endpoints went with it, of which nothing was left: lone, twin",
        "2 API keys went with the endpoints: first, second",
        "2 API keys lost the endpoint twin and open others still: fourth, third",
    ]
    assert bank.run("SELECT api_key, endpoints FROM sqlml.api_keys") == [("fourth", ["e"]), ("third", ["e"])]
    for key in ("third", "fourth"):
        bank.run(f"DROP API KEY {key}")


def test_a_rollback_that_opens_an_endpoint_says_so(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT guarded")
    bank.run("CREATE API KEY guard FOR ENDPOINT guarded")
    bank.run("ALTER ENDPOINT guarded SET (auth = 'key')")
    bank.run("DEPLOY MODEL m@2 TO ENDPOINT guarded")
    bank.run("ROLLBACK ENDPOINT guarded")
    assert bank.notices == []
    bank.run("ROLLBACK ENDPOINT guarded")
    assert bank.notices == [
        "endpoint guarded answers without an API key again: what stands now is older than auth = 'key'; "
        "ALTER ENDPOINT guarded SET (auth = 'key') asks for one"
    ]
    bank.run("UNDEPLOY ENDPOINT guarded")


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
