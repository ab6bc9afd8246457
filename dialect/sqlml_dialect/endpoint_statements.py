"""The statements about endpoints: DEPLOY, and what changes, measures and guards what is deployed."""

from __future__ import annotations

from sqlml_dialect import clauses
from sqlml_dialect.clause_nodes import ModelRef, Span, Value
from sqlml_dialect.clauses import parse_clauses, teaching
from sqlml_dialect.cursor import NAMES, Cursor
from sqlml_dialect.errors import DialectError
from sqlml_dialect.nodes import (
    AlterApiKey,
    AlterEndpoint,
    AlterEndpoints,
    CreateApiKey,
    Deploy,
    DeployFunction,
    DeployQuery,
    DropApiKey,
    EvaluateEndpoint,
    RefreshEndpoint,
    RollbackEndpoint,
    RotateApiKey,
    SetOptions,
    SetTraffic,
    Undeploy,
    UndeployFunction,
)
from sqlml_dialect.parameters import read_version
from sqlml_dialect.tokens import Kind
from sqlml_dialect.values import parse_options, parse_value


def parse_deploy(cursor: Cursor) -> Deploy | DeployFunction:
    """``DEPLOY MODEL m [TO ENDPOINT e] [WITH (…)] [ON runner]`` or ``DEPLOY MODEL m TO DATABASE [c] [AS FUNCTION f]``"""
    cursor.expect("DEPLOY", "MODEL")
    model = cursor.model_ref()
    found = parse_clauses(cursor, clauses.DEPLOY_CLAUSES)
    place = found.pop("place", None)
    if isinstance(place, clauses.ToDatabase):
        _refuse_clause(cursor, ("WITH", "ON"), "TO DATABASE takes no {}", "as in TO DATABASE pg AS FUNCTION churn")
        return DeployFunction(model, place.name, **found)
    hint = f"write DEPLOY MODEL {model.text} TO DATABASE AS FUNCTION …"
    _refuse_clause(cursor, ("AS",), "AS FUNCTION needs TO DATABASE", hint)
    return Deploy(model, place, **found)


def parse_deploy_query(cursor: Cursor) -> DeployQuery:
    """``DEPLOY QUERY e [WITH (…)] AS query``"""
    cursor.expect("DEPLOY", "QUERY")
    endpoint = cursor.ident("the endpoint's name")
    return DeployQuery(endpoint, **parse_clauses(cursor, clauses.DEPLOY_QUERY_CLAUSES, query=True))


def parse_refresh(cursor: Cursor) -> RefreshEndpoint:
    """``REFRESH ENDPOINT e``"""
    cursor.expect("REFRESH", "ENDPOINT")
    return RefreshEndpoint(cursor.ident("an endpoint's name"))


def _refuse_clause(cursor: Cursor, words: tuple[str, ...], message: str, hint: str) -> None:
    """Raise for a clause that was read and cannot stand beside the others."""
    wrong = next((cursor.tokens[index] for index in cursor.openings if cursor.tokens[index].key in words), None)
    if wrong is not None:
        raise DialectError(message.format(wrong.key), cursor.text, (wrong.start, wrong.end), hint=hint)


def parse_undeploy(cursor: Cursor) -> Undeploy:
    """``UNDEPLOY ENDPOINT [IF EXISTS] e``"""
    cursor.expect("UNDEPLOY", "ENDPOINT")
    if_exists = cursor.accept("IF", "EXISTS")
    return Undeploy(cursor.ident("an endpoint's name"), if_exists)


def parse_undeploy_function(cursor: Cursor) -> UndeployFunction:
    """``UNDEPLOY FUNCTION f [FROM DATABASE [c]]``"""
    cursor.expect("UNDEPLOY", "FUNCTION")
    function = cursor.qualified_name("a function's name")
    if not cursor.accept("FROM"):
        return UndeployFunction(function)
    cursor.expect("DATABASE")
    return UndeployFunction(function, clauses.parse_connection(cursor))


def parse_rollback(cursor: Cursor) -> RollbackEndpoint:
    """``ROLLBACK ENDPOINT e``"""
    cursor.expect("ROLLBACK", "ENDPOINT")
    return RollbackEndpoint(cursor.ident("an endpoint's name"))


