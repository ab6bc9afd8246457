"""``make demo``: the whole road on real data, statement by statement, as a person would type it in the shell."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import sqlml
from sqlml.data import sample
from sqlml.home import home_of
from sqlml.registry import SERVER, load
from sqlml.shell.output import Output, dimmed
from sqlml.shell.render import ROWS
from sqlml.shell.run import run_statement

CLIENT = "(SELECT * EXCLUDE (y, duration) FROM bank WHERE age > 80 ORDER BY ALL LIMIT 1)"

STATEMENTS = (
    ("The data: a bank's calls, and whether the client then made a deposit (UCI bank marketing, CC BY 4.0).", ""),
    ("", "CREATE TABLE bank AS FROM '{data}';"),
    ("A model.  The length of the call is not known before the call, so it may not be learnt from.", ""),
    ("", "TRAIN MODEL deposit TARGET y EXCLUDE (duration) AS SELECT * FROM bank;"),
    ("How good is it on the rows it has not seen?", ""),
    ("", "EVALUATE MODEL deposit;"),
    ("What matters to it, as a whole and for one client?", ""),
    ("", "EXPLAIN MODEL deposit TOP 5;"),
    ("", "EXPLAIN MODEL deposit TOP 3 INTO why AS SELECT * FROM bank WHERE age > 90;"),
    ("", "SELECT age, job, predicted_y, unnest(reasons, max_depth := 2) FROM why LIMIT 6;"),
    ("Predictions anywhere in a query: the clients worth a call.", ""),
    (
        "",
        "SELECT age, job, balance, PREDICT_PROBA(deposit, 'yes') AS p\n"
        "      FROM bank WHERE PREDICT_PROBA(deposit, 'yes') > 0.9 ORDER BY p DESC LIMIT 5;",
    ),
    ("… or into a table.", ""),
    ("", "PREDICT MODEL deposit INTO scores AS SELECT * FROM bank;"),
    ("", "SELECT predicted_y, count(*) AS clients FROM scores GROUP BY ALL ORDER BY ALL;"),
    ("An HTTP endpoint.", ""),
    ("", "DEPLOY MODEL deposit;"),
    ("One client, asked about over HTTP …", ""),
)

AFTER = (
    ("… and in SQL, which gives the same number to the last digit.", ""),
    ("", "SELECT PREDICT(deposit) AS y, PREDICT_PROBA(deposit, 'yes')::VARCHAR AS p\n      FROM {client};"),
    ("What there is now, and the end of it.", ""),
    ("", "SHOW MODELS;"),
    ("", "UNDEPLOY ENDPOINT deposit;"),
)


def main() -> int:
    """Run the demo in a folder of its own, which goes afterwards; nothing keeps running."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sqlml-demo-") as folder:
        database = Path(folder) / "bank.duckdb"
        output = Output("table", ROWS, interactive=True, bars=sys.stderr.isatty())
        server = load(SERVER)(home_of(database))
        try:
            with sqlml.connect(database, on_event=output.event) as connection:
                _say(f"$ sqlml {database.name}")
                _run(connection, output, STATEMENTS)
                _request(connection, server.url())
                _run(connection, output, AFTER)
        finally:
            server.stop()
    _say(f"\nAll of it took {time.monotonic() - started:.0f} s.  Now: .venv/bin/sqlml bank.duckdb")
    return 0


def _run(connection: sqlml.Connection, output: Output, statements: tuple[tuple[str, str], ...]) -> None:
    for comment, statement in statements:
        if comment:
            _say("\n" + dimmed(f"-- {comment}", sys.stdout))
            continue
        _say(f"\nbank> {statement.format(data='bank_marketing.csv.gz', client=CLIENT)}")
        text = statement.format(data=sample("bank_marketing"), client=CLIENT)
        result = run_statement(connection, text.removesuffix(";"))
        output.result(result)


def _request(connection: sqlml.Connection, url: str | None) -> None:
    """One real request, as curl would send it."""
    cursor = connection.execute(f"FROM {CLIENT}")
    row = dict(zip((d.name for d in cursor.description or ()), cursor.fetchone() or (), strict=True))
    body = json.dumps({"rows": [row]})
    _say(f"\n$ curl -s {url}/models/deposit/predict -d '{body}'")
    request = urllib.request.Request(f"{url}/models/deposit/predict", body.encode(), {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server on loopback
        _say(answer.read().decode())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
