"""What may come next where the cursor stands.

    text before the cursor → tokens of the statement → the place (``place_of``) → candidates

The place is found by looking at the last tokens only, never by parsing: what is typed is not yet a statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from sqlml_dialect.names import name_sql
from sqlml_dialect.tokens import Kind, Token, scan

from sqlml.errors import Error
from sqlml.shell import words

if TYPE_CHECKING:
    from sqlml.contracts import OptionSpec
    from sqlml.dbapi import Names

_BEFORE_TABLE = frozenset({"FROM", "JOIN", "INTO", "TABLE", "UPDATE", "SUMMARIZE"})
_BEFORE_COLUMN = frozenset({"TARGET", "LABEL", "WEIGHT", "KEY"})
_MODEL_CALLS = frozenset(words.CALLS)


@dataclass(frozen=True)
class Place:
    """Where the cursor stands: ``what`` is expected there (``models``, ``options``, …) and what belongs to it."""

    what: str
    detail: str = ""


@dataclass(frozen=True)
class Candidate:
    """Something to offer: the text to insert and a word on what it is."""

    text: str
    meta: str


class SqlCompleter(Completer):
    """Completes statements and the shell's own commands; ``names`` is asked anew at each statement."""

    def __init__(
        self, names: Callable[[], Names], functions: Callable[[], Sequence[str]], commands: Sequence[tuple[str, str]]
    ) -> None:
        self._names = names
        self._functions = functions
        self._commands = commands
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """The candidates that begin with what is typed."""
        text = document.text_before_cursor
        if text.startswith("\\"):
            yield from self._complete_command(text, complete_event)
            return
        tokens = statement_tokens(text)
        if tokens and tokens[-1].kind is Kind.OPEN and tokens[-1].text.startswith("'"):
            yield from self._complete_path(tokens[-1].text[1:], complete_event)
            return
        typed = _take_typed(tokens, len(text))
        place = place_of(tokens)
        yield from _matching(candidates(place, self._names()), typed)
        if place.what == "expression" and typed:  # functions only once something is typed, there are so many
            yield from _matching([Candidate(f"{function}(", "function") for function in self._functions()], typed)

    def _complete_command(self, text: str, event: CompleteEvent) -> Iterator[Completion]:
        command, space, argument = text.partition(" ")
        if not space:
            yield from _matching([Candidate(name, meta) for name, meta in self._commands], command)
        elif command == "\\i":
            yield from self._complete_path(argument, event)
        else:
            yield from _matching(_command_arguments(command, self._names()), argument)

    def _complete_path(self, typed: str, event: CompleteEvent) -> Iterable[Completion]:
        return self._paths.get_completions(Document(typed), event)


def statement_tokens(text: str) -> list[Token]:
    """The tokens of the statement that the text ends in."""
    tokens: list[Token] = []
    for token in scan(text):
        tokens = [] if token.key == ";" else [*tokens, token]
    return tokens


def _take_typed(tokens: list[Token], cursor: int) -> str:
    """Take what is being typed off the tokens: a word, a name that is still in quotes, ``deposit@`` or ``deposit@1``."""
    typed = ""
    for _ in range(3):
        token = tokens[-1] if tokens else None
        if token is None or token.end + len(typed) != cursor:
            break
        if not (token.kind in (Kind.WORD, Kind.NUMBER) or token.key == "@" or token.text.startswith('"')):
            break
        typed = tokens.pop().text + typed
    return typed


def place_of(tokens: Sequence[Token]) -> Place:
    """What is expected after these tokens."""
    keys = [token.key or token.text for token in tokens]
    if not keys:
        return Place("start")
    if keys[-2:] == ["IF", "EXISTS"]:
        return place_of(tokens[:-2])
    first, last, before = keys[0], keys[-1], keys[-2] if len(keys) > 1 else ""
    opening = _open_parenthesis(keys)
    if last == "." and before == "ML":
        return Place("features" if opening > 0 and keys[opening - 1] == "TRANSFORM" else "functions")
    if opening > 0 and keys[opening - 1] == "WITH" and first in words.CLAUSES:
        return _option_place(tokens, keys, opening)
    if (found := _endpoint_place(tokens, keys, opening)) is not None:
        return found
    compared = first == "COMPARE" and (last == "MODELS" or (last == "," and opening < 0))
    if compared or (last == "FROM" and before == "START"):
        return Place("models")
    if last == "MODEL" or (last == "OF" and before == "VERSIONS") or (last == "(" and before in _MODEL_CALLS):
        return Place("models")
    if last == "ENDPOINT":
        return Place("endpoints")
    if (last == "DATABASE" and first in ("DEPLOY", "UNDEPLOY")) or (last == "CONNECTION" and first == "DROP"):
        return Place("connections")
    if last == "RUNNER" and first == "DROP":
        return Place("runners")
    if last == "TYPE" and _created(keys):
        return Place("types", _created(keys))
    if keys == ["SHOW"]:
        return Place("shown")
    if last == "USING" and first == "TRAIN" and opening < 0:
        return Place("algorithms")
    if last in _BEFORE_TABLE or keys == ["DESCRIBE"]:
        return Place("tables")
    if last in _BEFORE_COLUMN or (opening > 0 and keys[opening - 1] in ("EXCLUDE", "TARGET", "KEY") and last in ("(", ",")):
        return Place("columns")
    in_clauses = first in words.CLAUSES and len(keys) > 2 and opening < 0 and "AS" not in keys
    if first == "CREATE" and keys[1] != "API":
        in_clauses = in_clauses and bool(_created(keys)) and last not in ("CONNECTION", "RUNNER", "EXISTS")
    if in_clauses and last == "ON":
        return Place("runners")
    both = " ".join(keys[:2])
    return Place("clauses", both if both in words.CLAUSES else first) if in_clauses else Place("expression")


