"""Sample data that ships with the package: real tables, compressed, each with its licence beside it."""

from __future__ import annotations

from pathlib import Path

from sqlml.errors import ProgrammingError, did_you_mean

_FOLDER = Path(__file__).parent
_SUFFIX = ".csv.gz"


def sample(name: str) -> str:
    """The path of a sample table, a compressed CSV file that DuckDB reads as it is.

    >>> sample("bank_marketing").endswith("bank_marketing.csv.gz")
    True

    ``ProgrammingError`` with the names that there are for any other.
    """
    known = samples()
    if name not in known:
        near = did_you_mean(name, known)
        raise ProgrammingError(f"no sample data called {name}", hint=near or f"there is {', '.join(known)}")
    return str(_FOLDER / (name + _SUFFIX))


def samples() -> tuple[str, ...]:
    """The names of the sample tables."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob("*" + _SUFFIX)))
