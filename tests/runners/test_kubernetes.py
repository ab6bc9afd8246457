"""The Kubernetes runner, on a stand-in for a cluster whose containers are real processes."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlml_runners.kubernetes import runner as module
from sqlml_runners.kubernetes.objects import condition, end_error, hopeless, job_object, waits_for
from sqlml_runners.kubernetes.runner import KubernetesRunner
from sqlml_runners.kubernetes.settings import settings_fault

import sqlml
from sqlml.errors import BindError, Error, JobCancelled, JobCrashed, JobOutOfMemory, JobTimeout, OperationalError
from sqlml.plan import JobSpec, Limits
from tests.jobs import make_job
from tests.kits import check_runner
from tests.runners.cluster import Cluster, running_cluster

Make = Callable[[int, Limits], JobSpec]
IMAGE = "registry.example/sqlml:1"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Jobs of so many rounds, each in a folder of its own."""
    numbers = itertools.count()
    table = pa.table({"a": list(range(200)), "b": [i % 7 for i in range(200)], "t": [str(i % 3 > 0) for i in range(200)]})

    def job(rounds: int, limits: Limits) -> JobSpec:
        folder = tmp_path / "jobs" / str(next(numbers))
        return make_job(folder, table, "t", "xgboost_classifier", options={"n_estimators": rounds}, limits=limits)

    return job


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster") as found:
        yield found


def runner(cluster: Cluster, **options: Any) -> KubernetesRunner:
    """A runner with a folder that the pods see."""
    staging = cluster.folder / "shared"
    staging.mkdir(exist_ok=True)
    given = {"image": IMAGE, "staging": str(staging), "claim": "shared", "kubeconfig": str(cluster.kubeconfig())}
    return KubernetesRunner("k", given | options)


def nothing_is_left(cluster: Cluster) -> bool:
    return not cluster.jobs and not list((cluster.folder / "shared").iterdir())


def wait(found: KubernetesRunner, spec: JobSpec) -> list[Any]:
    events: list[Any] = []
    found.submit(spec).wait(events.append)
    return events


def test_the_contract(cluster: Cluster, make: Make) -> None:
    check_runner(runner(cluster), make)
    assert nothing_is_left(cluster)


