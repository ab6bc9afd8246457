"""A job as a batch/v1 Job, and what an object of the cluster says of it.  Pure functions over plain dictionaries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlml.errors import Error, JobCrashed, JobOutOfMemory, JobTimeout, OperationalError
from sqlml.plan import JobSpec

Object = dict[str, Any]

CONTAINER = "job"
GRACE_SECONDS = 15
KEPT_SECONDS = 3600
"""So long a Job that has ended stays, where its owner died and does not take it away."""

_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_NO_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def limits_of(spec: JobSpec, options: Mapping[str, Any]) -> tuple[int, float | None]:
    """The memory that the pod may have, and how long the job may run."""
    limits = spec.plan.limits
    return limits.memory or int(options["memory"]), limits.seconds or options.get("time")


def job_object(name: str, place: str, spec: JobSpec, options: Mapping[str, Any]) -> Object:
    """The Job that runs one of our jobs, once: its place for files is ``place`` as the pod sees it."""
    memory, seconds = limits_of(spec, options)
    marks = {"app.kubernetes.io/name": "sqlml-job", "app.kubernetes.io/managed-by": "sqlml", "sqlml/job": str(spec.id)}
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.plan.model)[:63].strip("-._")
    marks |= {"sqlml/model": model} if model else {}
    template = {"metadata": {"labels": marks}, "spec": _pod(place, seconds, memory, spec, options)}
    body: Object = {
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": template,
    }
    if seconds is not None:  # the pod holds the limit itself; this one is for a pod that cannot any more
        body["activeDeadlineSeconds"] = math.ceil(seconds + options["patience"])
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": marks}, "spec": body}


def _pod(place: str, seconds: float | None, memory: int, spec: JobSpec, options: Mapping[str, Any]) -> Object:
    command = ["python", "-m", "sqlml_runners.kubernetes.pod", place]
    threads = spec.plan.limits.threads or max(1, int(options["cpu"]))
    resources: Object = {"requests": {"cpu": f"{round(options['cpu'] * 1000)}m", "memory": str(memory)}}
    resources["limits"] = {"memory": str(memory)}
    if options.get("gpu"):
        resources["limits"][options["gpu_resource"]] = str(options["gpu"])
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    container: Object = {
        "name": CONTAINER,
        "image": options["image"],
        "command": [*command, *([f"{seconds:g}"] if seconds is not None else [])],
        "env": [{"name": key, "value": value} for key, value in (variables | {"PYTHONUNBUFFERED": "1"}).items()],
        "resources": resources,
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": options.get("service_account") is not None,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    if options.get("claim"):
        pod["volumes"].append({"name": "staging", "persistentVolumeClaim": {"claimName": options["claim"]}})
        container["volumeMounts"].append({"name": "staging", "mountPath": options.get("mount") or options["staging"]})
    if options.get("secret_name"):
        container["envFrom"] = [{"secretRef": {"name": options["secret_name"]}}]
    if options.get("pull_secret_name"):
        pod["imagePullSecrets"] = [{"name": options["pull_secret_name"]}]
    if options.get("service_account"):
        pod["serviceAccountName"] = options["service_account"]
    if options.get("node_selector"):
        pod["nodeSelector"] = dict(options["node_selector"])
    return pod


# --- what the cluster says --------------------------------------------------------------------------------------------


def condition(thing: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """A condition of an object that is true."""
    found = (thing.get("status") or {}).get("conditions") or ()
    return next((c for c in found if c.get("type") == kind and c.get("status") == "True"), None)


def is_over(job: Mapping[str, Any]) -> bool:
    """Whether a Job has come to its end, good or bad."""
    return any(condition(job, kind) for kind in ("Complete", "Failed"))


def has_started(pod: Mapping[str, Any]) -> bool:
    """Whether the container runs, or has run."""
    state = _state(pod)
    return "running" in state or "terminated" in state


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    return {key: value for key, value in (found[0].get("state") or {}).items() if value} if found else {}


def hopeless(pod: Mapping[str, Any], image: str) -> Error | None:
    """The error of a pod that cannot start however long one waits."""
    waiting = _state(pod).get("waiting") or {}
    reason, message = waiting.get("reason"), waiting.get("message") or ""
    if reason in _NO_IMAGE:
        hint = "is the name right, was it pushed, and may the cluster pull it (pull_secret_name)?"
        return OperationalError(f"the cluster cannot pull the image {image} ({reason}): {message}".rstrip(": "), hint=hint)
    if reason in _NO_START:
        hint = "do the secret and the volume claim exist in the namespace, and does the image have python?"
        return OperationalError(f"the cluster cannot start the job's container ({reason}): {message}".rstrip(": "), hint=hint)
    return None


def waits_for(pod: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a job has not started yet, in the cluster's own words."""
    if pod is None:
        failed = [event for event in events if event.get("type") == "Warning"]
        return str(failed[-1].get("message")) if failed else None
    placed = next((c for c in (pod.get("status") or {}).get("conditions") or () if c.get("type") == "PodScheduled"), None)
    if placed is not None and placed.get("status") == "False":
        return str(placed.get("message") or placed.get("reason"))
    waiting = _state(pod).get("waiting") or {}
    return str(waiting.get("message") or waiting["reason"]) if waiting.get("reason") else None


