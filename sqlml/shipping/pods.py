"""Pods that serve an endpoint: what Deployments and KServe's predictors have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from sqlml.endpoint_options import settings
from sqlml.shipping.image import COMMAND, PORT, STATE, USER
from sqlml.shipping.shipment import Shipment

Object = dict[str, Any]
"""An object of Kubernetes, or a part of one, as its YAML has it."""

LEAVING_SECONDS = 5
"""How long a pod that is to end still takes requests: so long the cluster may send some."""
_READY, _LIVE = "/v2/health/ready", "/v2/health/live"


def labels(shipment: Shipment) -> dict[str, str]:
    """What all objects of an endpoint bear."""
    return {"app.kubernetes.io/name": shipment.name, "app.kubernetes.io/managed-by": "sqlml"}


def metadata(shipment: Shipment, name: str | None = None, **more: Any) -> Object:
    """The head of an object."""
    place = {"namespace": shipment.options["namespace"]} if shipment.options["namespace"] else {}
    return {"name": name or shipment.name, **place, "labels": labels(shipment), **more}


def quantity(size: int) -> str:
    """Bytes as Kubernetes writes them."""
    return f"{size // 2**20}Mi" if size % 2**20 == 0 else str(size)


def cores(count: float) -> str:
    """Cores as Kubernetes writes them."""
    return f"{round(count * 1000)}m" if count % 1 else str(int(count))


def pod_spec(shipment: Shipment, container: str, arm: str | None = None, *, knative: bool = False) -> Object:
    """A pod; ``arm``: it serves this version alone.  Knative looks after starting and ending itself."""
    options = shipment.options
    spec: Object = {
        "automountServiceAccountToken": False,
        "containers": [_container(shipment, container, arm, knative)],
        "volumes": [{"name": "state", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }
    if options["predictions"]:
        spec["volumes"].append({"name": "predictions", "persistentVolumeClaim": {"claimName": options["predictions"]}})
    if options["service_account"]:
        spec["serviceAccountName"] = options["service_account"]
    if options["pull_secret_name"]:
        spec["imagePullSecrets"] = [{"name": options["pull_secret_name"]}]
    if not knative:
        longest = int(settings(shipment.endpoint.options)["timeout"])
        spec["terminationGracePeriodSeconds"] = LEAVING_SECONDS + longest + 10
        spec["securityContext"] = {"fsGroup": USER}
    return spec


def _container(shipment: Shipment, name: str, arm: str | None, knative: bool) -> Object:
    options = shipment.options
    memory = quantity(options["memory"])
    found: Object = {
        "name": name,
        "image": options["image"],
        **({"command": [*COMMAND, "--arm", arm]} if arm else {}),
        "ports": [{"containerPort": PORT, "protocol": "TCP"} | ({} if knative else {"name": "http"})],
        "resources": {"requests": {"cpu": cores(options["cpu"]), "memory": memory}, "limits": {"memory": memory}},
        "readinessProbe": _probe(_READY, periodSeconds=5, timeoutSeconds=3, failureThreshold=2),
        "livenessProbe": _probe(_LIVE, periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "state", "mountPath": STATE}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    if options["predictions"]:
        found["env"] = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        place = {"name": "predictions", "mountPath": f"{STATE}/predictions", "subPathExpr": "$(POD_NAME)"}
        found["volumeMounts"].append(place)
    if not knative:
        ready = f"/v2/models/{quote(shipment.endpoint.name, safe='')}/ready"
        found["startupProbe"] = _probe(ready, periodSeconds=2, timeoutSeconds=3, failureThreshold=150)
        found["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(LEAVING_SECONDS)]}}}
    return found


def _probe(path: str, **times: int) -> Object:
    return {"httpGet": {"path": path, "port": PORT}, **times}


def queue_query(shipment: Shipment, pods: str) -> str:
    """PromQL: the requests that wait or are under way in all pods whose name begins like ``pods``."""
    place = {"endpoint": shipment.endpoint.name.lower(), "namespace": shipment.options["namespace"]}
    chosen = [f"{name}={_quoted(value)}" for name, value in place.items() if value] + [f"pod=~{_quoted(pods + '.*')}"]
    return f"sum(sqlml_queue_requests{{{','.join(chosen)}}})"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def scrape(shipment: Shipment) -> Mapping[str, str]:
    """Annotations by which Prometheus finds the figures of a pod."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"}
