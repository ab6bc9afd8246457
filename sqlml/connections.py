"""What a connection is: its types and their options, what is wrong with them, and its URL with the password put in.

A password is never kept: the options name the environment variable or the file that has it, and ``resolve_url`` reads it when the
connection is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from sqlml.contracts import OptionSpec
from sqlml.errors import OperationalError, did_you_mean

PASSWORD_ENV, PASSWORD_FILE = "password_env", "password_file"
_PASSWORDS = (
    OptionSpec(PASSWORD_ENV, "str", None, "the environment variable that has the password"),
    OptionSpec(PASSWORD_FILE, "str", None, "the file that has the password"),
)
_SPARK = (
    OptionSpec("master", "str", None, "Spark's master: 'local[4]', 'spark://host:7077', 'yarn'"),
    OptionSpec("connect", "str", None, "a Spark Connect server: 'sc://host:15002'"),
    OptionSpec("memory", "size", None, "memory of the driver and of each executor: '4 GB'"),
    OptionSpec(
        "staging", "str", None, "a folder, or a URL, that this machine and all workers reach, for rows that are written there"
    ),
    OptionSpec("config", "struct", None, "Spark's own settings: {'spark.sql.shuffle.partitions': 8}"),
)

CONNECTION_TYPES: Mapping[str, tuple[OptionSpec, ...]] = {
    "postgres": (OptionSpec("url", "str", None, "the server: 'postgresql://user@host:5432/database'"), *_PASSWORDS),
    "sqlalchemy": (OptionSpec("url", "str", None, "a URL of SQLAlchemy, such as 'mysql+pymysql://user@host/db'"), *_PASSWORDS),
    "spark": _SPARK,
}
"""The types of connection, each with its options."""
PLACES = ("url", "master", "connect")
"""The options that say where a connection or a runner leads: where these are the same, it is the same place."""

_SCHEMES = {"postgres": re.compile(r"postgres(ql)?", re.IGNORECASE), "sqlalchemy": re.compile(r"[a-z][a-z0-9_]*(\+\w+)?", re.I)}
_SHAPES = {"postgres": "postgresql://user@host:5432/database", "sqlalchemy": "mysql+pymysql://user@host/database"}
_HIDDEN = r"secret|passw(?:or)?d|passphrase|pwd|token|credential|signature|(?:access|account|api|private|shared)[\W_]?key"
_HIDDEN_NAME = re.compile(_HIDDEN, re.IGNORECASE)
_PLACE_NAME = re.compile(
    rf"(?:{_HIDDEN})s?(?:[_-]?|(?<!key)\.(?:driver\.|executor\.)?)(?:env|file|path|provider|location|name)(?![a-z])",
    re.IGNORECASE,
)
"""A name like ``private_key_file``, ``credentials.provider`` or ``pull_secret_name``: it says where a secret is, or which."""
_CREDENTIALS = re.compile(r"^[a-z][a-z0-9_+]*://[^:/?#@]*:(?P<secret>[^?]*)@", re.IGNORECASE)
_INNER_CREDENTIALS = re.compile(r"\b[a-z][a-z0-9_+.-]*://[^:/?#@\s]*:(?P<secret>[^?#/@\s]+)@", re.IGNORECASE)
_NAMED = re.compile(
    rf"(?:^|[?&;,\s{{\"'=])(?P<key>[^=&;?/\s]*(?:{_HIDDEN}|\bsig\b)[^=&;?/\s]*?)(?:=|%3D)(?P<secret>\{{[^}}]*\}}|[^&;]*)",
    re.IGNORECASE,
)
_ENCODED = 3
"""So often a text may have been percent-encoded: a URL in a URL is twice."""
_HINT = f"leave it out, and name what has it: {PASSWORD_ENV} = 'NAME' (an environment variable) or {PASSWORD_FILE} = 'path'"


class OptionFault(NamedTuple):
    """What is wrong with an option (None: with all of them together), and what to do."""

    option: str | None
    message: str
    hint: str | None = None


def connection_fault(type_name: str, options: Mapping[str, Any]) -> OptionFault | None:
    """What is wrong with the options of a connection or runner, each of which is well in itself; None where nothing is."""
    if type_name == "spark":
        fault = _spark_fault(options)
    else:
        fault = _url_fault(type_name, options) if type_name in CONNECTION_TYPES else None
    return fault or _kept_secret(options)


def _kept_secret(options: Mapping[str, Any]) -> OptionFault | None:
    """The first option that is a secret, or has one in it."""
    for option, value in options.items():
        for name, _ in secrets_in({option: value}):
            if option == "config":
                hint = "set it in Spark's own spark-defaults.conf ($SPARK_CONF_DIR)"
                return OptionFault(option, f"{name} in config would be kept and shown", hint)
            return OptionFault(
                option, f"a secret in {name} would be kept and shown", "leave it out, and keep it where it is used"
            )
    return None


def _url_fault(type_name: str, options: Mapping[str, Any]) -> OptionFault | None:
    url, shape = options.get("url"), f"as in url = '{_SHAPES[type_name]}'"
    if not url:
        return OptionFault(None, f"a connection of type {type_name} needs a url", shape)
    scheme, separator, _ = url.partition("://")
    if not separator or not _SCHEMES[type_name].fullmatch(scheme):
        what = "a URL of PostgreSQL" if type_name == "postgres" else "a URL of SQLAlchemy"
        return OptionFault("url", f"this is not {what}", shape)
    if secret_in(url):
        return OptionFault("url", "a password in the url would be kept and shown", _HINT)
    if options.get(PASSWORD_ENV) and options.get(PASSWORD_FILE):
        return OptionFault(PASSWORD_FILE, f"{PASSWORD_ENV} and {PASSWORD_FILE} cannot stand together", "leave out one of them")
    return None


_MASTER = re.compile(
    r"local(\[(\*|\d+)(,\s*\d+)?\])?|local-cluster\[\s*\d+\s*,\s*\d+\s*,\s*\d+\s*\]|yarn|k8s://\S+"
    r"|spark://[^\s:/,]+:\d+(,[^\s:/,]+:\d+)*"
)
"""https://spark.apache.org/docs/latest/submitting-applications.html#master-urls"""
_MASTERS = "as in 'local[4]', 'local[*]', 'spark://host:7077', 'k8s://https://host:443' or 'yarn'"