def _endpoint_place(tokens: Sequence[Token], keys: Sequence[str], opening: int) -> Place | None:
    """The places of ALTER ENDPOINT … SET (…) and of API keys; None elsewhere."""
    if keys[:2] in (["ALTER", "ENDPOINT"], ["ALTER", "ENDPOINTS"]) and opening > 0:
        if keys[opening - 1] == "TRAFFIC":
            return Place("models") if keys[-1] in ("(", ",") else Place("nothing")
        return _option_place(tokens, keys, opening)
    if keys[1:] == ["API", "KEY"]:
        return Place("nothing" if keys[0] == "CREATE" else "api_keys")
    return None


def _created(keys: Sequence[str]) -> str:
    """What a CREATE makes, where that is ours: ``connection``, ``runner``."""
    at = 3 if list(keys[:3]) == ["CREATE", "OR", "REPLACE"] else 1
    word = keys[at] if keys[0] == "CREATE" and len(keys) > at else ""
    return word.lower() if word in ("CONNECTION", "RUNNER") else ""


def _option_place(tokens: Sequence[Token], keys: Sequence[str], opening: int) -> Place:
    """A name or a value within WITH ( … ); ``detail`` is the algorithm (or ``runner:process``, ``endpoint:SET``), or that and
    the option.
    """
    word = "TYPE" if keys[0] == "CREATE" else "USING"
    using = keys.index(word) if word in keys else -1
    algorithm = tokens[using + 1].text if 0 <= using < len(tokens) - 1 else ""
    algorithm = f"{_created(keys)}:{algorithm}" if keys[0] == "CREATE" else algorithm
    if keys[0] == "DEPLOY" or keys[1] in ("ENDPOINT", "API"):
        algorithm = f"endpoint:{' '.join(keys[:2]) if keys[0] != 'DEPLOY' else 'DEPLOY'}"
    if keys[-1] == "=" and len(keys) - 2 > opening:
        return Place("values", f"{algorithm}.{tokens[-2].text}")
    return Place("options", algorithm) if keys[-1] in ("(", ",") else Place("nothing")


def _open_parenthesis(keys: Sequence[str]) -> int:
    """The index of the innermost parenthesis that is still open, or -1."""
    opened: list[int] = []
    for index, key in enumerate(keys):
        if key == "(":
            opened.append(index)
        elif key == ")" and opened:
            opened.pop()
    return opened[-1] if opened else -1


def candidates(place: Place, names: Names) -> list[Candidate]:
    """What to offer at a place."""
    simple: dict[str, tuple[Iterable[str], str]] = {
        "start": (words.STATEMENTS, ""),
        "shown": (words.SHOWN, ""),
        "models": (map(_model_sql, names.models), "model"),
        "endpoints": (map(name_sql, names.endpoints), "endpoint"),
        "api_keys": (map(name_sql, names.api_keys), "API key"),
        "columns": (map(name_sql, names.columns), "column"),
        "connections": (map(name_sql, names.connections), "connection"),
        "functions": (words.ML_TABLES, "function"),
    }
    if place.what in simple:
        return [Candidate(text, meta) for text, meta in _labelled(*simple[place.what])]
    if place.what == "tables":
        return [*_tables(names), Candidate("MODEL", ""), Candidate("ML.", "functions of a model")]
    if place.what == "features":
        return _fitted()
    if place.what == "algorithms":
        return _registered("algorithm")
    if place.what == "runners":
        return _registered("runner") + [Candidate(name_sql(name), "runner") for name in names.runners]
    if place.what == "types":
        return _types(place.detail)
    if place.what == "options":
        return [_option(option) for option in _options(place.detail)]
    if place.what == "values":
        return _option_values(place.detail)
    if place.what == "clauses":
        return [Candidate(clause, "") for clause in words.CLAUSES[place.detail]]
    return _expression(names) if place.what == "expression" else []