def test_a_job_as_the_cluster_gets_it(cluster: Cluster, make: Make) -> None:
    found = runner(
        cluster, namespace="ml", cpu=1.5, memory=10**9, gpu=2, secret_name="s3", pull_secret_name="reg",
        service_account="trainer", node_selector={"disk": "ssd"}, patience=100.0,
    )  # fmt: skip
    assert found.resources().gpus == ("nvidia.com/gpu",) * 2
    spec = make(300, Limits(seconds=50, memory=2**30))
    check_told(spec, wait(found, spec))
    [job] = cluster.made
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert (job["metadata"]["namespace"], job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == ("ml", 0, 150)
    assert container["resources"] == {
        "requests": {"cpu": "1500m", "memory": str(2**30)}, "limits": {"memory": str(2**30), "nvidia.com/gpu": "2"},
    }  # fmt: skip
    assert container["command"][:3] == ["python", "-m", "sqlml_runners.kubernetes.pod"]
    assert container["command"][-1] == "50"
    assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["volumes"][1]["persistentVolumeClaim"]["claimName"] == "shared"
    assert container["volumeMounts"][1]["mountPath"] == str(cluster.folder / "shared")


def check_told(spec: JobSpec, events: list[Any]) -> None:
    """Each event came once and in order, and the log is the worker's."""
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == sorted(set(steps))
    assert events[-1]["event"] == "done"
    kept = [json.loads(line) for line in (spec.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {event["event"] for event in events if event not in kept} <= {"stage", "notice"}
    assert [event for event in events if event in kept] == kept
    log = (spec.folder / "job.log").read_text(encoding="utf-8")
    assert "step 300/300" in log
    assert "\x1e" not in log


def test_an_object_store_and_an_api_that_is_away_for_a_while(cluster: Cluster, make: Make) -> None:
    """A URL of fsspec: nothing is mounted, the pod fetches and gives."""
    place = cluster.folder / "shared"
    place.mkdir()
    spec = make(30, Limits(threads=1))
    events: list[Any] = []

    def away(event: Any) -> None:
        events.append(event)
        if event["event"] == "step" and event["step"] == 1:
            cluster.away = 3

    options = {"image": IMAGE, "staging": f"file://{place}", "kubeconfig": str(cluster.kubeconfig())}
    KubernetesRunner("k", options).submit(spec).wait(away)
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 31))
    assert (spec.folder / "bundle" / "manifest.json").is_file()
    assert not any("persistentVolumeClaim" in volume for volume in cluster.made[0]["spec"]["template"]["spec"]["volumes"])
    assert nothing_is_left(cluster)


def test_a_memory_limit_is_the_pods(cluster: Cluster, make: Make) -> None:
    with pytest.raises(JobOutOfMemory, match="job 1 passed its memory limit of 64 MiB") as caught:
        wait(runner(cluster), make(3, Limits(memory=64 * 2**20)))
    assert caught.value.hint is not None
    assert nothing_is_left(cluster)


def test_the_cluster_ends_a_job_whose_pod_does_not(cluster: Cluster, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Job's own deadline, where nobody in the pod holds the limit."""
    found = runner(cluster, time=1.0, patience=1.0)
    handle = found.submit(make(1_000_000, Limits()))
    monkeypatch.setattr(module, "job_object", lambda *given: _without_limit(job_object(*given)))
    with pytest.raises(JobTimeout, match="job 1 passed its time limit of 1 s"):
        handle.wait(lambda _: None)


def _without_limit(job: dict[str, Any]) -> dict[str, Any]:
    job["spec"]["template"]["spec"]["containers"][0]["command"].pop()
    return job


def test_a_pod_that_loses_its_place(cluster: Cluster, make: Make) -> None:
    def evict(event: Any) -> None:
        if event["event"] == "step":
            cluster.evict("The node was low on resource: memory.")

    with pytest.raises(JobCrashed, match=r"took the place of job 1 away \(Evicted\): The node was low on resource") as caught:
        runner(cluster).submit(make(1_000_000, Limits())).wait(evict)
    assert "start it again" in str(caught.value)


def test_a_job_that_somebody_deletes(cluster: Cluster, make: Make) -> None:
    def delete(event: Any) -> None:
        if event["event"] == "step":
            with cluster.lock:
                for name in list(cluster.jobs):
                    cluster.remove(name)

    with pytest.raises(JobCrashed, match="somebody deleted it"):
        runner(cluster).submit(make(1_000_000, Limits())).wait(delete)


def test_a_pod_that_does_not_find_its_files(cluster: Cluster, make: Make) -> None:
    spec = make(3, Limits())
    with pytest.raises(JobCrashed, match="the pod of job 1 ended: exit status 1") as caught:
        wait(runner(cluster, mount="/nowhere"), spec)
    assert f"its log: {spec.folder / 'job.log'}" in str(caught.value)
    assert "failed: /nowhere/sqlml-train-1-" in str(caught.value)
    assert "cannot be read" in str(caught.value)


def test_an_image_that_cannot_be_pulled(cluster: Cluster, make: Make) -> None:
    with pytest.raises(OperationalError, match=r"cannot pull the image registry.example/none:1 \(ImagePullBackOff\)") as caught:
        wait(runner(cluster, image="registry.example/none:1"), make(3, Limits()))
    assert "pull_secret_name" in str(caught.value)
    assert nothing_is_left(cluster)


def test_more_than_the_quota(cluster: Cluster, make: Make) -> None:
    with pytest.raises(OperationalError, match=r"makes no pod for the job: .*exceeded quota") as caught:
        wait(runner(cluster, cpu=9.0), make(3, Limits()))
    assert "larger quota" in str(caught.value)
    assert nothing_is_left(cluster)


def test_no_room_in_the_cluster(cluster: Cluster, make: Make) -> None:
    cluster.room = False
    events: list[Any] = []
    with pytest.raises(OperationalError, match="did not start job 1: 0/3 nodes are available"):
        runner(cluster, patience=1.2).submit(make(3, Limits())).wait(events.append)
    assert [event["text"] for event in events if event["event"] == "notice"] == [
        "the job waits: 0/3 nodes are available: 3 Insufficient memory."
    ]
    handle = runner(cluster).submit(make(3, Limits()))
    threading.Timer(0.8, handle.cancel).start()
    with pytest.raises(JobCancelled):
        handle.wait(lambda _: None)
    assert nothing_is_left(cluster)


def test_who_may_not_ask(cluster: Cluster, make: Make) -> None:
    with pytest.raises(OperationalError, match="does not know who asks"):
        wait(runner(cluster, kubeconfig=str(cluster.kubeconfig("wrong"))), make(3, Limits()))
    with pytest.raises(OperationalError, match="is there a namespace nowhere"):
        wait(runner(cluster, namespace="nowhere"), make(3, Limits()))
    with pytest.raises(OperationalError, match="settings cannot be used"):
        wait(runner(cluster, context="elsewhere"), make(3, Limits()))
    with pytest.raises(OperationalError, match="settings cannot be used"):
        wait(runner(cluster, kubeconfig="/nowhere/config"), make(3, Limits()))


def test_a_cluster_that_is_not_there(cluster: Cluster, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_SECONDS", 0.1)
    cluster.url = "http://127.0.0.1:9"
    began = time.monotonic()
    with pytest.raises(OperationalError, match=r"the cluster at http://127\.0\.0\.1:9 does not answer"):
        wait(runner(cluster), make(3, Limits()))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs an image"),
        ({"image": IMAGE}, "needs a place where rows and results are exchanged"),
        ({"image": IMAGE, "staging": "/mnt/x"}, "do not see this machine's folder"),
        ({"image": IMAGE, "staging": "x", "claim": "c"}, "must be absolute"),
        ({"image": IMAGE, "staging": "s3://b", "claim": "c"}, "a volume claim goes with a folder"),
        ({"image": IMAGE, "staging": "s3://b", "namespace": "A b"}, "cannot be a name"),
        ({"image": IMAGE, "staging": "s3://b", "node_selector": {"disk": 3}}, "no label of a node"),
        ({"image": IMAGE, "staging": "s3://b", "gpu_resource": "gpu"}, "no name of a resource"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    fault = settings_fault(options)
    assert fault is not None
    assert words in fault.message
    assert fault.hint
    with pytest.raises(BindError, match=words):
        KubernetesRunner("k", options)


def test_a_gpu_that_nobody_asks_for(make: Make) -> None:
    given = {"image": IMAGE, "staging": "memory://b"}
    plan = replace(make(3, Limits()).train, options={"device": "cuda"})
    with pytest.raises(BindError, match="asks the cluster for none") as caught:
        KubernetesRunner("k", given).check("train", plan)
    assert "gpu = 1" in str(caught.value)
    KubernetesRunner("k", given | {"gpu": 1}).check("train", plan)


def test_what_the_cluster_says_in_words() -> None:
    job = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]}}
    assert condition(job, "Failed")

    def pod(**state: Any) -> dict[str, Any]:
        return {"status": {"containerStatuses": [{"state": state}]}}

    assert "exit status 3" in str(end_error(1, job, pod(terminated={"exitCode": 3}), 1, None))
    assert "is gone: m" in str(end_error(1, job, None, 1, None))
    gone = {"status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}}
    assert "(PreemptionByScheduler)" in str(end_error(1, job, gone, 1, None))
    broken = hopeless(pod(waiting={"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}), "i")
    assert broken is not None
    assert 'secret "s3" not found' in str(broken)
    assert hopeless(pod(waiting={"reason": "ContainerCreating"}), "i") is None
    assert waits_for(pod(waiting={"reason": "ContainerCreating"}), []) == "ContainerCreating"
    assert waits_for(None, []) is None


def test_train_on_a_cluster(connection: sqlml.Connection, cluster: Cluster) -> None:
    (cluster.folder / "shared").mkdir()
    where = f"staging = '{cluster.folder}/shared', claim = 'shared', kubeconfig = '{cluster.kubeconfig()}'"
    with pytest.raises(Error, match="needs an image"):
        connection.execute(f"CREATE RUNNER k TYPE kubernetes WITH ({where})")
    connection.execute(f"CREATE RUNNER k TYPE kubernetes WITH (image = '{IMAGE}', {where})")
    here = "TRAIN MODEL {} USING linear_regression TARGET spent EXCLUDE (id, bought) {} AS FROM people"
    connection.execute(here.format("near", "ON inline"))
    connection.execute(here.format("far", "ON k"))
    query = "SELECT max(abs(PREDICT(near) - PREDICT(far))) FROM people"
    assert connection.execute(query).fetchone() == (0.0,)
    connection.execute("TRAIN MODEL far WARM START FROM buys TARGET bought EXCLUDE (id, spent) ON k AS FROM people")
    runs = connection.execute("SELECT runner FROM sqlml.jobs WHERE model = 'far' ORDER BY job").fetchall()
    assert runs == [("k",), ("k",)]
    assert len(cluster.made) == 2
    assert nothing_is_left(cluster)


def test_predict_on_a_cluster(connection: sqlml.Connection, cluster: Cluster) -> None:
    (cluster.folder / "shared").mkdir()
    where = f"staging = '{cluster.folder}/shared', claim = 'shared', kubeconfig = '{cluster.kubeconfig()}'"
    connection.execute(f"CREATE RUNNER k TYPE kubernetes WITH (image = '{IMAGE}', {where})")
    query = 'SELECT id, balance, JOB AS "Job", age FROM people'
    here = connection.execute(f"PREDICT MODEL buys AS {query} ORDER BY id").fetch_arrow_table()
    there = connection.execute(f"PREDICT MODEL buys ON k AS {query}").fetch_arrow_table().sort_by("id")
    assert there.column_names == here.column_names
    assert there.to_pylist() == here.to_pylist()
    assert connection.execute(f"PREDICT MODEL buys INTO scores ON k AS {query}").rowcount == here.num_rows
    assert connection.execute("SELECT count(*), count(predicted_bought) FROM scores").fetchone() == (here.num_rows,) * 2
    assert connection.execute(f"PREDICT MODEL buys ON k AS {query} WHERE false").fetchall() == []
    assert [m["metadata"]["name"].rpartition("-")[0].rpartition("-")[0] for m in cluster.made] == ["sqlml-predict"] * 3
    with pytest.raises(Error, match="needs columns that this query does not have: balance"):
        connection.execute("PREDICT MODEL buys ON k AS SELECT id, age, job FROM people")
    with pytest.raises(Error, match="the predictions cannot be written"):
        connection.execute("PREDICT MODEL buys ON k AS SELECT *, INTERVAL 1 DAY AS i FROM people")
    assert nothing_is_left(cluster)