def parse_alter_endpoint(cursor: Cursor) -> AlterEndpoint:
    """``ALTER ENDPOINT e SET TRAFFIC (m@3 = 90, 1 = 10)`` or ``ALTER ENDPOINT e SET (name = value, …)``"""
    cursor.expect("ALTER", "ENDPOINT")
    endpoint = cursor.ident("an endpoint's name")
    _check_reset(cursor)
    start = cursor.expect("SET").start
    if cursor.accept("TRAFFIC"):
        found = cursor.in_parens(lambda: _parse_share(cursor))
        shares, places = tuple(share for share, _ in found), tuple(place for _, place in found)
        return AlterEndpoint(endpoint, SetTraffic(shares, places, span=cursor.taken_since(start)))
    with teaching("SET (replicas = 3, idle_timeout = '10 min')"):
        if cursor.peek().key != "(":
            cursor.fail("TRAFFIC or options in parentheses", words=("TRAFFIC",))
        return AlterEndpoint(endpoint, SetOptions(parse_options(cursor), span=cursor.taken_since(start)))


def parse_alter_endpoints(cursor: Cursor) -> AlterEndpoints:
    """``ALTER ENDPOINTS SET (memory = '4 GB')``"""
    cursor.expect("ALTER", "ENDPOINTS")
    _check_reset(cursor)
    cursor.expect("SET")
    return AlterEndpoints(parse_options(cursor))


def _check_reset(cursor: Cursor) -> None:
    """Raise for RESET, which other statements have: an option goes back to its default as NULL."""
    if cursor.peek().key == "RESET":
        names = [token.text for token in cursor.tokens[cursor.position + 1 :] if token.kind in NAMES]
        cursor.fail("SET", hint=f"write SET ({', '.join(f'{name} = NULL' for name in names) or 'option = NULL'})")


def _parse_share(cursor: Cursor) -> tuple[tuple[ModelRef | int, Value], Span]:
    """``m@3 = 90`` or ``3 = 90``, and where it stands."""
    start = cursor.peek().start
    bare = cursor.peek().kind is Kind.NUMBER
    version = read_version(cursor) if bare else cursor.model_ref()
    cursor.expect("=")
    share = version, parse_value(cursor)
    return share, cursor.taken_since(start)


def parse_evaluate_endpoint(cursor: Cursor) -> EvaluateEndpoint:
    """``EVALUATE ENDPOINT e [BY column] [WITH (…)]``"""
    cursor.expect("EVALUATE", "ENDPOINT")
    endpoint = cursor.ident("an endpoint's name")
    return EvaluateEndpoint(endpoint, **parse_clauses(cursor, clauses.EVALUATE_ENDPOINT_CLAUSES))


def parse_create_key(cursor: Cursor) -> CreateApiKey:
    """``CREATE API KEY k FOR ENDPOINT e [, …] | FOR ALL ENDPOINTS [WITH (…)]``"""
    cursor.expect("CREATE", "API", "KEY")
    name = cursor.ident("the key's name")
    found = parse_clauses(cursor, clauses.API_KEY_CLAUSES)
    if "endpoints" not in found:
        cursor.fail("FOR ENDPOINT and its name, or FOR ALL ENDPOINTS")
    return CreateApiKey(name, **found)


def parse_alter_key(cursor: Cursor) -> RotateApiKey | AlterApiKey:
    """``ALTER API KEY k ROTATE [WITH (…)]`` or ``ALTER API KEY k SET (name = value, …)``"""
    cursor.expect("ALTER", "API", "KEY")
    name = cursor.ident("the key's name")
    if cursor.accept("SET"):
        return AlterApiKey(name, parse_options(cursor))
    if cursor.peek().key != "ROTATE":
        cursor.fail("ROTATE, or SET and options in parentheses", words=("ROTATE", "SET"))
    cursor.expect("ROTATE")
    return RotateApiKey(name, **parse_clauses(cursor, clauses.ROTATE_CLAUSES))


def parse_drop_key(cursor: Cursor) -> DropApiKey:
    """``DROP API KEY [IF EXISTS] k``"""
    cursor.expect("DROP", "API", "KEY")
    if_exists = cursor.accept("IF", "EXISTS")
    return DropApiKey(cursor.ident("the key's name"), if_exists)
