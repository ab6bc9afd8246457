"""What a session is set to: PostgreSQL's names, for SHOW, SET and the start-up; most of them only have to be remembered."""

from __future__ import annotations

import re

from sqlml_dialect.tokens import words

from sqlml.wire.errors import Refused

SERVER_VERSION = "15.8"
"""The server that clients take this one for."""

REPORTED = (
    "server_version", "server_encoding", "client_encoding", "application_name", "default_transaction_read_only",
    "in_hot_standby", "is_superuser", "session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes",
    "standard_conforming_strings",
)  # fmt: skip
"""What a client is told at the start, and again whenever it changes."""

_DEFAULTS = {
    "server_version": SERVER_VERSION, "server_version_num": "150008", "server_encoding": "UTF8", "client_encoding": "UTF8",
    "application_name": "", "default_transaction_read_only": "off", "in_hot_standby": "off", "is_superuser": "on",
    "session_authorization": "", "datestyle": "ISO, MDY", "intervalstyle": "postgres", "timezone": "UTC",
    "integer_datetimes": "on", "standard_conforming_strings": "on", "search_path": '"$user", public', "statement_timeout": "0",
    "lock_timeout": "0", "idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0",
    "transaction_isolation": "read committed", "default_transaction_isolation": "read committed", "transaction_read_only": "off",
    "default_transaction_deferrable": "off", "max_identifier_length": "63", "max_index_keys": "32", "max_connections": "100",
    "ssl": "off", "bytea_output": "hex", "extra_float_digits": "1", "lc_collate": "C.UTF-8", "lc_ctype": "C.UTF-8",
    "lc_messages": "C.UTF-8", "lc_monetary": "C.UTF-8", "lc_numeric": "C.UTF-8", "lc_time": "C.UTF-8",
    "row_security": "on", "client_min_messages": "notice", "synchronous_commit": "on", "escape_string_warning": "on",
    "backslash_quote": "safe_encoding", "default_tablespace": "", "default_table_access_method": "heap",
    "xmloption": "content", "gin_fuzzy_search_limit": "0",
    "jit": "off", "work_mem": "4MB", "shared_buffers": "128MB", "wal_level": "replica", "block_size": "8192",
    "on_disconnect": "keep", "password_encryption": "scram-sha-256", "session_replication_role": "origin",
    "default_text_search_config": "pg_catalog.simple", "role": "none", "timezone_abbreviations": "Default",
    "check_function_bodies": "on", "default_with_oids": "off", "enable_seqscan": "on", "geqo": "on", "array_nulls": "on",
}  # fmt: skip

_FIXED = words(
    "server_version server_version_num server_encoding in_hot_standby integer_datetimes max_identifier_length max_index_keys "
    "max_connections ssl lc_collate lc_ctype block_size is_superuser wal_level shared_buffers"
)
_SPELLING = {"datestyle": "DateStyle", "intervalstyle": "IntervalStyle", "timezone": "TimeZone"}
_UNITS = {"": 1, "us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATIONS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
_WORDS = {"on": "on", "true": "on", "yes": "on", "1": "on", "off": "off", "false": "off", "no": "off", "0": "off"}


class Settings:
    """The settings of one session; names in any case."""

    def __init__(self, user: str, *, timezone: str, ssl: bool, max_connections: int) -> None:
        self._values = dict(_DEFAULTS) | {
            "session_authorization": user, "timezone": timezone, "ssl": "on" if ssl else "off",
            "max_connections": str(max_connections),
        }  # fmt: skip
        self._initial = dict(self._values)
        self.process = 0

    def knows(self, name: str) -> bool:
        return name.lower() in self._values

    def get(self, name: str) -> str:
        """``Refused`` for a name that nobody knows."""
        found = self._values.get(name.lower())
        if found is None:
            raise Refused(f'unrecognized configuration parameter "{name}"', "42704")
        return found

    def spelling(self, name: str) -> str:
        """A name as PostgreSQL writes it: ``TimeZone``."""
        return _SPELLING.get(name.lower(), name.lower())

    def all(self) -> dict[str, str]:
        return {_SPELLING.get(name, name): value for name, value in sorted(self._values.items())}

    def set(self, name: str, value: str | None) -> None:
        """Set it; None is what it was at the start.  ``Refused`` for what cannot be."""
        key = name.lower()
        if key == "client_encoding" and value is not None:
            value = value.strip("'\"")
        if key in _FIXED:
            raise Refused(f'parameter "{name}" cannot be changed', "55P02")
        if value is None:
            value = self._initial.get(key, "")
        self._values[key] = _checked(key, value)

    def reset(self) -> None:
        """Everything as it was at the start."""
        self._values = dict(self._initial)

    def start_with(self, name: str, value: str) -> None:
        """A parameter of the start-up packet: RESET goes back to it."""
        self.set(name, value)
        self._initial[name.lower()] = self._values[name.lower()]

    def milliseconds(self, name: str) -> float:
        """A length of time; 0 is none."""
        return milliseconds(name, self._values[name])


def _checked(key: str, value: str) -> str:
    if key == "client_encoding":
        if value.upper().replace("-", "").replace("_", "") not in ("UTF8", "UNICODE", "SQLASCII", "AUTO"):
            raise Refused(f'invalid value for parameter "client_encoding": "{value}"', "22023", hint="texts are UTF8 here")
        return "UTF8"
    if key == "datestyle":
        if not re.match(r"(?i)\s*(iso|mdy|dmy|ymd|default)", value):
            raise Refused(f'invalid value for parameter "DateStyle": "{value}"', "0A000", hint="dates are ISO's here")
        return "ISO, MDY"
    if key == "intervalstyle" and value.lower() != "postgres":
        raise Refused(f'invalid value for parameter "IntervalStyle": "{value}"', "0A000", hint="it is always postgres")
    if key == "on_disconnect" and value.lower() not in ("keep", "cancel"):
        raise Refused(f'invalid value for parameter "on_disconnect": "{value}"', "22023", hint="keep or cancel")
    if key in _DURATIONS:
        milliseconds(key, value)
    if _DEFAULTS.get(key) in ("on", "off"):
        return _WORDS.get(value.lower(), value)
    return value


def milliseconds(name: str, value: str) -> float:
    """A length of time with its unit, or in milliseconds.  ``Refused`` for what is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|)\s*", value)
    if match is None:
        raise Refused(
            f'invalid value for parameter "{name}": "{value}"',
            "22023",
            hint="in milliseconds, or with a unit: us ms s min h d",
        )
    return float(match[1]) * _UNITS[match[2]]
