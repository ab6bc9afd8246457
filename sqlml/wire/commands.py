"""PostgreSQL's statements that are answered here: transactions, settings, cursors, and what is accepted quietly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlml_dialect import quote_string
from sqlml_dialect.tokens import Kind, Token, name_value, scan, string_value

from sqlml.errors import Error
from sqlml.wire.copying import copy_command
from sqlml.wire.errors import Refused
from sqlml.wire.messages import Field
from sqlml.wire.portals import Outcome, Portal, Prepared, iter_nothing, nothing, text_rows
from sqlml.wire.tags import verb_of
from sqlml.wire.types import TEXT

if TYPE_CHECKING:
    from sqlml.wire.backend import Backend

Tokens = list[Token]

_TWO_WORDS = {
    "TIME ZONE": "timezone", "TRANSACTION ISOLATION LEVEL": "transaction_isolation",
    "SESSION AUTHORIZATION": "session_authorization",
}  # fmt: skip
_NO_SAVEPOINTS = (
    "the database has no savepoints: ROLLBACK undoes the whole transaction; a transaction for each part can be undone alone"
)
_QUIET = {"LISTEN": "LISTEN", "UNLISTEN": "UNLISTEN", "NOTIFY": "NOTIFY", "LOCK": "LOCK TABLE"}


class Commands:
    """Runs what the database needs not, or must not, see."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._prepared: set[str] = set()  # by PREPARE, in the database
        self._local: dict[str, str] = {}  # what SET LOCAL changed, and from what

    def run(self, portal: Portal) -> Outcome | None:
        """The outcome of a statement; None where it is for the database (or waits for COPY data)."""
        run = self._table().get(portal.prepared.verb)
        return None if run is None else run(list(scan(portal.prepared.text)), portal)

    def start_with(self, name: str, value: str) -> None:
        """A setting of the start-up packet; what nobody knows is refused, as PostgreSQL does."""
        if not self._backend.settings.knows(name) and "." not in name:
            raise Refused(f'unrecognized configuration parameter "{name}"', "42704", fatal=True)
        self._apply(name.lower(), value)
        self._backend.settings.start_with(name, self._backend.settings.get(name))

    def describe(self, statement: Prepared) -> Any:
        """The columns of a statement that is answered here: None without rows, ``NotImplemented`` where it is not."""
        tokens = list(scan(statement.text))
        verb = statement.verb
        if verb == "SHOW":
            name = self._shown_name(tokens)
            if name == "all":
                return (Field("name", TEXT), Field("setting", TEXT), Field("description", TEXT))
            return NotImplemented if name is None else (Field(self._backend.settings.spelling(name), TEXT),)
        if verb == "FETCH":
            return self._backend.portal(_cursor_name(tokens)).fields
        if verb == "EXECUTE":
            return NotImplemented
        if verb == "COPY":
            return None
        if verb == "SET" or (verb in self._table() and verb not in ("CREATE", "PREPARE", "DEALLOCATE", "RESET")):
            return None
        return NotImplemented

    def _table(self) -> Mapping[str, Callable[[Tokens, Portal], Outcome | None]]:
        quiet = dict.fromkeys(_QUIET, self._quiet)
        return {
            "BEGIN": self._begin, "START": self._begin, "COMMIT": self._commit, "END": self._commit,
            "ROLLBACK": self._rollback, "ABORT": self._rollback, "SAVEPOINT": self._savepoint, "RELEASE": self._release,
            "SET": self._set, "SHOW": self._show, "RESET": self._reset, "DISCARD": self._discard,
            "DEALLOCATE": self._deallocate, "PREPARE": self._prepare, "DECLARE": self._declare, "FETCH": self._fetch,
            "MOVE": self._fetch, "CLOSE": self._close, "CREATE": self._create, "COPY": self._copy, **quiet,
        }  # fmt: skip

    # --- transactions -------------------------------------------------------------------------------------------------------

    def _begin(self, tokens: Tokens, portal: Portal) -> Outcome:
        if not self._backend.transaction.begin(portal.prepared.text):
            self._backend.notice("there is already a transaction in progress", "WARNING", "25001")
        return nothing("BEGIN" if tokens[0].key == "BEGIN" else "START TRANSACTION")

    def _commit(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        if len(tokens) > 1 and tokens[1].key == "PREPARED":
            raise Refused("two-phase commit is not supported", "0A000")
        return self._end(self._backend.transaction.commit)

    def _rollback(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        keys = [token.key for token in tokens]
        if "TO" in keys:
            return self._rollback_to(_name_at(tokens, len(tokens) - 1))
        if "PREPARED" in keys:
            raise Refused("two-phase commit is not supported", "0A000")
        return self._end(self._backend.transaction.rollback)

    def _rollback_to(self, name: str) -> Outcome:
        transaction = self._backend.transaction
        if transaction.status == "I":
            raise Refused("ROLLBACK TO SAVEPOINT can only be used in transaction blocks", "25P01")
        self._backend.settle()
        try:
            done = transaction.rollback_to(name)
        except KeyError:
            raise Refused(f'savepoint "{name}" does not exist', "3B001") from None
        if not done:
            raise Refused(
                "ROLLBACK TO SAVEPOINT is not supported where something was written before the savepoint",
                "0A000",
                hint=_NO_SAVEPOINTS,
            )
        return nothing("ROLLBACK")

    def _end(self, end: Callable[[], str]) -> Outcome:
        backend = self._backend
        if backend.transaction.status == "I":
            backend.notice("there is no transaction in progress", "WARNING", "25P01")
        backend.drop_portals()
        backend.settle()
        for name, value in self._local.items():
            self._apply(name, value)
        self._local.clear()
        return nothing(end())

    def _savepoint(self, tokens: Tokens, portal: Portal) -> Outcome:
        transaction = self._backend.transaction
        if transaction.status == "I":
            raise Refused("SAVEPOINT can only be used in transaction blocks", "25P01")
        if not transaction.set_savepoint(_name_at(tokens, 1)):
            raise Refused("SAVEPOINT is not supported once a transaction has written", "0A000", hint=_NO_SAVEPOINTS)
        return nothing("SAVEPOINT")

    def _release(self, tokens: Tokens, portal: Portal) -> Outcome:
        transaction = self._backend.transaction
        name = _name_at(tokens, 2 if len(tokens) > 2 and tokens[1].key == "SAVEPOINT" else 1)
        if transaction.status == "I":
            raise Refused("RELEASE SAVEPOINT can only be used in transaction blocks", "25P01")
        try:
            transaction.release(name)
        except KeyError:
            raise Refused(f'savepoint "{name}" does not exist', "3B001") from None
        return nothing("RELEASE")

    # --- settings -----------------------------------------------------------------------------------------------------------

    def _set(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        at = 1
        local = tokens[1].key == "LOCAL" if len(tokens) > 1 else False
        if len(tokens) > 2 and tokens[1].key in ("LOCAL", "SESSION") and tokens[2].key not in ("=", "TO", "AUTHORIZATION"):
            at = 2
        rest = tokens[at:]
        keys = [token.key for token in rest]
        if not rest:
            return None
        if keys[0] in ("TRANSACTION", "CHARACTERISTICS"):
            self._backend.transaction.isolate(portal.prepared.text)
            return nothing("SET")
        if keys[0] == "CONSTRAINTS":
            return nothing("SET CONSTRAINTS")
        if keys[:2] == ["TIME", "ZONE"]:
            return self._assign("timezone", _value(rest[2:]), local)
        if keys[0] == "NAMES":
            return self._assign("client_encoding", _value(rest[1:]) or "UTF8", local)
        if keys[:2] == ["SESSION", "AUTHORIZATION"] or keys[0] == "ROLE":
            return self._assign("role" if keys[0] == "ROLE" else "session_authorization", _value(rest[-1:]), local)
        operator = next((index for index, key in enumerate(keys) if key in ("=", "TO")), None)
        if operator is None:
            return None
        name = "".join(name_value(token) for token in rest[:operator])
        if not self._backend.settings.knows(name) and "." not in name:
            return None  # DuckDB's own: SET threads = 2
        return self._assign(name, _value(rest[operator + 1 :]), local)

    def _assign(self, name: str, value: str | None, local: bool) -> Outcome:
        settings, key = self._backend.settings, name.lower()
        if local:
            if self._backend.transaction.status == "I":
                self._backend.notice("SET LOCAL can only be used in transaction blocks", "WARNING", "25P01")
                return nothing("SET")
            if settings.knows(key):
                self._local.setdefault(key, settings.get(key))
        self._apply(key, value)
        return nothing("SET")

    def _apply(self, key: str, value: str | None) -> None:
        backend, before = self._backend, self._backend.settings.get(key) if self._backend.settings.knows(key) else ""
        backend.settings.set(key, value)
        now = backend.settings.get(key)
        try:
            if key == "timezone":
                zone = {"LOCAL": "UTC", "DEFAULT": "UTC"}.get(now.upper(), now)
                backend.settle()
                backend.runner.session.execute(f"SET TimeZone = {quote_string(zone)}")
            elif key == "search_path":
                backend.settle()
                path = backend.rewriter.search_path(now)
                if path is not None:
                    backend.runner.session.execute(f"SET search_path = {quote_string(path)}")
        except Error as error:
            backend.settings.set(key, before)
            raise Refused(f'invalid value for parameter "{key}": "{now}"', "22023", hint=error.message) from None

    def _shown_name(self, tokens: Tokens) -> str | None:
        words = " ".join(token.key for token in tokens[1:])
        name = _TWO_WORDS.get(words) or ("".join(name_value(token) for token in tokens[1:]) if len(tokens) > 1 else "")
        return name.lower() if name.lower() == "all" or self._backend.settings.knows(name) else None

    def _show(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        name = self._shown_name(tokens)
        if name is None:
            return None  # SHOW MODELS, SHOW TABLES
        settings = self._backend.settings
        if name == "all":
            rows = [(each, value, "") for each, value in settings.all().items()]
            return text_rows(("name", "setting", "description"), rows, "SHOW")
        return text_rows((settings.spelling(name),), [(settings.get(name),)], "SHOW")

    def _reset(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        if len(tokens) < 2:
            return None
        name = "timezone" if tokens[1].key == "TIME" else "".join(name_value(token) for token in tokens[1:])
        if name.lower() == "all":
            self._reset_all()
        elif self._backend.settings.knows(name):
            self._apply(name.lower(), None)
        else:
            return None
        return nothing("RESET")

    def _reset_all(self) -> None:
        settings = self._backend.settings
        zone, path = settings.get("timezone"), settings.get("search_path")
        settings.reset()
        if settings.get("timezone") != zone:
            self._apply("timezone", None)
        if settings.get("search_path") != path:
            self._apply("search_path", None)

    def _discard(self, tokens: Tokens, portal: Portal) -> Outcome:
        what = tokens[1].key if len(tokens) > 1 else "ALL"
        if what == "ALL":
            if self._backend.transaction.status != "I":
                raise Refused("DISCARD ALL cannot run inside a transaction block", "25001")
            self._backend.prepared.clear()
            self._backend.drop_portals(all_of_them=True)
            self._reset_all()
        return nothing(f"DISCARD {what}")

    # --- prepared statements and cursors ------------------------------------------------------------------------------------

    def _prepare(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        """PREPARE p (int) AS …: DuckDB takes no types there."""
        if len(tokens) > 1 and tokens[1].key == "TRANSACTION":
            raise Refused("two-phase commit is not supported", "0A000")
        text = portal.prepared.text
        if len(tokens) > 1:
            self._prepared.add(_name_at(tokens, 1))
        if len(tokens) < 4 or tokens[2].text != "(":
            return None
        close = next((token for token in tokens if token.text == ")"), tokens[-1])
        return self._backend.run_sql(text[: tokens[2].start] + text[close.end :], "PREPARE")

    def _deallocate(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        name = _name_at(tokens, len(tokens) - 1)
        if tokens[-1].key == "ALL":
            self._backend.prepared.clear()
            return nothing("DEALLOCATE ALL")
        if self._backend.prepared.pop(name, None) is not None:
            return nothing("DEALLOCATE")
        if name not in self._prepared:
            raise Refused(f'prepared statement "{name}" does not exist', "26000")
        self._prepared.discard(name)
        return None

    def _declare(self, tokens: Tokens, portal: Portal) -> Outcome:
        backend, name = self._backend, _name_at(tokens, 1)
        begin = next((index for index, token in enumerate(tokens) if token.key == "FOR"), None)
        if begin is None or "CURSOR" not in [token.key for token in tokens[:begin]]:
            raise Refused("syntax error: DECLARE name CURSOR FOR query", "42601")
        keys = [token.key for token in tokens[:begin]]
        holdable = "HOLD" in keys and "WITHOUT" not in keys
        if backend.transaction.status == "I" and not holdable:
            raise Refused("DECLARE CURSOR can only be used in transaction blocks", "25P01", hint="BEGIN, or WITH HOLD")
        if name in backend.portals:
            raise Refused(f'cursor "{name}" already exists', "42P03")
        query = portal.prepared.text[tokens[begin].end :].strip()
        cursor = Portal(Prepared(query, verb_of(query)), portal.values, holdable=holdable)
        cursor.begin(backend.run_sql(query, cursor.prepared.verb, portal.values))
        if cursor.fields is None:
            raise Refused("a cursor is for a query", "42601")
        backend.portals[name] = cursor
        return nothing("DECLARE CURSOR")

    def _fetch(self, tokens: Tokens, portal: Portal) -> Outcome:
        moves = tokens[0].key == "MOVE"
        cursor = self._backend.portals.get(_cursor_name(tokens))
        if cursor is None:
            raise Refused(f'cursor "{_cursor_name(tokens)}" does not exist', "34000")
        count = _fetch_count(tokens)
        if count == 0:
            return Outcome(None if moves else cursor.fields, iter_nothing(), lambda rows: f"{tokens[0].key} {rows}")
        batches = cursor.fetch(0 if count is None else count)
        if moves:
            moved = sum(batch.num_rows for batch in batches)
            return nothing(f"MOVE {moved}")
        return Outcome(cursor.fields, batches, lambda rows: f"FETCH {rows}")  # type: ignore[arg-type]

    def _close(self, tokens: Tokens, portal: Portal) -> Outcome:
        if tokens[-1].key == "ALL":
            self._backend.drop_portals(all_of_them=True)
            return nothing("CLOSE CURSOR ALL")
        name = _name_at(tokens, 1)
        found = self._backend.portals.pop(name, None)
        if found is None:
            raise Refused(f'cursor "{name}" does not exist', "34000")
        found.close()
        return nothing("CLOSE CURSOR")

    # --- others ---------------------------------------------------------------------------------------------------------------

    def _create(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        if len(tokens) > 1 and tokens[1].key == "EXTENSION":
            return nothing("CREATE EXTENSION")
        return None

    def _copy(self, tokens: Tokens, portal: Portal) -> Outcome | None:
        return copy_command(tokens, portal.prepared.text, self._backend)

    def _quiet(self, tokens: Tokens, portal: Portal) -> Outcome:
        return nothing(_QUIET[tokens[0].key])


_BACKWARD = ("PRIOR", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD", "FIRST")


def _fetch_count(tokens: Tokens) -> int | None:
    """How many rows; None for all that are left."""
    words = [token.key or token.text for token in tokens[1:-1] if token.key not in ("FROM", "IN")]
    if words and words[0] in _BACKWARD:
        raise Refused("cursor can only scan forward", "55000", hint="FETCH NEXT, FETCH n, FETCH ALL")
    words = [word for word in words if word not in ("NEXT", "FORWARD")]
    if not words:
        return 1
    if words[0] == "ALL":
        return None
    if words[0] == "-" or not words[0].isdigit():
        raise Refused("cursor can only scan forward", "55000", hint="FETCH NEXT, FETCH n, FETCH ALL")
    return int(words[0])


def _cursor_name(tokens: Tokens) -> str:
    return _name_at(tokens, len(tokens) - 1)


def _name_at(tokens: Tokens, index: int) -> str:
    """A name; without quotes in small letters, as PostgreSQL folds it."""
    if not 0 < index < len(tokens) or tokens[index].kind not in (Kind.WORD, Kind.QUOTED):
        raise Refused("syntax error: a name is missing", "42601")
    token = tokens[index]
    return name_value(token) if token.kind is Kind.QUOTED else token.text.lower()


def _value(tokens: Tokens) -> str | None:
    """What stands behind SET x =: texts and words, several with commas; None for DEFAULT."""
    if len(tokens) == 1 and tokens[0].key == "DEFAULT":
        return None
    parts: list[str] = []
    for token in tokens:
        if token.text == ",":
            parts.append(", ")
        elif token.kind is Kind.STRING:
            parts.append(string_value(token.text))
        elif token.key == "INTERVAL":
            continue
        else:
            parts.append(token.text)
    return "".join(parts)