def refused(events: Sequence[Mapping[str, Any]]) -> Error | None:
    """The error of a Job for which the cluster makes no pod, such as beyond a quota."""
    failed = [str(event.get("message")) for event in events if event.get("reason") == "FailedCreate"]
    if not failed:
        return None
    hint = "ask for less (cpu, memory, gpu of the runner, LIMIT (MEMORY …)), or for a larger quota"
    return OperationalError(f"the cluster makes no pod for the job: {failed[-1]}", hint=hint)


def end_error(number: int, job: Mapping[str, Any], pod: Mapping[str, Any] | None, memory: int, seconds: float | None) -> Error:
    """What a Job ended with that failed without a word of its own."""
    failed = condition(job, "Failed") or {}
    if failed.get("reason") == "DeadlineExceeded":
        return JobTimeout(f"job {number} passed its time limit of {seconds or 0:g} s and was stopped", hint=TIME_HINT)
    if pod is None:
        return JobCrashed(
            f"the pod of job {number} is gone: {failed.get('message') or 'nobody knows why'}", hint="start it again"
        )
    status = pod.get("status") or {}
    ended = _state(pod).get("terminated") or {}
    if ended.get("reason") == "OOMKilled":
        return JobOutOfMemory(
            f"job {number} passed its memory limit of {memory / 2**20:,.0f} MiB and was stopped", hint=MEMORY_HINT
        )
    lost = condition(pod, "DisruptionTarget")
    if status.get("reason") in ("Evicted", "Preempting", "NodeLost", "Shutdown") or lost:
        why = status.get("message") or (lost or {}).get("message") or ""
        said = f"the cluster took the place of job {number} away ({status.get('reason') or (lost or {}).get('reason')}): {why}"
        return JobCrashed(
            said.rstrip(": "), hint="start it again; ask for the memory that it needs, so that it need not give way"
        )
    how = f"exit status {ended['exitCode']}" if "exitCode" in ended else status.get("message") or "no reason is given"
    return JobCrashed(f"the pod of job {number} ended: {how}")


TIME_HINT = "give it more with LIMIT (TIME '…'), or less to do: LIMIT (ROWS n), fewer rounds"
MEMORY_HINT = "give it more with LIMIT (MEMORY '…'), or less to do: LIMIT (ROWS n), EXCLUDE (…)"


def told(error: Error, number: int, memory: int) -> Error:
    """An error that the pod told of, as the owner tells it: with the job's number and what can be done."""
    if isinstance(error, JobTimeout) and error.hint is None:
        return JobTimeout(error.message.replace("the job", f"job {number}", 1), hint=TIME_HINT)
    if isinstance(error, JobOutOfMemory) and error.hint is None:
        return JobOutOfMemory(
            f"job {number} passed its memory limit of {memory / 2**20:,.0f} MiB and was stopped", hint=MEMORY_HINT
        )
    return error
