"""New versions appear while four threads call the model: each answer must be that of one whole version, nothing may crash."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import sqlml
from sqlml.data import sample

THREADS = 4
QUERY = "SELECT sum(PREDICT_PROBA(m, 'yes')), count(PREDICT(m)) FROM bank"


def run(seconds: float) -> int:
    """The number of wrong answers and errors."""
    with tempfile.TemporaryDirectory(prefix="sqlml-soak-") as folder:
        database = Path(folder) / "bank.duckdb"
        with sqlml.connect(database) as connection:
            connection.execute(f"CREATE TABLE bank AS SELECT * FROM '{sample('bank_marketing')}' LIMIT 5000")
            soak = _Soak(database, time.monotonic() + seconds)
            soak.train(connection)
            threads = [threading.Thread(target=soak.call) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            while time.monotonic() < soak.end:
                soak.train(connection)
                connection.execute(f"ALTER MODEL m SET ALIAS champion = {1 + len(soak.truth) // 2}")
            for thread in threads:
                thread.join()
            soak.check(connection)
    done = f"{len(soak.answers)} queries, {soak.versions} versions, {len(soak.errors)} faults"
    print(f"functions: {seconds:g} s, {THREADS} threads, {done}")
    for error in soak.errors[:5]:
        print("  ", error)
    return len(soak.errors)


class _Soak:
    def __init__(self, database: Path, end: float) -> None:
        self.database = database
        self.end = end
        self.answers: list[tuple[float, int]] = []
        self.errors: list[str] = []
        self.truth: set[float] = set()
        self.versions = 0

    def train(self, connection: sqlml.Connection) -> None:
        self.versions += 1
        connection.execute(
            "TRAIN MODEL m TARGET y EXCLUDE (duration) WITH (n_estimators = 3, seed = ?) ON inline AS FROM bank",
            [self.versions % 50],
        )
        [(total, _)] = connection.execute(QUERY.replace("(m", f"(m@{self.versions}")).fetchall()
        self.truth.add(round(total, 6))

    def call(self) -> None:
        try:
            with sqlml.connect(self.database) as connection:
                while time.monotonic() < self.end:
                    [answer] = connection.execute(QUERY).fetchall()
                    self.answers.append(answer)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def check(self, connection: sqlml.Connection) -> None:
        # a sum over threads is rounded differently from run to run
        for total, rows in self.answers:
            if rows != 5000 or not any(abs(total - truth) < 1e-4 for truth in self.truth):
                self.errors.append(f"an answer of no version: {total}, {rows} rows")
