"""``python -m tests.soak [PART …] [--rounds N] …``: the long runs; ``--help`` tells the parts and their sizes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from tests.soak import functions, fuzz, kills, lines, memory, serving, wire


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long runs that look for rare faults.")
    parser.add_argument(
        "parts",
        nargs="*",
        choices=["kills", "lines", "functions", "fuzz", "memory", "serving", "wire"],
        default=[],
        help="which (default: all)",
    )
    parser.add_argument("--rounds", type=int, default=100, help="rounds of kill -9 (default: 100)")
    parser.add_argument("--seconds", type=float, default=300, help="how long functions are called under load (default: 300)")
    parser.add_argument("--inputs", type=int, default=200_000, help="texts given to the dialect (default: 200000)")
    parser.add_argument("--table-rows", type=int, default=400_000, help="rows of a table that is larger than its memory")
    parser.add_argument("--requests", type=int, default=50_000, help="requests during rolling restarts (default: 50000)")
    parser.add_argument("--swaps", type=int, default=10_000, help="versions swapped, looking for growth (default: 10000)")
    parser.add_argument("--messages", type=int, default=100_000, help="wrong messages to PostgreSQL's port (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and texts")
    options = parser.parse_args()
    parts: dict[str, Callable[[], int]] = {
        "kills": lambda: kills.run(options.rounds, options.seed),
        "lines": lines.run,
        "functions": lambda: functions.run(options.seconds),
        "memory": lambda: memory.run(options.table_rows),
        "serving": lambda: serving.run(options.rounds, options.requests, options.swaps, options.seed),
        "wire": lambda: wire.run(options.messages, options.seed),
        "fuzz": lambda: fuzz.run(options.inputs, options.seed),
    }
    wanted = options.parts or list(parts)
    failures = sum(parts[name]() > 0 for name in wanted)
    print(f"soak: {len(wanted) - failures} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
