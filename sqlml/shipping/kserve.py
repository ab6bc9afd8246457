"""Manifests for KServe: an InferenceService with our own container, which speaks the Open Inference Protocol V2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlml.catalog.endpoints import Arm
from sqlml.endpoint_options import settings
from sqlml.shipping.pods import Object, metadata, pod_spec, queue_query, scrape
from sqlml.shipping.shipment import Shipment, kserve_version

_CONTAINER = "kserve-container"
"""The name by which KServe knows which container answers."""
_MODE = "serving.kserve.io/deploymentMode"
_AUTOSCALER = "serving.kserve.io/autoscalerClass"


def kserve_files(shipment: Shipment) -> Mapping[str, list[Object]]:
    """The objects, by the file that holds them, in the order in which they are applied.

    In mode knative a canary is the newest state of the service beside the one before it: two files, one after the other.
    """
    if shipment.divided and shipment.options["mode"] == "knative":
        stable = shipment.endpoint.main
        [canary] = [arm for arm in shipment.endpoint.serving if arm is not stable]
        return {
            "1-stable.yaml": [_service(shipment, _predictor(shipment, stable))],
            "2-canary.yaml": [_service(shipment, _predictor(shipment, canary) | {"canaryTrafficPercent": canary.weight})],
        }
    if not shipment.divided:
        return {"inferenceservice.yaml": [_service(shipment, _predictor(shipment, None))]}
    stable = shipment.endpoint.main
    canaries = [
        {"trafficPercent": arm.weight, "predictor": _predictor(shipment, arm)}
        for arm in shipment.endpoint.serving
        if arm is not stable
    ]
    return {"inferenceservice.yaml": [_service(shipment, _predictor(shipment, stable), canary=canaries)]}


def _service(shipment: Shipment, predictor: Object, **more: Any) -> Object:
    knative = shipment.options["mode"] == "knative"
    modes = ("Standard", "Knative") if kserve_version(shipment.options) >= (0, 16) else ("RawDeployment", "Serverless")
    notes = {_MODE: modes[knative]}
    if not knative and shipment.autoscaler in ("hpa", "keda"):
        notes[_AUTOSCALER] = shipment.autoscaler
    spec = {"predictor": predictor, **more}
    head = metadata(shipment, annotations=notes)
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": head, "spec": spec}


def _predictor(shipment: Shipment, arm: Arm | None) -> Object:
    knative = shipment.options["mode"] == "knative"
    scaled: Object = {"minReplicas": shipment.least, "maxReplicas": shipment.most}
    if shipment.autoscaler == "hpa":
        scaled |= {"scaleMetric": "cpu", "scaleTarget": shipment.options["cpu_target"]}
    elif shipment.autoscaler == "knative":
        scaled |= {"scaleMetric": "concurrency", "scaleTarget": shipment.options["queue_target"]}
    elif shipment.autoscaler == "keda":
        scaled["autoScaling"] = {"metrics": [_queue_metric(shipment)]}
    if knative:
        scaled["timeout"] = max(1, int(settings(shipment.endpoint.options)["timeout"]))
    else:
        rolling = {"maxUnavailable": 0, "maxSurge": 1}
        scaled["deploymentStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    scaled["annotations"] = dict(scrape(shipment))
    return scaled | pod_spec(shipment, _CONTAINER, arm.name if arm else None, knative=knative)


def _queue_metric(shipment: Shipment) -> Object:
    metric = {
        "backend": "prometheus",
        "serverAddress": shipment.options["prometheus"],
        "query": queue_query(shipment, f"{shipment.name}-predictor"),
    }
    target = {"type": "Value", "value": str(shipment.options["queue_target"])}
    return {"type": "External", "external": {"metric": metric, "target": target}}
