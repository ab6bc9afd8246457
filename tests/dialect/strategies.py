"""Random trees: a strategy of hypothesis for each node."""

from datetime import timedelta
from typing import Any

import sqlml_dialect as n
from hypothesis import strategies as st

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ODD_NAMES = "m model target as using select label with if exists top append on by none null random 1a a$b"
NAMES = st.one_of(
    st.sampled_from(ODD_NAMES.split()),
    st.text(CHARACTERS, min_size=1, max_size=8),
)
IDENTS = st.builds(n.Ident, NAMES)
QUALIFIED = st.lists(IDENTS, min_size=1, max_size=3).map(lambda parts: n.QualifiedName(tuple(parts)))
NUMBERS = st.integers(1, 10**12)
MODELS = st.one_of(
    st.builds(n.ModelRef, QUALIFIED),
    st.builds(n.ModelRef, QUALIFIED, version=NUMBERS),
    st.builds(n.ModelRef, QUALIFIED, alias=NAMES),
)
TEXTS = st.text(CHARACTERS, max_size=12)
SQL = st.sampled_from(
    [
        "SELECT 1",
        "FROM t",
        "SELECT a AS b -- c\nFROM t",
        "WITH x AS (SELECT ';') FROM x",
        "(SELECT ?)",
        "TABLE t",
        "SELECT $$a;b$$",
    ]
)
QUERIES = st.builds(n.Query, SQL)
PLACEHOLDERS = st.builds(n.Placeholder, index=NUMBERS) | st.builds(n.Placeholder, name=st.sampled_from(["a", "b_1", "größe"]))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.timedeltas(),
    PLACEHOLDERS,
)


