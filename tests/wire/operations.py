"""What the operations of several drivers share: rows, a query that takes long, and every type."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

Operation = Callable[[Any], Any]
UTC = datetime.UTC
VALUES = (
    77, "it's", decimal.Decimal("12.50"), datetime.datetime(2026, 3, 1, 10, 20, 30, 123456, tzinfo=UTC), True, ["p", "q r", ""],
    uuid.UUID(int=9), b"\x00\xfe", datetime.date(2026, 2, 3), 2.5,
)  # fmt: skip
INSERT = "INSERT INTO parents (id, name, amount, seen, ok, tags, u, raw, born, score) VALUES "
SLOW = "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE a.x * b.y % 7 = 3"
TYPES = (
    "SELECT 1::int2 a, 2::int4 b, 3::int8 c, 1.5::float4 d, 2.5::float8 e, 12.34::numeric(10,2) f, true g, 'x'::text h, "
    "date '2026-03-01' i, timestamp '2026-03-01 10:20:30.5' j, time '01:02:03' k, '\\x00ff'::bytea l, NULL::int m, "
    "'00000000-0000-0000-0000-000000000007'::uuid n, ARRAY[1, 2] o, ARRAY['a', NULL, 'b c'] p, interval '1 day 2 hours' q, "
    "timestamptz '2026-03-01 10:20:30+00' r, -0.001::numeric(8,4) s, 1e-7::float8 t, 123456789012::int8 u"
)


def in_order(rows: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in rows)
