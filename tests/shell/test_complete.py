"""What Tab offers; a bar marks the cursor."""

from __future__ import annotations

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from sqlml.dbapi import Names
from sqlml.shell.commands import COMMANDS
from sqlml.shell.complete import SqlCompleter
from sqlml.shell.highlight import fragments

NAMES = Names(
    ("bank", "My table"),
    ("age", "job", "y"),
    ("deposit", "deposit@1", "deposit@champion"),
    ("deposit_api",),
    ("pg",),
    ("big",),
    ("shop",),
)


def offered(text: str) -> list[str]:
    completer = SqlCompleter(lambda: NAMES, lambda: ("abs", "array_agg", "avg"), [(name, c.doc) for name, c in COMMANDS.items()])
    return [completion.text for completion in completer.get_completions(Document(text), CompleteEvent())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TR", ["TRAIN MODEL"]),
        ("tr", ["train model"]),
        ("SELECT 1; UND", ["UNDEPLOY ENDPOINT", "UNDEPLOY FUNCTION"]),
        ("DEPLOY MODEL deposit TO", ["TO ENDPOINT", "TO DATABASE"]),
        ("DEPLOY MODEL deposit TO DATABASE ", ["pg"]),
        ("UNDEPLOY FUNCTION f FROM DATABASE ", ["pg"]),
        ("CREATE CONNECTION c TYPE ", ["postgres", "sqlalchemy", "spark"]),
        ("CREATE OR REPLACE RUNNER r TYPE pr", ["process"]),
        ("CREATE CONNECTION c TYPE postgres WITH (pass", ["password_env = ", "password_file = "]),
        ("CREATE RUNNER r TYPE process WITH (th", ["threads = "]),
        ("CREATE RUNNER r TYP", ["TYPE"]),
        ("DROP CONNECTION ", ["pg"]),
        ("DROP RUNNER b", ["big"]),
        ("TRAIN MODEL m TARGET y ON b", ["big"]),
        ("SHOW D", ["DEPLOYED FUNCTIONS"]),
        ("EVALUATE MODEL ", ["deposit", "deposit@1", "deposit@champion"]),
        ("DEPLOY MODEL deposit@", ["deposit@1", "deposit@champion"]),
        ("DEPLOY MODEL deposit@ch", ["deposit@champion"]),
        ("SELECT PREDICT(de", ["deposit", "deposit@1", "deposit@champion"]),
        ("SHOW VERSIONS OF d", ["deposit", "deposit@1", "deposit@champion"]),
        ("UNDEPLOY ENDPOINT ", ["deposit_api"]),
        ("UNDEPLOY ENDPOINT IF EXISTS ", ["deposit_api"]),
        ("UNDEPLOY ENDPOINT e ", []),
        ("ROLLBACK ENDPOINT ", ["deposit_api"]),
        ("SHOW EN", ["ENDPOINTS"]),
        ("SHOW AP", ["API KEYS"]),
        ("SHOW SE", ["SERVER SETTINGS"]),
        ("DEPLOY MODEL deposit WITH (tr", ["traffic = "]),
        ("DEPLOY MODEL deposit WITH (auth = ", ["'none'", "'key'"]),
        ("DEPLOY MODEL deposit WITH (shadow = ", ["true", "false"]),
        ("ALTER ENDPOINT ", ["deposit_api"]),
        ("ALTER ENDPOINT deposit_api ", ["SET (", "SET TRAFFIC ("]),
        ("ALTER ENDPOINT deposit_api SET (rep", ["replicas = "]),
        ("ALTER ENDPOINT deposit_api SET TRAFFIC (", ["deposit", "deposit@1", "deposit@champion"]),
        ("ALTER ENDPOINT deposit_api SET TRAFFIC (deposit@1 = 90, deposit@ch", ["deposit@champion"]),
        ("EVALUATE ENDPOINT ", ["deposit_api"]),
        ("EVALUATE ENDPOINT deposit_api ", ["BY", "WITH ("]),
        ("EVALUATE ENDPOINT deposit_api WITH (l", ["last = "]),
        ("CREATE API KEY ", []),
        ("CREATE API KEY k F", ["FOR ENDPOINT", "FOR ALL ENDPOINTS"]),
        ("CREATE API KEY k FOR ENDPOINT ", ["deposit_api"]),
        ("CREATE API KEY k FOR ENDPOINT deposit_api WITH (r", ["rate_limit = "]),
        ("ALTER API KEY ", ["shop"]),
        ("ALTER API KEY shop R", ["ROTATE"]),
        ("ALTER API KEY shop ROTATE WITH (g", ["grace = "]),
        ("DROP API KEY ", ["shop"]),
        ("SELECT * FROM ", ["bank", '"My table"', "MODEL", "ML."]),
        ("SELECT * FROM ba", ["bank"]),
        ("TRAIN MODEL m USING xgboost_c", ["xgboost_classifier"]),
        ("TRAIN MODEL m TARGET ", ["age", "job", "y"]),
        ("TRAIN MODEL m TARGET y EXCLUDE (age, ", ["age", "job", "y"]),
        ("TRAIN MODEL m TARGET y ON in", ["inline"]),
        ("TRAIN MODEL m TARGET y SPL", ["SPLIT RANDOM", "SPLIT BY", "SPLIT TIME", "SPLIT NONE"]),
        ("TRAIN MODEL m TARGET y TRA", ["TRANSFORM ("]),
        ("TRAIN MODEL m WARM START FROM d", ["deposit", "deposit@1", "deposit@champion"]),
        ("TRAIN MODEL m TARGET y TRANSFORM (ML.STAND", ["STANDARD_SCALER("]),
        ("COM", ["COMPARE MODELS", "COMMIT"]),
        ("COMPARE MODELS ", ["deposit", "deposit@1", "deposit@champion"]),
        ("COMPARE MODELS deposit@1, deposit@ch", ["deposit@champion"]),
        ("EXPORT MODEL deposit FOR", ["FORMAT BUNDLE", "FORMAT ONNX", "FORMAT NATIVE", "FORMAT SQL"]),
        ("EXPORT ENDPOINT ", ["deposit_api"]),
        ("EXPORT ENDPOINT deposit_api FOR", ["FORMAT DOCKER", "FORMAT KUBERNETES", "FORMAT KSERVE"]),
        ("EXP", ["EXPLAIN MODEL", "EXPORT MODEL", "EXPORT ENDPOINT", "EXPLAIN", "EXPLAIN ANALYZE", "EXPORT DATABASE"]),
        ("IMPORT MODEL ", ["deposit", "deposit@1", "deposit@champion"]),
        ("CANC", ["CANCEL JOB"]),
        ("ALTER MODEL deposit UNS", ["UNSET ALIAS", "UNSET TAG", "UNSET COMMENT"]),
        ("SELECT * FROM ML.RO", ["ROC_CURVE(MODEL"]),
        ("SELECT * FROM ML.ROC_CURVE(MODEL de", ["deposit", "deposit@1", "deposit@champion"]),
        ("SELECT a FROM b JOIN c USING (a) WHERE ab", ["abs("]),
        ("SELECT PREDICT_R", ["PREDICT_REASONS("]),
        ("\\", sorted(COMMANDS, key=list(COMMANDS).index)),
        ("\\f c", ["csv"]),
        ("\\d ba", ["bank"]),
        ("\\m dep", ["deposit", "deposit@1", "deposit@champion"]),
    ],
)
def test_offered(text: str, expected: list[str]) -> None:
    assert offered(text) == expected


