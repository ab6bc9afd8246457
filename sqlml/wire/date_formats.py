"""Formats of times: PostgreSQL's patterns (``YYYY-MM-DD``) in the words of ``strftime`` and ``strptime`` (``%Y-%m-%d``)."""

from __future__ import annotations

import re

_PATTERNS = {
    "YYYY": "%Y", "YY": "%y", "IYYY": "%G", "MM": "%m", "DD": "%d", "DDD": "%j", "IW": "%V", "ID": "%u", "HH24": "%H",
    "HH12": "%I", "HH": "%I", "MI": "%M", "SS": "%S", "MS": "%g", "US": "%f", "AM": "%p", "PM": "%p", "MON": "%b",
    "DY": "%a", "TZ": "%Z", "FMMONTH": "%B", "FMDAY": "%A", "FMDD": "%-d", "FMMM": "%-m", "FMHH24": "%-H", "FMHH12": "%-I",
}  # fmt: skip
_AS_WRITTEN = {"MON": "Mon", "DY": "Dy", "FMMONTH": "FMMonth", "FMDAY": "FMDay", "AM": "AM", "PM": "PM", "TZ": "TZ"}
"""Patterns whose letters' case is that of the result: only DuckDB's own is translated."""
_PIECE = re.compile(
    rf'"(?P<quoted>[^"]*)"|(?P<pattern>{"|".join(sorted(_PATTERNS, key=len, reverse=True))})|(?P<other>.)', re.I | re.S
)


def duckdb_format(text: str) -> str | None:
    """A format of ``to_char``, ``to_date`` or ``to_timestamp`` as DuckDB writes it; None where it has no words for it."""
    parts = []
    for piece in _PIECE.finditer(text):
        pattern = piece["pattern"]
        if pattern is not None:
            if pattern != _AS_WRITTEN.get(pattern.upper(), pattern):
                return None
            parts.append(_PATTERNS[pattern.upper()])
        elif piece["quoted"] is not None:
            parts.append(piece["quoted"].replace("%", "%%"))
        elif piece["other"].isalnum() and piece["other"] != "T":  # T: ISO 8601's, between a date and a time
            return None
        else:
            parts.append(piece["other"].replace("%", "%%"))
    return "".join(parts) or None
