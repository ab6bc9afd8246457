"""Objects for clusters: valid by the published schemas, and saying what the endpoint says."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from sqlml.catalog import Endpoint
from sqlml.errors import BindError, Error, NotSupportedError
from sqlml.shipping.kserve import kserve_files
from sqlml.shipping.kubernetes import kubernetes_files
from sqlml.shipping.pods import Object, cores, quantity, queue_query
from sqlml.shipping.shipment import Shipment
from sqlml.shipping.writing import manifest_files, yaml_text
from tests.shipping.made import api_key, endpoint, shipment

SCHEMAS = Path(__file__).parent.parent / "fixtures" / "schemas"
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())
OWN_SCHEMAS = {"ScaledObject": "keda-scaledobject", "InferenceService": "kserve-inferenceservice"}
SCALED: dict[str, Any] = {"min_replicas": 2, "max_replicas": 8}
PROMETHEUS = "http://prometheus.monitoring:9090"


@cache
def validator(name: str) -> Draft202012Validator:
    """The validator of one of our copies, which refers to Kubernetes' own definitions."""
    definitions = files(kubernetes_validate) / f"kubernetes-json-schema/v{kubernetes_validate.latest_version()}-local-strict"
    kubernetes = Resource.from_contents(json.loads((definitions / "_definitions.json").read_text(encoding="utf-8")))
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    registry: Registry[Any] = Registry().with_resource("kubernetes", kubernetes)
    return Draft202012Validator(schema, registry=registry)


def check(shipped: Shipment) -> list[Object]:
    """Every object, valid by its schema, after its way through YAML."""
    found: list[Object] = []
    for objects in manifest_files(shipped).values():
        text = yaml_text(objects)
        assert list(yaml.safe_load_all(text)) == objects
        assert "&id" not in text
        found += objects
    for thing in found:
        if thing["kind"] in OWN_SCHEMAS:
            validator(OWN_SCHEMAS[thing["kind"]]).validate(thing)
        elif thing["kind"] != "Kustomization":
            for version in VERSIONS:
                kubernetes_validate.validate(thing, version, strict=True)
    return found


CASES: dict[str, tuple[str, Endpoint, dict[str, Any]]] = {
    "plain": ("kubernetes", endpoint(), {}),
    "a canary in every pod": ("kubernetes", endpoint(90, 10, shadow=True, sticky="header:x-user", replicas=3), {}),
    "weights by pods": ("kubernetes", endpoint(80, 20, replicas=5), {"canary": "deployments", "namespace": "ml"}),
    "hpa": ("kubernetes", endpoint(**SCALED), {"cpu": 0.5, "memory": 2 * 2**30}),
    "keda": ("kubernetes", endpoint(**SCALED), {"autoscaler": "keda", "prometheus": PROMETHEUS, "namespace": "ml"}),
    "everything": (
        "kubernetes",
        endpoint(log=0.5, replicas=2),
        {"predictions": "logs", "pull_secret_name": "regcred", "service_account": "churner", "name": "c", "base": "python:3.12"},
    ),
    "kserve": ("kserve", endpoint(), {}),
    "kserve, scaled": ("kserve", endpoint(**SCALED), {"predictions": "logs"}),
    "kserve, keda": ("kserve", endpoint(**SCALED), {"autoscaler": "keda", "prometheus": PROMETHEUS}),
    "kserve, canary": ("kserve", endpoint(70, 20, 10), {"canary": "kserve"}),
    "knative": ("kserve", endpoint(**SCALED), {"mode": "knative", "version": "0.15"}),
    "knative, canary": ("kserve", endpoint(90, 10), {"mode": "knative", "canary": "kserve"}),
}


@pytest.mark.parametrize("case", CASES)
def test_all_objects_are_valid(case: str) -> None:
    form, made, given = CASES[case]
    assert check(shipment(made, form, **given))


def test_the_schemas_refuse_what_is_wrong() -> None:
    [deployment, *_] = kubernetes_files(shipment(endpoint(), "kubernetes"))["deployment.yaml"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)
    [service] = kserve_files(shipment(endpoint(90, 10), "kserve", canary="kserve"))["inferenceservice.yaml"]
    assert validator("kserve-inferenceservice").is_valid(service)
    service["spec"]["canary"][0]["trafficPercentage"] = 1
    assert not validator("kserve-inferenceservice").is_valid(service)
    service["spec"]["canary"][0] = {"trafficPercent": 1}
    assert not validator("kserve-inferenceservice").is_valid(service)