def _spark_fault(options: Mapping[str, Any]) -> OptionFault | None:
    master, connect = options.get("master"), options.get("connect")
    if master and not _MASTER.fullmatch(str(master)):
        near = did_you_mean(str(master).partition("[")[0], ("local", "local-cluster", "yarn"))
        return OptionFault("master", f"Spark has no master {master!r}", "\n".join(filter(None, [near, _MASTERS])))
    if master and connect:
        hint = "master starts Spark in this process, connect is a client of a server: leave out one of them"
        return OptionFault("connect", "master and connect cannot stand together", hint)
    if connect and not re.match(r"sc://[^/:;\s]", str(connect)):
        return OptionFault("connect", "this is not the address of a Spark Connect server", "as in connect = 'sc://host:15002'")
    if connect and secret_in(str(connect)):
        return OptionFault(
            "connect", "a token in connect would be kept and shown", "Spark Connect without a token, or a proxy that adds it"
        )
    return None


# --- secrets ----------------------------------------------------------------------------------------------------------


def secret_in(text: str) -> str | None:
    """The password, key or token in a URL or in settings such as ``user=me;pwd=…``; None where there is none.

    As it stands there, or where it is percent-encoded, decoded.
    """
    credentials = _CREDENTIALS.search(text)
    if credentials and credentials["secret"]:
        return credentials["secret"]
    for _ in range(_ENCODED):
        for pattern in (_INNER_CREDENTIALS, _NAMED):
            for found in pattern.finditer(text):
                if found["secret"] and not _PLACE_NAME.search(found.groupdict().get("key", "")):
                    return found["secret"]
        text = unquote(text)
    return None


def is_secret_name(option: str) -> bool:
    """Whether what is called so is meant to stay hidden: ``password``, ``token``; not the name of what has it."""
    return bool(_HIDDEN_NAME.search(_PLACE_NAME.sub("", option)))


def secrets_in(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every secret in an option's value, however deep: the name that it stands under, and itself."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item, name)
    elif value is None or value == "" or str(value).lower() in ("true", "false"):
        return
    elif is_secret_name(name):
        yield name, value
    elif isinstance(value, str) and (found := secret_in(value)):
        yield name, found


def resolve_url(name: str, options: Mapping[str, Any]) -> str:
    """The URL of a connection with its password in it, for the driver alone: never to be kept, shown or logged.

    ``OperationalError`` where the environment variable is not set, or the file cannot be read.
    """
    url = str(options["url"])
    password = _password(name, options)
    if password is None:
        return url
    scheme, _, rest = url.partition("://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    user, _, host = rest[:end].rpartition("@")
    return f"{scheme}://{user}:{quote(password, safe='')}@{host}{rest[end:]}"


def _password(name: str, options: Mapping[str, Any]) -> str | None:
    variable, file = options.get(PASSWORD_ENV), options.get(PASSWORD_FILE)
    if variable:
        value = os.environ.get(variable)
        if not value:
            raise OperationalError(
                f"connection {name} has no password: the environment variable {variable} is not set",
                hint=f"set {variable} before sqlml starts",
            )
        return value
    if not file:
        return None
    try:
        value = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        message = f"connection {name} has no password: the file {file} cannot be read: {reason}"
        raise OperationalError(message, hint="put the password, and nothing else, into that file") from None
    if not value:
        raise OperationalError(f"connection {name} has no password: the file {file} is empty", hint="put the password into it")
    return value
