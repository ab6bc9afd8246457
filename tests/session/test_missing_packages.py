"""What an installation without some extras says of them: which package, and how to get it; never a stack trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sqlml.native.trees import TreeKernel

pytestmark = pytest.mark.slow

WITHOUT = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Absent())
import sqlml

def said(action):
    try:
        action()
    except sqlml.Error as error:
        return [type(error).__name__, str(error)]
    return None

with sqlml.connect(sys.argv[2]) as connection:
    def run(text):
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else None

    answers = [said(lambda: run(text)) for text in sys.argv[3:]]
answers.append(said(lambda: sqlml.connect("postgresql://me@127.0.0.1:1/bank")))
print(json.dumps(answers))
"""
ABSENT = "xgboost,sklearn,torch,onnxruntime,psycopg,pyspark"
STATEMENTS = {
    "SELECT PREDICT(buys) FROM people": None if TreeKernel.available() else ("xgboost", "sqlml[cpu]"),
    "SELECT PREDICT_REASONS(buys, 1) FROM people": ("xgboost", "sqlml[cpu]"),
    "EXPLAIN MODEL buys": ("xgboost", "sqlml[cpu]"),
    "PREDICT MODEL buys INTO scores AS FROM people": None if TreeKernel.available() else ("xgboost", "sqlml[cpu]"),
    "TRAIN MODEL m TARGET bought ON inline AS FROM people": ("xgboost", "sqlml[cpu]"),
    "EXPLAIN TRAIN MODEL m USING mlp_classifier TARGET bought AS FROM people": ("torch", "sqlml[torch]"),
    "TRAIN MODEL m USING mlp_classifier TARGET bought AS FROM people": ("torch", "sqlml[torch]"),
    "TRAIN MODEL m USING linear_regression TARGET spent ON inline AS FROM people": ("scikit-learn", "scikit-learn"),
    "EXPORT MODEL spends TO '{folder}/spends.onnx' FORMAT onnx": ("onnxruntime", "sqlml[cpu]"),
    "CREATE RUNNER cluster TYPE spark": None,
    "SELECT * FROM cluster.t": ("pyspark", "sqlml[spark]"),
}


def test_each_is_named_with_what_installs_it(database: Path, tmp_path: Path) -> None:
    texts = [text.format(folder=tmp_path) for text in STATEMENTS]
    command = [sys.executable, "-c", WITHOUT, ABSENT, str(database), *texts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=160, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = [*STATEMENTS.values(), ("psycopg", "sqlml[postgres]")]
    for text, answer, package in zip([*texts, "connect"], json.loads(done.stdout), wanted, strict=True):
        if package is None:
            assert answer is None, text
            continue
        name, extra = package
        command_line = f'pip install "{extra}"' if "[" in extra else f"pip install {extra}"
        assert answer[0] == "MissingExtra", text
        assert answer[1].removeprefix("connection cluster: ").splitlines() == [
            f"the Python package {name} is not installed",
            f"  install it with: {command_line}",
        ], text
    assert "SELECT PREDICT" not in done.stderr


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_what_a_network_is_kept_and_answered_with_is_asked_for_before_it_is_trained(database: Path, package: str) -> None:
    statement = "EXPLAIN TRAIN MODEL m USING mlp_classifier TARGET bought AS FROM people"
    command = [sys.executable, "-c", WITHOUT, package, str(database), statement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=160, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kind, message = json.loads(done.stdout)[0]
    assert kind == "MissingExtra"
    assert message.splitlines()[0] == f"the Python package {package} is not installed"
    assert 'pip install "sqlml[cpu]"' in message