def test_a_deployment_keeps_every_request_during_an_update() -> None:
    shipped = shipment(endpoint(replicas=3, timeout=90), "kubernetes")
    files_of = kubernetes_files(shipped)
    [deployment] = files_of["deployment.yaml"]
    spec = deployment["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]["maxUnavailable"]) == (3, 0)
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert container["startupProbe"]["httpGet"]["path"] == "/v2/models/Churn/ready"
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep + 90
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "1000000000"},
        "limits": {"memory": "1000000000"},
    }
    [service] = files_of["service.yaml"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= spec["selector"]["matchLabels"].items()
    assert files_of["kustomization.yaml"][0]["resources"] == ["deployment.yaml", "service.yaml", "disruption.yaml"]


def test_each_pod_has_one_worker_and_divides_as_the_endpoint_does() -> None:
    shipped = shipment(endpoint(90, 10, replicas=3, sticky="header:x-user"), "kubernetes")
    assert (shipped.least, shipped.most) == (3, 3)
    assert [arm.weight for arm in shipped.endpoint.arms] == [90, 10]
    assert shipped.endpoint.options == {"sticky": "header:x-user", "log": 0.0}
    assert shipped.notes == ("the prediction log is off: predictions = 'a-volume-claim' keeps it",)


def test_weights_by_numbers_of_pods() -> None:
    shipped = shipment(endpoint(85, 15, replicas=20), "kubernetes", canary="deployments")
    deployments = kubernetes_files(shipped)["deployment.yaml"]
    assert {d["metadata"]["name"]: d["spec"]["replicas"] for d in deployments} == {"churn-churn-1": 17, "churn-churn-2": 3}
    commands = [d["spec"]["template"]["spec"]["containers"][0]["command"][-2:] for d in deployments]
    assert commands == [["--arm", "churn@1"], ["--arm", "churn@2"]]
    one, two = (d["spec"]["selector"]["matchLabels"] for d in deployments)
    assert one != two
    resting = shipment(endpoint(100, 0, replicas=1), "kubernetes", canary="deployments")
    assert [d["spec"]["replicas"] for d in kubernetes_files(resting)["deployment.yaml"]] == [1, 0]


def test_autoscalers() -> None:
    [hpa] = kubernetes_files(shipment(endpoint(**SCALED), "kubernetes", cpu_target=50))["autoscaler.yaml"]
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 8)
    assert hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    keda = shipment(endpoint(**SCALED, name='a "b"'), "kubernetes", autoscaler="keda", prometheus=PROMETHEUS, namespace="ml")
    [scaled] = kubernetes_files(keda)["autoscaler.yaml"]
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["metadata"]["threshold"] == "16"
    assert trigger["metadata"]["query"] == r'sum(sqlml_queue_requests{endpoint="a \"b\"",namespace="ml",pod=~"a-b-.*"})'
    assert scaled["spec"]["scaleTargetRef"]["name"] == kubernetes_files(keda)["deployment.yaml"][0]["metadata"]["name"]
    assert "replicas" not in kubernetes_files(keda)["deployment.yaml"][0]["spec"]
    assert queue_query(keda, "a-b-") == trigger["metadata"]["query"]


