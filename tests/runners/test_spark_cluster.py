"""Spark outside the tests' own session: a cluster of processes that loses one, and a server of Spark Connect.

Each is a process of its own, since a process can have one Spark only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs import make_job, train, write_arrow

pytestmark = pytest.mark.slow

LOSING = """
import json, os, sys
from pathlib import Path
import psutil
from sqlml.plan import JobSpec
from sqlml_runners.spark.runner import SparkRunner

def executors():
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found += [process] if "CoarseGrainedExecutorBackend" in " ".join(process.cmdline()) else []
        except psutil.Error:
            continue
    return found

def follow(event):
    if event["event"] == "step" and event["step"] >= 2 and not killed:
        killed.append(executors()[0])
        killed[0].kill()

killed = []
quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # no time for Java to optimise what runs once
config = {
    "spark.sql.shuffle.partitions": 2, "spark.sql.codegen.wholeStage": False, "spark.sql.adaptive.enabled": False,
    "spark.driver.extraJavaOptions": quick, "spark.executor.extraJavaOptions": quick,
}
runner = SparkRunner("cluster", {"master": "local-cluster[2,1,1024]", "config": config})
session = runner.session()
spec = JobSpec.from_json(json.loads(Path(sys.argv[1]).read_text()))
try:
    runner.submit(spec).wait(follow)
finally:
    print(json.dumps([session.sparkContext.applicationId, os.environ.get("SPARK_HOME"), len(killed)]))
    session.stop()
"""


@pytest.mark.timeout(300)
def test_a_worker_is_killed_while_a_model_is_trained(tmp_path: Path) -> None:
    """Those that train together begin anew with another worker, and the job ends as if nothing had been."""
    n = range(700)
    table = pa.table({"a": [i % 91 / 2 for i in n], "b": [i % 7 for i in n], "t": [str(i % 3 > 0) for i in n]})
    spec = make_job(tmp_path / "job", table, "t", "xgboost_classifier", options={"n_estimators": 400, "max_depth": 2})
    document = tmp_path / "job.json"
    document.write_text(json.dumps(spec.to_json(), default=str), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", LOSING, str(document)], capture_output=True, text=True, timeout=280, check=False)
    _remove_work(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])[2] == 1
    result = json.loads((spec.folder / "result.json").read_text(encoding="utf-8"))
    assert result["rows"] == 560
    assert "the cluster lost a worker: the training begins anew" in result["notes"]
    assert (spec.folder / "bundle" / "manifest.json").is_file()


def _remove_work(printed: str) -> None:
    """What Spark's workers leave in its own folder."""
    import pyspark

    application = json.loads(printed.splitlines()[-1])[0] if printed.strip() else ""
    if application:
        shutil.rmtree(Path(pyspark.__file__).parent / "work" / application, ignore_errors=True)


SERVER = """
import os, sys
from pyspark.sql import SparkSession
from sqlml.spark_common.java import find_java
os.environ["JAVA_HOME"], os.environ["PYSPARK_PYTHON"] = str(find_java()), sys.executable
session = SparkSession.builder.remote("local[2]").config("spark.sql.shuffle.partitions", "2").getOrCreate()
print(os.environ.get("SPARK_CONNECT_AUTHENTICATE_TOKEN", ""), flush=True)
sys.stdin.read()
"""
CLIENT = """
import json, sys
from pathlib import Path
from sqlml.engines.spark.engine import SparkEngine
from sqlml.errors import Error
from sqlml.plan import JobSpec
from sqlml_runners.spark.runner import SparkRunner

server = {"connect": "sc://localhost:15002"}
one, two = SparkEngine.open(server), SparkEngine.open(server)
one.close()
print(two.table_rows(["range", "nothing"]), [b.num_rows for b in two.run("SELECT 1 AS a").batches])
wrong = ("SELECT agee FROM (SELECT 1 AS age)", 'SELECT "x" FROM\\n  nowhere', "SELECT 1 FRO t", "SELECT CAST('a' AS INT) AS b")
for text in wrong:
    try:
        list(two.run(text).batches)
    except Error as error:
        print(text[slice(*error.span)] if error.span else None, text is error.source)
two.close()
print(two.session.is_stopped)
runner = SparkRunner("server", server)
for document in sys.argv[1:]:
    spec = JobSpec.from_json(json.loads(Path(document).read_text()))
    try:
        runner.submit(spec).wait(lambda _: None)
        print("done")
    except Error as error:
        print(error.message)
"""


@pytest.mark.timeout(300)
def test_spark_connect_predicts_and_says_that_it_does_not_train(tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="Spark Connect needs grpcio")
    table = pa.table({"a": list(range(300)), "t": [str(i % 3 > 0) for i in range(300)]})
    training = make_job(tmp_path / "train", table, "t", "xgboost_classifier", options={"n_estimators": 3})
    model, outcome, _ = train(tmp_path / "model", table, "t", "xgboost_classifier", options={"n_estimators": 3})
    (tmp_path / "predict").mkdir()
    write_arrow(tmp_path / "predict" / "rows.arrow", table)
    plan = {
        "model": "m", "version": 1, "bundle": str(model.folder), "sha256": outcome.bundle_sha256, "limits": {},
        "runner": "server", "statement": "PREDICT MODEL m", "into": None, "mode": "create",
    }  # fmt: skip
    documents = [
        {"id": 1, "kind": "predict", "folder": str(tmp_path / "predict"), "plan": plan},
        training.to_json(),
    ]
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path, document in zip(paths, documents, strict=True):
        path.write_text(json.dumps(document, default=str), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        environment = os.environ | {"SPARK_CONNECT_AUTHENTICATE_TOKEN": server.stdout.readline().strip()}
        command = [sys.executable, "-c", CLIENT, *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)
        assert server.stdin is not None
        server.stdin.close()
        server.wait(30)
    carets = ["agee True", "nowhere True", "t True", "CAST('a' AS INT) True"]
    said = ["None [1]", *carets, "True", "done", "TRAIN over Spark Connect does not run on Spark (server)"]
    assert done.stdout.splitlines() == said, done.stderr[-3000:]
    assert pq.read_table(tmp_path / "predict" / "predictions").num_rows == 300