def _labelled(texts: Iterable[str], meta: str) -> Iterator[tuple[str, str]]:
    return ((text, meta) for text in texts)


def _tables(names: Names) -> list[Candidate]:
    return [Candidate(name_sql(table), "table") for table in names.tables]


def _expression(names: Names) -> list[Candidate]:
    """Anything that may stand within a query."""
    found = [Candidate(name_sql(column), "column") for column in names.columns] + _tables(names)
    found += [Candidate(_model_sql(model), "model") for model in names.models]
    found += [Candidate(f"{call}(", "model's answer") for call in words.CALLS]
    return found + [Candidate(word, "") for word in words.SQL_WORDS]


def _model_sql(name: str) -> str:
    """``churn@3`` as it is typed; only the part before the @ may need quotes."""
    base, at, version = name.partition("@")
    return name_sql(base) + at + version


def _registered(what: str) -> list[Candidate]:
    from sqlml import registry

    return [Candidate(name, what) for name in registry.names(what)]


def _types(what: str) -> list[Candidate]:
    """What a connection or a runner can be."""
    from sqlml.registry import names
    from sqlml.statements.named_connections import connection_types

    return [Candidate(name, f"type of {what}") for name in (connection_types() if what == "connection" else names("runner_type"))]


def _fitted() -> list[Candidate]:
    """What may follow ``ML.`` inside TRANSFORM."""
    from sqlml.features.fitted import FUNCTIONS

    return [Candidate(f"{name}(", "function") for name in sorted(FUNCTIONS)]


def _options(algorithm: str) -> tuple[OptionSpec, ...]:
    """The options of an algorithm, of ``connection:postgres``, or of ``endpoint:DEPLOY``; none where it is unknown or its library
    is missing.
    """
    from sqlml.registry import get, get_algorithm
    from sqlml.statements.named_connections import connection_options

    what, colon, name = algorithm.partition(":")
    if what == "endpoint":
        return _endpoint_options(name)
    try:
        if what == "connection":
            return connection_options(name) or ()
        return tuple(get("runner_type", name).options) if colon else get_algorithm(algorithm).options
    except Error:
        return ()


def _endpoint_options(statement: str) -> tuple[OptionSpec, ...]:
    """The options of a statement about endpoints, by its first two words (``DEPLOY`` alone)."""
    from sqlml.endpoint_options import DEPLOY_OPTIONS, KEPT_OPTIONS, KEY_OPTIONS, ROTATE_OPTIONS, SERVER_OPTIONS
    from sqlml.statements import evaluate_endpoint

    return {
        "DEPLOY": DEPLOY_OPTIONS,
        "ALTER ENDPOINT": KEPT_OPTIONS,
        "ALTER ENDPOINTS": SERVER_OPTIONS,
        "EVALUATE ENDPOINT": evaluate_endpoint.OPTIONS,
        "CREATE API": KEY_OPTIONS,
        "ALTER API": (*ROTATE_OPTIONS, *KEY_OPTIONS[:1]),
    }.get(statement, ())


def _option(option: OptionSpec) -> Candidate:
    default = "" if option.default is None else f" (default {option.default})"
    return Candidate(f"{option.name} = ", f"{option.type}{default}")


def _option_values(detail: str) -> list[Candidate]:
    algorithm, _, name = detail.partition(".")
    for option in _options(algorithm):
        if option.name.lower() == name.lower():
            if option.type == "bool":
                return [Candidate("true", ""), Candidate("false", "")]
            return [Candidate(f"'{choice}'", "") for choice in option.choices]
    return []


def _command_arguments(command: str, names: Names) -> list[Candidate]:
    from sqlml.shell.render import FORMATS

    if command == "\\d":
        return _tables(names) + [Candidate(_model_sql(model), "model") for model in names.models]
    if command == "\\m":
        return [Candidate(_model_sql(model), "model") for model in names.models]
    return [Candidate(style, "") for style in FORMATS] if command == "\\f" else []


def _matching(offered: Iterable[Candidate], typed: str) -> Iterator[Completion]:
    """Those that begin with what is typed, whatever the case; words of SQL in the case of what is typed."""
    lowered = typed.lower()
    seen = set()
    for candidate in offered:
        if candidate.text.lower().startswith(lowered) and candidate.text not in seen:
            seen.add(candidate.text)
            text = candidate.text.lower() if typed.islower() and not candidate.meta else candidate.text
            yield Completion(text, start_position=-len(typed), display_meta=candidate.meta)