def test_kserve_divides_by_its_own_fields() -> None:
    [service] = kserve_files(shipment(endpoint(20, 70, 10), "kserve", canary="kserve"))["inferenceservice.yaml"]
    assert service["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": "Standard"}
    assert _arm(service["spec"]["predictor"]) == "churn@2"
    canaries = [(c["trafficPercent"], _arm(c["predictor"])) for c in service["spec"]["canary"]]
    assert canaries == [(20, "churn@1"), (10, "churn@3")]
    steps = kserve_files(shipment(endpoint(90, 10), "kserve", canary="kserve", mode="knative"))
    first, second = (objects[0]["spec"] for objects in steps.values())
    assert list(steps) == ["1-stable.yaml", "2-canary.yaml"]
    assert (_arm(first["predictor"]), "canaryTrafficPercent" in first["predictor"]) == ("churn@1", False)
    assert (_arm(second["predictor"]), second["predictor"]["canaryTrafficPercent"]) == ("churn@2", 10)
    assert not {"lifecycle", "startupProbe"} & second["predictor"]["containers"][0].keys()
    [old] = kserve_files(shipment(endpoint(), "kserve", version="0.15.2"))["inferenceservice.yaml"]
    assert old["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"


def _arm(predictor: Object) -> str:
    return str(predictor["containers"][0]["command"][-1])


REFUSED: list[tuple[Any, str, dict[str, Any], type[Error], str]] = [
    (endpoint(promote_after=100), "docker", {}, NotSupportedError, "roll-out under way"),
    (endpoint(auth="key"), "docker", {}, BindError, "no API key opens"),
    (endpoint(auth="key"), "docker", {"keys": [api_key(ended=True), api_key("j", "other")]}, BindError, "no API key opens"),
    (endpoint(auth="key", replicas=2), "kubernetes", {"keys": [api_key(rate_limit=5)]}, NotSupportedError, "a rate limit in all"),
    (endpoint(), "docker", {"base": "python 3"}, BindError, "no image's name"),
    (endpoint(), "kubernetes", {"image": None}, BindError, "image is missing"),
    (endpoint(), "kubernetes", {"image": "UPPER/x"}, BindError, "no image's name"),
    (endpoint(), "kubernetes", {"namespace": "a_b"}, BindError, "cannot be a name"),
    (endpoint(), "kubernetes", {"name": "c" * 41}, BindError, "40 at most"),
    (endpoint(name="町"), "kubernetes", {}, BindError, "cannot be a name"),
    (endpoint(log=0.1), "kubernetes", {}, NotSupportedError, "keeps a prediction log"),
    (endpoint(replicas=2), "kubernetes", {"autoscaler": "hpa"}, BindError, "nothing to scale"),
    (endpoint(**SCALED), "kubernetes", {"autoscaler": "none"}, BindError, "needs an autoscaler"),
    (endpoint(**SCALED), "kubernetes", {"autoscaler": "keda"}, BindError, "its address is missing"),
    (endpoint(), "kubernetes", {"canary": "deployments"}, BindError, "nothing to divide"),
    (endpoint(90, 10, replicas=3), "kubernetes", {"canary": "deployments"}, NotSupportedError, "replicas = 10"),
    (endpoint(90, 10, **SCALED), "kubernetes", {"canary": "deployments"}, NotSupportedError, "do not outlive an autoscaler"),
    (
        endpoint(90, 10, replicas=10, sticky="column:id"),
        "kubernetes",
        {"canary": "deployments"},
        NotSupportedError,
        "sticky routing",
    ),
    (endpoint(90, 10, replicas=10, shadow=True), "kubernetes", {"canary": "deployments"}, NotSupportedError, "a shadow"),
    (endpoint(90, 10), "kserve", {"canary": "kserve", "version": "0.19"}, NotSupportedError, "would be ignored"),
    (endpoint(50, 25, 25), "kserve", {"canary": "kserve", "mode": "knative"}, NotSupportedError, "between two versions"),
    (endpoint(90, 10, shadow=True), "kserve", {"canary": "kserve"}, NotSupportedError, "a shadow"),
    (endpoint(), "kserve", {"version": "new"}, BindError, "no version of KServe"),
    (endpoint(**SCALED), "kserve", {"mode": "knative", "autoscaler": "hpa"}, NotSupportedError, "by 'knative' alone"),
    (endpoint(**SCALED), "kserve", {"autoscaler": "knative"}, NotSupportedError, "needs mode = 'knative'"),
    (endpoint(), "kserve", {"mode": "knative", "predictions": "logs"}, NotSupportedError, "no volume claims"),
]


@pytest.mark.parametrize(("made", "form", "given", "kind", "words"), REFUSED)
def test_what_a_target_cannot_do_is_refused(made: Any, form: str, given: dict[str, Any], kind: type[Error], words: str) -> None:
    with pytest.raises(kind) as caught:
        shipment(made, form, **given)
    assert words in str(caught.value)
    assert caught.value.hint


def test_figures_as_kubernetes_writes_them() -> None:
    assert (cores(1.0), cores(0.25), cores(1.5)) == ("1", "250m", "1500m")
    assert (quantity(2 * 2**30), quantity(10**9)) == ("2048Mi", "1000000000")
