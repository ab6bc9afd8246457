"""Rows with a column of every kind: some to learn from, and odd ones to predict for."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("whole", pa.int32()),
        ("number", pa.float64()),
        ("price", pa.decimal128(8, 2)),
        ("flag", pa.bool_()),
        ("word", pa.string()),
        ("day", pa.date32()),
        ("clock", pa.time64("us")),
        ("moment", pa.timestamp("us")),
        ("instant", pa.timestamp("us", "UTC")),
        ("vector", pa.list_(pa.float64())),
        ("tags", pa.list_(pa.string())),
    ]
)
WORDS = ("clerk", "cook", 'it\'s "ß"', "naïve", "職人", "повар")
TAGS = ("a", "b", "ç", "дом")
UTC = dt.UTC


def training_rows(n: int = 500) -> pa.Table:
    """Seeded rows with the targets ``bought`` (no, yes), ``level`` (low, mid, top) and ``spent``; a tenth is NULL."""
    rng = np.random.default_rng(7)
    rows = [_row(i, rng) for i in range(n)]
    score = [_score(row) for row in rows]
    ends = np.quantile(score, [0.4, 0.6, 0.8])
    for row in rows:
        for name in SCHEMA.names[1:]:
            if rng.random() < 0.1:
                row[name] = None
    targets = {
        "bought": pa.array(["yes" if s > ends[1] else "no" for s in score]),
        "level": pa.array(["top" if s > ends[2] else "mid" if s > ends[0] else "low" for s in score]),
        "spent": pa.array([10 * s + rng.normal() for s in score]),
    }
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for name, values in targets.items():
        table = table.append_column(name, values)
    return table


def _row(i: int, rng: np.random.Generator) -> dict[str, Any]:
    start = dt.datetime(2020, 1, 1, tzinfo=UTC) + dt.timedelta(minutes=int(rng.integers(0, 10**6)))
    return {
        "id": i,
        "whole": int(rng.integers(-50, 50)),
        "number": float(rng.normal() * 10),
        "price": Decimal(int(rng.integers(0, 100_000))) / 100,
        "flag": bool(rng.random() < 0.4),
        "word": WORDS[int(rng.integers(len(WORDS)))],
        "day": dt.date(2020, 1, 1) + dt.timedelta(days=int(rng.integers(0, 900))),
        "clock": dt.time(int(rng.integers(24)), int(rng.integers(60)), int(rng.integers(60))),
        "moment": start.replace(tzinfo=None),
        "instant": start,
        "vector": [float(v) for v in rng.normal(size=3)],
        "tags": [tag for tag in TAGS if rng.random() < 0.4],
    }


def _score(row: dict[str, Any]) -> float:
    return float(
        row["whole"] / 50 + row["number"] / 10 + float(row["price"]) / 1000 + row["flag"] + (row["word"] in WORDS[:2])
        + row["day"].month / 12 + row["clock"].hour / 24 + row["vector"][0] + len(row["tags"]) / 4
    )  # fmt: skip


def odd_rows(thresholds: dict[str, list[float]]) -> pa.Table:
    """Rows that models get wrong: NULLs, unseen categories, values at and beside ``thresholds``, infinities, old dates."""
    rng = np.random.default_rng(11)
    plain = [_row(i, rng) for i in range(40)]
    rows = list(plain)

    def add(**values: Any) -> None:
        rows.append(plain[len(rows) % len(plain)] | values)

    for name in SCHEMA.names[1:]:
        add(**{name: None})
    add(**dict.fromkeys(SCHEMA.names[1:]))
    for word in ("", " ", "clerk ", "CLERK", "новый", "未知", "עברית", "🎉", "a" * 300, "NULL", "nan"):
        add(word=word)
    for number in (np.inf, -np.inf, np.nan, 1e38, -1e38, 3.5e38, 1e300, 5e-324, -0.0, 0.1, 16_777_217.0):
        add(number=float(number))
    for name, values in thresholds.items():
        for value in values:
            near = np.float32(value)
            for beside in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))):
                add(**{name: float(beside)})
            add(**{name: float(np.nextafter(float(near), np.inf))})
            add(**{name: float(np.nextafter(float(near), -np.inf))})
    for whole in (-(2**31), 2**31 - 1, 0):
        add(whole=whole)
    for price in ("999999.99", "-999999.99", "0.01"):
        add(price=Decimal(price))
    for day in (dt.date(1582, 10, 15), dt.date(1900, 2, 28), dt.date(1969, 12, 31), dt.date(1970, 1, 1), dt.date(2400, 2, 29)):
        add(day=day, moment=dt.datetime(day.year, day.month, day.day, 23, 59, 59, 999_999))
        add(instant=dt.datetime(day.year, day.month, day.day, 23, 30, tzinfo=UTC))
    for clock in (dt.time(0), dt.time(23, 59, 59, 999_999)):
        add(clock=clock)
    add(vector=[None, 1.0, 2.0])
    add(vector=[0.0, -0.0, 1e38])
    add(tags=[])
    add(tags=["unseen", "a", "a"])
    add(tags=[None, "b"])
    for number, row in enumerate(rows):
        row["id"] = number
    return _with_infinite_times(pa.Table.from_pylist(rows, schema=SCHEMA))


def _with_infinite_times(table: pa.Table) -> pa.Table:
    """The rows, and four more whose dates and times are infinite: the ends of their numbers, which Python has no word for."""
    count = len(table)
    more = table.slice(0, 4).set_column(0, "id", pa.array(range(count, count + 4), pa.int64()))
    for name, bits in (("day", 32), ("moment", 64), ("instant", 64)):
        last = 2 ** (bits - 1) - 1
        values = pa.array([last, -last, None, last], pa.int32() if bits == 32 else pa.int64())
        more = more.set_column(SCHEMA.names.index(name), SCHEMA.field(name), values.view(SCHEMA.field(name).type))
    return pa.concat_tables([table, more])
