"""Manifests for plain Kubernetes: Deployments, a Service, what scales them, and what keeps them up during maintenance."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlml.catalog.endpoints import Arm
from sqlml.shipping.image import PORT
from sqlml.shipping.pods import Object, labels, metadata, pod_spec, queue_query, scrape
from sqlml.shipping.shipment import Shipment, pods_of


def kubernetes_files(shipment: Shipment) -> Mapping[str, list[Object]]:
    """The objects, by the file that holds them; ``kubectl apply -k`` takes the folder."""
    files: dict[str, list[Object]] = {"deployment.yaml": _deployments(shipment), "service.yaml": [_service(shipment)]}
    if shipment.autoscaler == "hpa":
        files["autoscaler.yaml"] = [_hpa(shipment)]
    elif shipment.autoscaler == "keda":
        files["autoscaler.yaml"] = [_scaled_object(shipment)]
    if shipment.least > 1:
        files["disruption.yaml"] = [_disruption(shipment)]
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(files)}
    return {**files, "kustomization.yaml": [kustomization]}


def _deployments(shipment: Shipment) -> list[Object]:
    if not shipment.divided:
        fixed = None if shipment.autoscaler != "none" else shipment.least  # else applying again would undo the autoscaler's work
        return [_deployment(shipment, shipment.name, fixed)]
    return [
        _deployment(shipment, f"{shipment.name}-{_part(arm)}", pods_of(arm, shipment.least), arm)
        for arm in shipment.endpoint.serving
    ]


def _part(arm: Arm) -> str:
    """A version as a part of a name: ``churn-3``."""
    return f"{re.sub(r'[^a-z0-9]+', '-', arm.model.lower()).strip('-')[:12].strip('-') or 'v'}-{arm.version}"


def _deployment(shipment: Shipment, name: str, pods: int | None, arm: Arm | None = None) -> Object:
    own = {"sqlml/version": _part(arm)} if arm else {}
    marks = labels(shipment) | own
    spec: Object = {} if pods is None else {"replicas": pods}
    spec |= {
        "selector": {"matchLabels": marks},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {
            "metadata": {"labels": marks, "annotations": dict(scrape(shipment))},
            "spec": pod_spec(shipment, "endpoint", arm.name if arm else None),
        },
    }
    head = metadata(shipment, name)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": head | {"labels": marks}, "spec": spec}


def _service(shipment: Shipment) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}]
    spec = {"type": "ClusterIP", "selector": labels(shipment), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(shipment), "spec": spec}


def _target(shipment: Shipment) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": shipment.name}


def _hpa(shipment: Shipment) -> Object:
    target = {"type": "Utilization", "averageUtilization": shipment.options["cpu_target"]}
    spec = {
        "scaleTargetRef": _target(shipment),
        "minReplicas": shipment.least,
        "maxReplicas": shipment.most,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata(shipment), "spec": spec}


def _scaled_object(shipment: Shipment) -> Object:
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": shipment.options["prometheus"],
            "query": queue_query(shipment, f"{shipment.name}-"),
            "threshold": str(shipment.options["queue_target"]),
        },
    }
    spec = {
        "scaleTargetRef": _target(shipment),
        "minReplicaCount": shipment.least,
        "maxReplicaCount": shipment.most,
        "triggers": [trigger],
    }
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata(shipment), "spec": spec}


def _disruption(shipment: Shipment) -> Object:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": labels(shipment)}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(shipment), "spec": spec}