def _nested(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    structs = st.dictionaries(TEXTS, values, max_size=3).map(lambda items: n.Struct(tuple(items.items())))
    return st.one_of(st.lists(values, max_size=3).map(tuple), structs)


VALUES = st.recursive(SCALARS, _nested, max_leaves=6)


def _unique_options(options: list[n.Option]) -> tuple[n.Option, ...]:
    return tuple({option.name.name.lower(): option for option in options}.values())


def _some(strategy: st.SearchStrategy[Any], least: int = 1) -> st.SearchStrategy[Any]:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


OPTIONS = st.lists(st.builds(n.Option, IDENTS, VALUES), max_size=3).map(_unique_options)
MAYBE = st.none() | IDENTS
FRACTIONS = st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True) | PLACEHOLDERS
SPLITS = st.one_of(
    st.none(),
    st.just(n.SplitNone()),
    st.builds(n.SplitRandom, FRACTIONS),
    st.builds(n.SplitBy, IDENTS),
    st.builds(n.SplitTime, IDENTS, FRACTIONS),
)
SPACES = st.one_of(
    st.builds(n.TuneRange, IDENTS, SCALARS, SCALARS, st.booleans()), st.builds(n.TuneChoice, IDENTS, _some(VALUES))
)
METRICS = st.one_of(
    st.just({"direction": None, "metric": None}),
    st.fixed_dictionaries({"direction": st.sampled_from(["maximize", "minimize"]), "metric": IDENTS}),
)
TUNES = st.builds(
    lambda space, method, trials, metric: n.Tune(space, method, trials, **metric),
    _some(SPACES),
    st.sampled_from([None, "random", "grid", "bayesian"]),
    st.none() | NUMBERS | PLACEHOLDERS,
    METRICS,
)
LIMITS = st.builds(
    n.Limit,
    time=st.none() | st.timedeltas(timedelta(microseconds=1)) | PLACEHOLDERS,
    memory=st.none() | st.integers(1, 2**60) | PLACEHOLDERS,
    rows=st.none() | NUMBERS | PLACEHOLDERS,
).filter(lambda limit: limit != n.Limit())
SCALAR_SQL = ["a", "a + 1", "f(a, b)", "CAST(a AS INT)", "'x, y'", "[1, 2]", "a * 2 -- b,\n + 1", "ML.SCALER(a, ')') OVER ()"]
STAR_SQL = ["*", "t.*", "* EXCLUDE (a, b)", "* EXCEPT (a)", "* REPLACE (a + 1 AS a)", "* RENAME (a AS b)"]
EXPRESSIONS = st.builds(n.Expression, st.sampled_from(SCALAR_SQL), MAYBE) | st.builds(n.Expression, st.sampled_from(STAR_SQL))
INTO = st.none() | st.builds(n.Into, QUALIFIED, st.sampled_from(["create", "append", "replace"]))
CHANGES = st.one_of(
    st.builds(n.SetAlias, IDENTS, NUMBERS | PLACEHOLDERS),
    st.builds(n.SetTag, IDENTS, VALUES),
    st.builds(n.SetComment, st.none() | TEXTS | PLACEHOLDERS),
    st.builds(n.RenameTo, QUALIFIED),
    st.builds(n.Unset, st.sampled_from(["alias", "tag"]), IDENTS),
    st.just(n.Unset("comment")),
)
SUBJECTS = st.sampled_from(
    ["models", "runs", "jobs", "endpoints", "algorithms", "runners", "connections", "functions", "api_keys", "server_settings"]
)
RESOURCES = st.sampled_from(["runner", "connection"])
FORMATS = st.none() | st.sampled_from(["onnx", "sql", "native", "bundle", "as"])
STRATEGIES: dict[type, st.SearchStrategy[Any]] = {
    n.Train: st.builds(
        n.Train,
        st.builds(n.ModelRef, QUALIFIED),
        QUERIES,
        algorithm=MAYBE,
        target=_some(IDENTS, 0),
        transform=_some(EXPRESSIONS, 0),
        exclude=_some(IDENTS, 0),
        weight=MAYBE,
        key=_some(IDENTS, 0),
        split=SPLITS,
        validate=st.none() | QUERIES,
        tune=st.none() | TUNES,
        warm_start=st.none() | MODELS,
        limit=st.none() | LIMITS,
        options=OPTIONS,
        runner=MAYBE,
        asynchronous=st.booleans(),
    ),
    n.Evaluate: st.builds(n.Evaluate, MODELS, _some(IDENTS, 0), OPTIONS, st.none() | QUERIES),
    n.CompareModels: st.builds(n.CompareModels, _some(MODELS, 2), OPTIONS, st.none() | QUERIES),
    n.Predict: st.builds(n.Predict, MODELS, QUERIES, INTO, OPTIONS, MAYBE, st.booleans()),
    n.ExplainModel: st.builds(n.ExplainModel, MODELS, st.none() | NUMBERS | PLACEHOLDERS, INTO, st.none() | QUERIES),
    n.Deploy: st.builds(n.Deploy, MODELS, MAYBE, OPTIONS, MAYBE),
    n.DeployQuery: st.builds(n.DeployQuery, IDENTS, QUERIES, OPTIONS),
    n.RefreshEndpoint: st.builds(n.RefreshEndpoint, IDENTS),
    n.Undeploy: st.builds(n.Undeploy, IDENTS, st.booleans()),
    n.DeployFunction: st.builds(n.DeployFunction, MODELS, MAYBE, st.none() | QUALIFIED),
    n.UndeployFunction: st.builds(n.UndeployFunction, QUALIFIED, MAYBE),
    n.AlterEndpoint: st.builds(
        n.AlterEndpoint,
        IDENTS,
        st.builds(n.SetTraffic, _some(st.tuples(NUMBERS | MODELS, VALUES))) | st.builds(n.SetOptions, OPTIONS),
    ),
    n.AlterApiKey: st.builds(n.AlterApiKey, IDENTS, OPTIONS),
    n.AlterEndpoints: st.builds(n.AlterEndpoints, OPTIONS),
    n.EvaluateEndpoint: st.builds(n.EvaluateEndpoint, IDENTS, _some(IDENTS, 0), OPTIONS),
    n.CreateApiKey: st.builds(n.CreateApiKey, IDENTS, _some(IDENTS, 0), OPTIONS),
    n.RotateApiKey: st.builds(n.RotateApiKey, IDENTS, OPTIONS),
    n.DropApiKey: st.builds(n.DropApiKey, IDENTS, st.booleans()),
    n.RollbackEndpoint: st.builds(n.RollbackEndpoint, IDENTS),
    n.Show: st.builds(n.Show, SUBJECTS, like=st.none() | TEXTS | PLACEHOLDERS)
    | st.builds(n.Show, st.just("versions"), MODELS, st.none() | TEXTS | PLACEHOLDERS),
    n.ShowLogs: st.builds(n.ShowLogs, NUMBERS | PLACEHOLDERS),
    n.ShowCreateModel: st.builds(n.ShowCreateModel, MODELS),
    n.DescribeModel: st.builds(n.DescribeModel, MODELS),
    n.CancelJob: st.builds(n.CancelJob, NUMBERS | PLACEHOLDERS),
    n.AlterModel: st.builds(n.AlterModel, MODELS, CHANGES),
    n.DropModel: st.builds(n.DropModel, MODELS, st.booleans(), st.booleans()),
    n.Export: st.builds(n.Export, MODELS, TEXTS | PLACEHOLDERS, FORMATS, OPTIONS),
    n.ExportEndpoint: st.builds(n.ExportEndpoint, IDENTS, TEXTS | PLACEHOLDERS, FORMATS, OPTIONS),
    n.Import: st.builds(n.Import, MODELS, TEXTS | PLACEHOLDERS, OPTIONS),
    n.CreateResource: st.builds(n.CreateResource, RESOURCES, IDENTS, IDENTS, OPTIONS, st.booleans())
    | st.builds(n.CreateResource, RESOURCES, IDENTS, IDENTS, OPTIONS, if_not_exists=st.booleans()),
    n.DropResource: st.builds(n.DropResource, RESOURCES, IDENTS, st.booleans())
    | st.builds(n.DropResource, st.just("connection"), IDENTS, st.booleans(), st.booleans()),
}
STATEMENTS = st.one_of(*STRATEGIES.values())
PLANS = st.builds(n.ExplainPlan, STATEMENTS, st.booleans(), st.none() | st.sampled_from(["json", "text"]))
