"""The statements of ours: which words open each, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from sqlml_dialect import clauses
from sqlml_dialect.clauses import parse_clauses
from sqlml_dialect.cursor import NAMES, Cursor, describe, nearest
from sqlml_dialect.errors import DialectError
from sqlml_dialect.nodes import (
    AlterEndpoint,
    AlterModel,
    CancelJob,
    CreateResource,
    Deploy,
    DescribeModel,
    DropModel,
    DropResource,
    Evaluate,
    ExplainModel,
    ExplainPlan,
    Export,
    Import,
    ModelRef,
    Node,
    Predict,
    RenameTo,
    RollbackEndpoint,
    SetAlias,
    SetComment,
    SetTag,
    Show,
    ShowCreateModel,
    ShowLogs,
    Train,
    Undeploy,
    Value,
)
from sqlml_dialect.tokens import Kind, words
from sqlml_dialect.values import parse_value

Parse = Callable[[Cursor], Node]

SUBJECTS = ("MODELS", "RUNS", "JOBS", "ENDPOINTS", "ALGORITHMS", "RUNNERS")


def parse_statement(cursor: Cursor, parse: Parse) -> Node:
    """Read a statement of ours to its end."""
    start = cursor.peek().start
    node = parse(cursor)
    if cursor.peek().kind is not Kind.END:
        cursor.fail("the end of the statement")
    return replace(node, span=(start, cursor.last_end()))


# --- models -----------------------------------------------------------------------------------------------------------


def parse_train(cursor: Cursor) -> Train:
    """``TRAIN MODEL name … AS query``"""
    cursor.expect("TRAIN", "MODEL")
    model = cursor.model_ref()
    if model.version is not None or model.alias is not None:
        raise DialectError(
            "TRAIN MODEL takes a name without a version",
            cursor.text,
            model.span,
            hint=f"TRAIN always adds the next version of {model.name.text}",
        )
    return Train(model, **parse_clauses(cursor, clauses.TRAIN_CLAUSES, query=True))


def parse_evaluate(cursor: Cursor) -> Evaluate:
    """``EVALUATE MODEL m [BY column] [WITH (…)] [AS query]``"""
    cursor.expect("EVALUATE", "MODEL")
    return Evaluate(cursor.model_ref(), **parse_clauses(cursor, clauses.EVALUATE_CLAUSES))


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
    cursor.position += 2
    return DescribeModel(cursor.model_ref())


def parse_alter_model(cursor: Cursor) -> AlterModel:
    """``ALTER MODEL m SET ALIAS … | SET TAG … | SET COMMENT … | RENAME TO …``"""
    cursor.expect("ALTER", "MODEL")
    model = cursor.model_ref()
    start = cursor.peek().start
    rename = cursor.choose("change", ("SET", "RENAME")) == "RENAME"
    action = _parse_rename(cursor) if rename else _parse_setting(cursor)
    return AlterModel(model, replace(action, span=cursor.taken_since(start)))


def _parse_rename(cursor: Cursor) -> RenameTo:
    """``TO name``"""
    cursor.expect("TO")
    return RenameTo(cursor.qualified_name("the new name"))


def _parse_setting(cursor: Cursor) -> SetAlias | SetTag | SetComment:
    """``ALIAS name = version``, ``TAG name = value`` or ``COMMENT 'text'``"""
    what = cursor.choose("setting", ("ALIAS", "TAG", "COMMENT"))
    if what == "COMMENT":
        return SetComment(None if cursor.accept("NULL") else cursor.string("a text in single quotes, or NULL"))
    name = cursor.ident("an alias" if what == "ALIAS" else "a tag's name")
    cursor.expect("=")
    if what == "ALIAS":
        return SetAlias(name, cursor.integer("a version's number", least=1))
    return SetTag(name, parse_value(cursor))


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


def parse_import(cursor: Cursor) -> Import:
    """``IMPORT MODEL m FROM 'path' [WITH (…)]``"""
    cursor.expect("IMPORT", "MODEL")
    model = cursor.model_ref()
    found = parse_clauses(cursor, clauses.IMPORT_CLAUSES)
    if "path" not in found:
        cursor.fail("FROM 'path'")
    return Import(model, **found)


# --- endpoints, jobs, resources -----------------------------------------------------------------------------------------


def parse_deploy(cursor: Cursor) -> Deploy:
    """``DEPLOY MODEL m [TO ENDPOINT e] [WITH (…)] [ON runner]``"""
    cursor.expect("DEPLOY", "MODEL")
    return Deploy(cursor.model_ref(), **parse_clauses(cursor, clauses.DEPLOY_CLAUSES))


def parse_undeploy(cursor: Cursor) -> Undeploy:
    """``UNDEPLOY ENDPOINT e``"""
    cursor.expect("UNDEPLOY", "ENDPOINT")
    return Undeploy(cursor.ident("an endpoint's name"))


def parse_rollback(cursor: Cursor) -> RollbackEndpoint:
    """``ROLLBACK ENDPOINT e``"""
    cursor.expect("ROLLBACK", "ENDPOINT")
    return RollbackEndpoint(cursor.ident("an endpoint's name"))


def parse_alter_endpoint(cursor: Cursor) -> AlterEndpoint:
    """``ALTER ENDPOINT e SET TRAFFIC (m@3 = 90, 1 = 10)``"""
    cursor.expect("ALTER", "ENDPOINT")
    endpoint = cursor.ident("an endpoint's name")
    cursor.expect("SET", "TRAFFIC")
    return AlterEndpoint(endpoint, cursor.in_parens(lambda: _parse_share(cursor)))


def _parse_share(cursor: Cursor) -> tuple[ModelRef | int, Value]:
    """``m@3 = 90`` or ``3 = 90``"""
    bare = cursor.peek().kind is Kind.NUMBER
    version = cursor.integer("a version's number", least=1) if bare else cursor.model_ref()
    cursor.expect("=")
    return version, parse_value(cursor)


def parse_cancel(cursor: Cursor) -> CancelJob:
    """``CANCEL JOB n``"""
    cursor.expect("CANCEL", "JOB")
    return CancelJob(cursor.integer("a job's number"))


def parse_create_resource(cursor: Cursor) -> CreateResource:
    """``CREATE RUNNER r TYPE t WITH (…)``, ``CREATE CONNECTION c TYPE t WITH (…)``"""
    cursor.expect("CREATE")
    what = cursor.take().key.lower()
    name = cursor.ident(f"the {what}'s name")
    found = parse_clauses(cursor, clauses.RESOURCE_CLAUSES)
    if "type" not in found:
        cursor.fail("TYPE and a type such as process or spark")
    return CreateResource(what, name, **found)


def parse_drop_resource(cursor: Cursor) -> DropResource:
    """``DROP RUNNER [IF EXISTS] r``, ``DROP CONNECTION [IF EXISTS] c``"""
    cursor.expect("DROP")
    what = cursor.take().key.lower()
    if_exists = cursor.accept("IF", "EXISTS")
    return DropResource(what, cursor.ident(f"the {what}'s name"), if_exists)


# --- SHOW and EXPLAIN ---------------------------------------------------------------------------------------------------


def parse_show(cursor: Cursor) -> Show:
    """``SHOW MODELS [LIKE '…']``"""
    cursor.expect("SHOW")
    return Show(cursor.take().key.lower(), like=_parse_like(cursor))


def parse_show_versions(cursor: Cursor) -> Show:
    """``SHOW VERSIONS OF m [LIKE '…']``"""
    cursor.expect("SHOW", "VERSIONS", "OF")
    model = cursor.model_ref()
    return Show("versions", model, _parse_like(cursor))


def _parse_like(cursor: Cursor) -> str | None:
    """``LIKE '…'``, if it is there."""
    return cursor.string("a pattern in single quotes") if cursor.accept("LIKE") else None


def parse_show_logs(cursor: Cursor) -> ShowLogs:
    """``SHOW LOGS FOR JOB n``"""
    cursor.expect("SHOW", "LOGS", "FOR", "JOB")
    return ShowLogs(cursor.integer("a job's number"))


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
        return name, cursor.ident("a format such as JSON").name.lower()
    return name, cursor.take().key.lower() if cursor.peek().key in {"TRUE", "FALSE"} else "true"


# --- recognition --------------------------------------------------------------------------------------------------------

STATEMENTS: dict[tuple[str, ...], Parse] = {
    ("TRAIN", "MODEL"): parse_train,
    ("EVALUATE", "MODEL"): parse_evaluate,
    ("PREDICT", "MODEL"): parse_predict,
    ("EXPLAIN", "MODEL"): parse_explain_model,
    ("DEPLOY", "MODEL"): parse_deploy,
    ("UNDEPLOY", "ENDPOINT"): parse_undeploy,
    ("ALTER", "ENDPOINT"): parse_alter_endpoint,
    ("ROLLBACK", "ENDPOINT"): parse_rollback,
    ("SHOW", "VERSIONS", "OF"): parse_show_versions,
    ("SHOW", "LOGS", "FOR"): parse_show_logs,
    ("SHOW", "CREATE", "MODEL"): parse_show_create,
    **{("SHOW", subject): parse_show for subject in SUBJECTS},
    ("DESCRIBE", "MODEL"): parse_describe_model,
    ("DESC", "MODEL"): parse_describe_model,
    ("CANCEL", "JOB"): parse_cancel,
    ("ALTER", "MODEL"): parse_alter_model,
    ("DROP", "MODEL"): parse_drop_model,
    ("EXPORT", "MODEL"): parse_export,
    ("IMPORT", "MODEL"): parse_import,
    ("CREATE", "RUNNER"): parse_create_resource,
    ("CREATE", "CONNECTION"): parse_create_resource,
    ("DROP", "RUNNER"): parse_drop_resource,
    ("DROP", "CONNECTION"): parse_drop_resource,
}
"""Every statement of ours by the words that open it; EXPLAIN before one of them is the only other form."""

SHARED_VERBS = frozenset({"EXPLAIN", "ALTER", "ROLLBACK", "SHOW", "DESCRIBE", "DESC", "DROP", "EXPORT", "IMPORT", "CREATE"})
OWN_VERBS = {opening[0]: opening[1] for opening in STATEMENTS if opening[0] not in SHARED_VERBS}
SQL_VERBS = SHARED_VERBS | words(
    """
    ABORT ANALYZE ATTACH BEGIN CALL CHECKPOINT CLOSE COMMENT COMMIT COPY DEALLOCATE DECLARE DELETE DETACH END EXECUTE FETCH
    FORCE FROM GRANT INSERT INSTALL LOAD LOCK MERGE MOVE PIVOT PRAGMA PREPARE REFRESH REINDEX RELEASE RESET REVOKE SAVEPOINT
    SELECT SET START SUMMARIZE TABLE TRUNCATE UNPIVOT UPDATE USE VACUUM VALUES WITH
    """
)
_CLAUSE_WORDS = frozenset(clauses.TRAIN_CLAUSES) | {"INTO", "BY", "TO"}
_SIMILARITY = 0.75


def find_statement(cursor: Cursor) -> Parse | None:
    """The function that reads the statement standing here, None when it is the database's."""
    parse = _find_unexplained(cursor)
    if parse is None and cursor.peek().key == "EXPLAIN" and _find_unexplained(_behind_explain(cursor)):
        return parse_explain_plan
    return parse


