"""The statements of ours: which words open each, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlml_dialect import clauses
from sqlml_dialect.clause_nodes import Given
from sqlml_dialect.clauses import parse_clauses, teaching
from sqlml_dialect.cursor import NAMES, Cursor, describe
from sqlml_dialect.endpoint_statements import (
    parse_alter_endpoint,
    parse_alter_endpoints,
    parse_alter_key,
    parse_create_key,
    parse_deploy,
    parse_deploy_query,
    parse_drop_key,
    parse_evaluate_endpoint,
    parse_refresh,
    parse_rollback,
    parse_undeploy,
    parse_undeploy_function,
)
from sqlml_dialect.errors import DialectError
from sqlml_dialect.nodes import (
    AlterModel,
    CancelJob,
    Change,
    CompareModels,
    CreateResource,
    DescribeModel,
    DropModel,
    DropResource,
    Evaluate,
    ExplainModel,
    ExplainPlan,
    Export,
    ExportEndpoint,
    Import,
    Node,
    Predict,
    RenameTo,
    SetAlias,
    SetComment,
    SetTag,
    Show,
    ShowCreateModel,
    ShowLogs,
    Train,
    Unset,
)
from sqlml_dialect.parameters import parse_given, read_comment, read_job, read_pattern, read_version
from sqlml_dialect.tokens import Kind, words
from sqlml_dialect.values import parse_value

Parse = Callable[[Cursor], Node]

SUBJECTS = ("MODELS", "RUNS", "JOBS", "ENDPOINTS", "ALGORITHMS", "RUNNERS", "CONNECTIONS")
SUBJECT_PAIRS = (("API", "KEYS"), ("SERVER", "SETTINGS"))


def parse_statement(cursor: Cursor, parse: Parse) -> Node:
    """Read a statement of ours to its end."""
    start = cursor.peek().start
    with teaching(EXAMPLES.get(parse, "")):
        node = parse(cursor)
        if cursor.peek().kind is not Kind.END:
            cursor.fail("the end of the statement")
    return replace(node, span=(start, cursor.last_end()))


# --- models -----------------------------------------------------------------------------------------------------------


def parse_train(cursor: Cursor) -> Train:
    """``TRAIN MODEL name … AS query``"""
    cursor.expect("TRAIN", "MODEL")
    _check_named(cursor)
    model = cursor.model_ref()
    if model.version is not None or model.alias is not None:
        raise DialectError(
            "TRAIN MODEL takes a name without a version",
            cursor.text,
            model.span,
            hint=f"TRAIN always adds the next version of {model.name.text}",
        )
    return Train(model, **parse_clauses(cursor, clauses.TRAIN_CLAUSES, query=True))


def _check_named(cursor: Cursor) -> None:
    """Raise where TRAIN MODEL has no name: a clause's word stands there, and what follows is no clause but that clause's own."""
    word, follows = cursor.peek().key, cursor.peek(1)
    is_clause = word in clauses.TRAIN_CLAUSES and word != "AS"
    if is_clause and (follows.key == "(" or follows.kind in NAMES) and follows.key not in clauses.TRAIN_CLAUSES:
        cursor.fail("a model's name", hint=f"write the name first: TRAIN MODEL churn {word} …")


def parse_evaluate(cursor: Cursor) -> Evaluate:
    """``EVALUATE MODEL m [BY column] [WITH (…)] [AS query]``"""
    cursor.expect("EVALUATE", "MODEL")
    return Evaluate(cursor.model_ref(), **parse_clauses(cursor, clauses.EVALUATE_CLAUSES))


def parse_compare(cursor: Cursor) -> CompareModels:
    """``COMPARE MODELS m@3, m@4 [, …] [WITH (…)] [AS query]``"""
    cursor.expect("COMPARE", "MODELS")
    models = cursor.listed(cursor.model_ref)
    if len(models) < 2:
        name = models[0].name.text
        hint = f"name them with a comma between: COMPARE MODELS {name}@1, {name}@2"
        raise DialectError("COMPARE MODELS takes at least two models", cursor.text, models[0].span, hint=hint)
    return CompareModels(models, **parse_clauses(cursor, clauses.COMPARE_CLAUSES))


def parse_predict(cursor: Cursor) -> Predict:
    """``PREDICT MODEL m [INTO table] … AS query``"""
    cursor.expect("PREDICT", "MODEL")
    return Predict(cursor.model_ref(), **parse_clauses(cursor, clauses.PREDICT_CLAUSES, query=True))


def parse_explain_model(cursor: Cursor) -> ExplainModel:
    """``EXPLAIN MODEL m [TOP n] [INTO table] [AS query]``"""
    cursor.expect("EXPLAIN", "MODEL")
    return ExplainModel(cursor.model_ref(), **parse_clauses(cursor, clauses.EXPLAIN_CLAUSES))


def parse_describe_model(cursor: Cursor) -> DescribeModel:
    """``DESCRIBE MODEL m``"""
    cursor.keyword()
    cursor.expect("MODEL")
    return DescribeModel(cursor.model_ref())


def parse_alter_model(cursor: Cursor) -> AlterModel:
    """``ALTER MODEL m SET ALIAS … | SET TAG … | SET COMMENT … | UNSET … | RENAME TO …``"""
    cursor.expect("ALTER", "MODEL")
    model = cursor.model_ref()
    start = cursor.peek().start
    parse_change = _CHANGES[cursor.choose("change", tuple(_CHANGES))]
    return AlterModel(model, replace(parse_change(cursor), span=cursor.taken_since(start)))


def _parse_rename(cursor: Cursor) -> RenameTo:
    """``TO name``"""
    cursor.expect("TO")
    return RenameTo(cursor.qualified_name("the new name"))


def _parse_setting(cursor: Cursor) -> SetAlias | SetTag | SetComment:
    """``ALIAS name = version``, ``TAG name = value`` or ``COMMENT 'text'``"""
    what = cursor.choose("setting", _SETTINGS)
    with teaching(f"SET {_SET_EXAMPLES[what]}"):
        return _parse_set(cursor, what)


def _parse_set(cursor: Cursor, what: str) -> SetAlias | SetTag | SetComment:
    """What stands behind SET ALIAS, SET TAG or SET COMMENT."""
    if what == "COMMENT":
        return SetComment(parse_given(cursor, read_comment))
    name = cursor.ident("an alias" if what == "ALIAS" else "a tag's name")
    cursor.expect("=")
    if what == "ALIAS":
        return SetAlias(name, parse_given(cursor, read_version))
    return SetTag(name, parse_value(cursor))


def _parse_unset(cursor: Cursor) -> Unset:
    """``ALIAS name``, ``TAG name`` or ``COMMENT``"""
    what = cursor.choose("setting", _SETTINGS)
    if what == "COMMENT":
        return Unset("comment")
    return Unset(what.lower(), cursor.ident("an alias" if what == "ALIAS" else "a tag's name"))


_SETTINGS = ("ALIAS", "TAG", "COMMENT")
_SET_EXAMPLES = {"ALIAS": "ALIAS champion = 3", "TAG": "TAG owner = 'me'", "COMMENT": "COMMENT 'a text'"}
_CHANGES: dict[str, Callable[[Cursor], Change]] = {"SET": _parse_setting, "UNSET": _parse_unset, "RENAME": _parse_rename}


def parse_drop_model(cursor: Cursor) -> DropModel:
    """``DROP MODEL [IF EXISTS] m[@3] [CASCADE]``"""
    cursor.expect("DROP", "MODEL")
    if_exists = cursor.accept("IF", "EXISTS")
    return DropModel(cursor.model_ref(), if_exists, cascade=cursor.accept("CASCADE"))


def parse_export(cursor: Cursor) -> Export:
    """``EXPORT MODEL m TO 'path' [FORMAT f] [WITH (…)]``"""
    cursor.expect("EXPORT", "MODEL")
    model = cursor.model_ref()
    found = parse_clauses(cursor, clauses.EXPORT_CLAUSES)
    if "path" not in found:
        cursor.fail("TO 'path'")
    return Export(model, **found)


def parse_export_endpoint(cursor: Cursor) -> ExportEndpoint:
    """``EXPORT ENDPOINT e TO 'folder' [FORMAT f] [WITH (…)]``"""
    cursor.expect("EXPORT", "ENDPOINT")
    endpoint = cursor.ident("an endpoint's name")
    found = parse_clauses(cursor, clauses.EXPORT_ENDPOINT_CLAUSES)
    if "path" not in found:
        cursor.fail("TO 'folder'")
    return ExportEndpoint(endpoint, **found)


def parse_import(cursor: Cursor) -> Import:
    """``IMPORT MODEL m FROM 'path' [WITH (…)]``"""
    cursor.expect("IMPORT", "MODEL")
    model = cursor.model_ref()
    found = parse_clauses(cursor, clauses.IMPORT_CLAUSES)
    if "path" not in found:
        cursor.fail("FROM 'path'")
    return Import(model, **found)


# --- jobs, resources -----------------------------------------------------------------------------------------------------


def parse_cancel(cursor: Cursor) -> CancelJob:
    """``CANCEL JOB n``"""
    cursor.expect("CANCEL", "JOB")
    return CancelJob(parse_given(cursor, read_job))


def parse_create_runner(cursor: Cursor) -> CreateResource:
    """``CREATE [OR REPLACE] RUNNER [IF NOT EXISTS] r TYPE t [WITH (…)]``"""
    return _parse_create(cursor, "TYPE and a type such as process or spark")


def parse_create_connection(cursor: Cursor) -> CreateResource:
    """``CREATE [OR REPLACE] CONNECTION [IF NOT EXISTS] c TYPE t [WITH (…)]``"""
    return _parse_create(cursor, "TYPE and a type such as postgres or spark")


def _parse_create(cursor: Cursor, expected: str) -> CreateResource:
    """CREATE of a runner or a connection; ``expected`` where its type is left out."""
    cursor.expect("CREATE")
    or_replace = cursor.accept("OR", "REPLACE")
    what = cursor.keyword().key.lower()
    start = cursor.peek().start
    if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
    if or_replace and if_not_exists:
        span = cursor.taken_since(start)
        raise DialectError("OR REPLACE and IF NOT EXISTS cannot stand together", cursor.text, span, hint="leave out one of them")
    name = cursor.ident(f"the {what}'s name")
    found = parse_clauses(cursor, clauses.RESOURCE_CLAUSES)
    if "type" not in found:
        cursor.fail(expected)
    return CreateResource(what, name, **found, or_replace=or_replace, if_not_exists=if_not_exists)


def parse_drop_runner(cursor: Cursor) -> DropResource:
    """``DROP RUNNER [IF EXISTS] r``"""
    return _parse_drop(cursor)


def parse_drop_connection(cursor: Cursor) -> DropResource:
    """``DROP CONNECTION [IF EXISTS] c [CASCADE]``"""
    return _parse_drop(cursor)


def _parse_drop(cursor: Cursor) -> DropResource:
    """DROP of a runner or a connection."""
    cursor.expect("DROP")
    what = cursor.keyword().key.lower()
    if_exists = cursor.accept("IF", "EXISTS")
    name = cursor.ident(f"the {what}'s name")
    if what == "runner" and cursor.at_words("CASCADE"):
        hint = "nothing hangs on a runner but the jobs that run on it: CANCEL JOB n ends one"
        cursor.fail("the end of the statement", message="DROP RUNNER takes no CASCADE", hint=hint)
    return DropResource(what, name, if_exists, cascade=cursor.accept("CASCADE"))


# --- SHOW and EXPLAIN ---------------------------------------------------------------------------------------------------


def parse_show(cursor: Cursor) -> Show:
    """``SHOW MODELS [LIKE '…']``, ``SHOW DEPLOYED FUNCTIONS``, ``SHOW API KEYS``, ``SHOW SERVER SETTINGS``"""
    cursor.expect("SHOW")
    cursor.accept("DEPLOYED")
    pair = next((pair for pair in SUBJECT_PAIRS if cursor.accept(*pair)), None)
    subject = "_".join(pair).lower() if pair else cursor.keyword().key.lower()
    return Show(subject, like=_parse_like(cursor))


def parse_show_versions(cursor: Cursor) -> Show:
    """``SHOW VERSIONS OF m [LIKE '…']``"""
    cursor.expect("SHOW", "VERSIONS", "OF")
    model = cursor.model_ref()
    return Show("versions", model, _parse_like(cursor))


def _parse_like(cursor: Cursor) -> Given[str | None]:
    """``LIKE '…'``, if it is there."""
    return parse_given(cursor, read_pattern) if cursor.accept("LIKE") else None


def parse_show_logs(cursor: Cursor) -> ShowLogs:
    """``SHOW LOGS FOR JOB n``"""
    cursor.expect("SHOW", "LOGS", "FOR", "JOB")
    return ShowLogs(parse_given(cursor, read_job))


def parse_show_create(cursor: Cursor) -> ShowCreateModel:
    """``SHOW CREATE MODEL m``"""
    cursor.expect("SHOW", "CREATE", "MODEL")
    return ShowCreateModel(cursor.model_ref())


def parse_explain_plan(cursor: Cursor) -> ExplainPlan:
    """``EXPLAIN [ANALYZE] [(FORMAT JSON)] statement of ours``"""
    cursor.expect("EXPLAIN")
    analyze = cursor.accept("ANALYZE")
    format_name: str | None = None
    if cursor.accept("("):
        for name, value in cursor.listed(lambda: _parse_explain_option(cursor)):
            analyze = value != "false" if name == "ANALYZE" else analyze
            format_name = value if name == "FORMAT" else format_name
        cursor.expect(")")
    parse = _find_unexplained(cursor)
    if parse is None:
        cursor.fail("a statement")
    return ExplainPlan(parse_statement(cursor, parse), analyze, format_name)


def _parse_explain_option(cursor: Cursor) -> tuple[str, str]:
    """``FORMAT JSON``, ``ANALYZE`` or ``ANALYZE false``"""
    name = cursor.choose("option of EXPLAIN", ("FORMAT", "ANALYZE"))
    if name == "FORMAT":
        return name, _parse_explain_format(cursor)
    return name, cursor.keyword().key.lower() if cursor.peek().key in {"TRUE", "FALSE"} else "true"


def _parse_explain_format(cursor: Cursor) -> str:
    """``TEXT`` or ``JSON``"""
    token = cursor.peek()
    name = cursor.ident("TEXT or JSON").name.lower()
    if name.upper() not in _PLAN_FORMATS:
        cursor.fail("TEXT or JSON", token, message=f"unknown format {describe(token)}", words=_PLAN_FORMATS)
    return name


_PLAN_FORMATS = ("TEXT", "JSON")


# --- recognition --------------------------------------------------------------------------------------------------------

STATEMENTS: dict[tuple[str, ...], Parse] = {
    ("TRAIN", "MODEL"): parse_train,
    ("EVALUATE", "MODEL"): parse_evaluate,
    ("EVALUATE", "ENDPOINT"): parse_evaluate_endpoint,
    ("COMPARE", "MODELS"): parse_compare,
    ("PREDICT", "MODEL"): parse_predict,
    ("EXPLAIN", "MODEL"): parse_explain_model,
    ("DEPLOY", "MODEL"): parse_deploy,
    ("DEPLOY", "QUERY"): parse_deploy_query,
    ("REFRESH", "ENDPOINT"): parse_refresh,
    ("UNDEPLOY", "ENDPOINT"): parse_undeploy,
    ("UNDEPLOY", "FUNCTION"): parse_undeploy_function,
    ("ALTER", "ENDPOINT"): parse_alter_endpoint,
    ("ALTER", "ENDPOINTS"): parse_alter_endpoints,
    ("ROLLBACK", "ENDPOINT"): parse_rollback,
    ("CREATE", "API", "KEY"): parse_create_key,
    ("ALTER", "API", "KEY"): parse_alter_key,
    ("DROP", "API", "KEY"): parse_drop_key,
    **{("SHOW", *pair): parse_show for pair in SUBJECT_PAIRS},
    ("SHOW", "VERSIONS", "OF"): parse_show_versions,
    ("SHOW", "LOGS", "FOR"): parse_show_logs,
    ("SHOW", "CREATE", "MODEL"): parse_show_create,
    **{("SHOW", subject): parse_show for subject in SUBJECTS},
    ("SHOW", "DEPLOYED", "FUNCTIONS"): parse_show,
    ("DESCRIBE", "MODEL"): parse_describe_model,
    ("DESC", "MODEL"): parse_describe_model,
    ("CANCEL", "JOB"): parse_cancel,
    ("ALTER", "MODEL"): parse_alter_model,
    ("DROP", "MODEL"): parse_drop_model,
    ("EXPORT", "MODEL"): parse_export,
    ("EXPORT", "ENDPOINT"): parse_export_endpoint,
    ("IMPORT", "MODEL"): parse_import,
    ("CREATE", "RUNNER"): parse_create_runner,
    ("CREATE", "CONNECTION"): parse_create_connection,
    ("CREATE", "OR", "REPLACE", "RUNNER"): parse_create_runner,
    ("CREATE", "OR", "REPLACE", "CONNECTION"): parse_create_connection,
    ("DROP", "RUNNER"): parse_drop_runner,
    ("DROP", "CONNECTION"): parse_drop_connection,
}
"""Every statement of ours by the words that open it; EXPLAIN before one of them is the only other form."""

EXAMPLES: dict[Parse, str] = {
    parse_train: "TRAIN MODEL churn TARGET left_us AS SELECT * FROM customers",
    parse_evaluate: "EVALUATE MODEL churn AS SELECT * FROM customers",
    parse_compare: "COMPARE MODELS churn@3, churn@4",
    parse_predict: "PREDICT MODEL churn INTO scores AS SELECT * FROM customers",
    parse_explain_model: "EXPLAIN MODEL churn TOP 5",
    parse_deploy: "DEPLOY MODEL churn TO ENDPOINT e",
    parse_deploy_query: "DEPLOY QUERY e AS SELECT (PREDICT_PROBA(a, 'yes') + PREDICT_PROBA(b, 'yes')) / 2 AS p",
    parse_refresh: "REFRESH ENDPOINT e",
    parse_undeploy: "UNDEPLOY ENDPOINT e",
    parse_undeploy_function: "UNDEPLOY FUNCTION churn FROM DATABASE pg",
    parse_alter_endpoint: "ALTER ENDPOINT e SET TRAFFIC (churn@3 = 90, churn@4 = 10)",
    parse_alter_endpoints: "ALTER ENDPOINTS SET (memory = '4 GB')",
    parse_rollback: "ROLLBACK ENDPOINT e",
    parse_evaluate_endpoint: "EVALUATE ENDPOINT e BY region",
    parse_create_key: "CREATE API KEY shop FOR ENDPOINT e WITH (rate_limit = 50, expires = '90 days')",
    parse_alter_key: "ALTER API KEY shop ROTATE WITH (grace = '1 hour')",
    parse_drop_key: "DROP API KEY shop",
    parse_show: "SHOW MODELS LIKE 'churn%'",
    parse_show_versions: "SHOW VERSIONS OF churn",
    parse_show_logs: "SHOW LOGS FOR JOB 3",
    parse_show_create: "SHOW CREATE MODEL churn",
    parse_describe_model: "DESCRIBE MODEL churn",
    parse_cancel: "CANCEL JOB 3",
    parse_alter_model: "ALTER MODEL churn SET ALIAS champion = 3",
    parse_drop_model: "DROP MODEL churn@3",
    parse_export: "EXPORT MODEL churn TO 'churn.onnx' FORMAT onnx",
    parse_export_endpoint: "EXPORT ENDPOINT e TO 'image' FORMAT docker",
    parse_import: "IMPORT MODEL churn FROM 'churn.onnx'",
    parse_create_runner: "CREATE RUNNER r TYPE process WITH (threads = 4)",
    parse_create_connection: "CREATE CONNECTION pg TYPE postgres WITH (url = 'postgresql://me@host/db', password_env = 'PGPASS')",
    parse_drop_runner: "DROP RUNNER r",
    parse_drop_connection: "DROP CONNECTION pg",
    parse_explain_plan: "EXPLAIN (FORMAT JSON) TRAIN MODEL churn TARGET left_us AS SELECT * FROM customers",
}
"""How each statement is written: the hint of an error that has none of its own."""

SHARED_VERBS = words("EXPLAIN ALTER REFRESH ROLLBACK SHOW DESCRIBE DESC DROP EXPORT IMPORT CREATE")
OWN_VERBS = {opening[0]: opening[1] for opening in reversed(STATEMENTS) if opening[0] not in SHARED_VERBS}  # the first counts
SQL_VERBS = SHARED_VERBS | words(
    """
    ABORT ANALYZE ATTACH BEGIN CALL CHECKPOINT CLOSE COMMENT COMMIT COPY DEALLOCATE DECLARE DELETE DETACH END EXECUTE FETCH
    FORCE FROM GRANT INSERT INSTALL LOAD LOCK MERGE MOVE PIVOT PRAGMA PREPARE REFRESH REINDEX RELEASE RESET REVOKE SAVEPOINT
    SELECT SET START SUMMARIZE TABLE TRUNCATE UNPIVOT UPDATE USE VACUUM VALUES WITH
    """
)


def find_statement(cursor: Cursor) -> Parse | None:
    """The function that reads the statement standing here, None when it is the database's."""
    parse = _find_unexplained(cursor)
    if parse is None and cursor.peek().key == "EXPLAIN" and _find_unexplained(behind_explain(cursor)):
        return parse_explain_plan
    return parse


def _find_unexplained(cursor: Cursor) -> Parse | None:
    """The same for a statement without EXPLAIN in front."""
    keys = tuple(cursor.peek(ahead).key for ahead in range(4))
    parse = next((found for length in (4, 3, 2) if (found := STATEMENTS.get(keys[:length]))), None)
    third = cursor.peek(2)
    if parse is parse_describe_model and third.kind not in NAMES:
        return None
    if parse is parse_show and third.key == ".":
        return None
    return parse


def behind_explain(cursor: Cursor) -> Cursor:
    """The place behind EXPLAIN, ANALYZE and the options in parentheses."""
    inner = Cursor(cursor.text, cursor.tokens, cursor.position + 1)
    inner.accept("ANALYZE")
    if inner.peek().key == "(":
        while inner.peek().kind is not Kind.END and not inner.accept(")"):
            inner.position += 1
    return inner
