"""``python -m tests.soak [kills] [functions] [--rounds N] [--seconds S] [--seed K]``"""

from __future__ import annotations

import argparse
import sys

from tests.soak import functions, kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long runs that look for rare faults.")
    parser.add_argument("parts", nargs="*", help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of kill -9 (default: 100)")
    parser.add_argument("--seconds", type=float, default=300, help="how long functions are called under load (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    parts = options.parts or ["kills", "functions"]
    failures = 0
    if "kills" in parts:
        failures += kills.run(options.rounds, options.seed)
    if "functions" in parts:
        failures += functions.run(options.seconds)
    print(f"soak: {len(parts) - (1 if failures else 0)} passed, {1 if failures else 0} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