def _find_unexplained(cursor: Cursor) -> Parse | None:
    """The same for a statement without EXPLAIN in front."""
    first, second, third = (cursor.peek(ahead) for ahead in range(3))
    parse = STATEMENTS.get((first.key, second.key, third.key)) or STATEMENTS.get((first.key, second.key))
    if parse is parse_describe_model and third.kind not in NAMES:
        return None
    if parse is parse_show and third.key == ".":
        return None
    return parse


def check_near_miss(cursor: Cursor) -> None:
    """Raise for a statement that the database cannot mean and that nearly is one of ours, such as TRIAN MODEL."""
    _check_unexplained(cursor)
    if cursor.peek().key == "EXPLAIN":
        _check_unexplained(_behind_explain(cursor))


def _check_unexplained(cursor: Cursor) -> None:
    """The same for a statement without EXPLAIN in front."""
    first, second, third = (cursor.peek(ahead) for ahead in range(3))
    if first.kind is not Kind.WORD:
        return
    for opening in STATEMENTS:
        if (first.key == opening[0] or first.key not in SQL_VERBS) and _nearly_opens(cursor, opening):
            _fail_near(cursor, opening)
    noun = OWN_VERBS.get(first.key)
    if noun and second.kind in (*NAMES, Kind.NUMBER) and (third.kind is Kind.END or third.key in {*_CLAUSE_WORDS, "@", "."}):
        _fail_near(cursor, (first.key, noun))