def test_options_of_the_algorithm() -> None:
    assert "max_depth = " in offered("TRAIN MODEL m USING xgboost_classifier WITH (")
    assert offered("TRAIN MODEL m USING xgboost_classifier WITH (max_dep") == ["max_depth = "]
    assert offered("TRAIN MODEL m USING nonsense WITH (") == []


def test_paths_in_quotes(tmp_path: object) -> None:
    folder = str(tmp_path)
    with open(f"{folder}/bank_marketing.csv", "w"):
        assert offered(f"CREATE TABLE b AS FROM '{folder}/bank_m") == ["arketing.csv"]
        assert offered(f"\\i {folder}/bank_m") == ["arketing.csv"]


@pytest.mark.parametrize("text", ["SELECT 'a\nb', 1.5 -- x\nFROM t;", "/* open", "$$ open", "'", "", "a /* b */ c", "日本 = ?"])
def test_colours_never_change_the_text(text: str) -> None:
    assert "".join(part for _, part in fragments(text)) == text


def test_colours() -> None:
    styles = {part: style for style, part in fragments("TRAIN MODEL m WITH (a = 1) AS SELECT 'x', NULL -- why\n")}
    assert styles["TRAIN"] == styles["SELECT"] == "class:keyword"
    assert (styles["m"], styles["1"], styles["'x'"], styles["NULL"]) == ("", "class:number", "class:string", "class:number")
    assert styles[" -- why\n"] == "class:comment"