def _nearly_opens(cursor: Cursor, opening: tuple[str, ...]) -> bool:
    """Whether each word here is like the one of an opening, not all the same, and then a name or value follows."""
    follows = cursor.peek(len(opening)).kind in (*NAMES, Kind.NUMBER, Kind.STRING)
    return (follows and not cursor.at_words(*opening)) and all(
        token.kind is Kind.WORD and (token.key == word or nearest(token.key, (word,), _SIMILARITY) is not None)
        for token, word in ((cursor.peek(ahead), word) for ahead, word in enumerate(opening))
    )


def _fail_near(cursor: Cursor, opening: tuple[str, ...]) -> NoReturn:
    """Point at the first word that is not as it should be."""
    wrong = next(ahead for ahead, word in enumerate(opening) if cursor.peek(ahead).key != word)
    token = cursor.peek(wrong)
    meant = " ".join(opening)
    raise DialectError(
        f"expected {opening[wrong]}, found {describe(token)}",
        cursor.text,
        (token.start, token.end),
        opening[wrong],
        f"did you mean {meant}?",
    )


def _behind_explain(cursor: Cursor) -> Cursor:
    """The place behind EXPLAIN, ANALYZE and the options in parentheses."""
    inner = Cursor(cursor.text, cursor.tokens, cursor.position + 1)
    inner.accept("ANALYZE")
    if inner.peek().key == "(":
        while inner.peek().kind is not Kind.END and not inner.accept(")"):
            inner.position += 1
    return inner
