"""The cluster's API, by the official client: the few calls that a job needs, their errors as ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlml.errors import OperationalError
from sqlml.registry import missing_extra
from sqlml_runners.kubernetes.objects import CONTAINER, Object

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and without a word of an answer."""


LOG_TIMEOUT = (10.0, 3600.0)
"""The same for a log that is followed: a job may have nothing to say for long."""


class Unreachable(OperationalError):
    """The API did not answer: it may do so again."""


class Cluster:
    """One namespace of a cluster.  Opened at the first call."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self.namespace = str(options["namespace"])

    def create(self, job: Object) -> None:
        """Make a Job."""
        with self._asking("make a job"):
            self._batch.create_namespaced_job(self.namespace, job, _request_timeout=TIMEOUT)

    def job(self, name: str) -> Object | None:
        """A Job as it is; None where it is gone."""
        with self._asking("look at a job"):
            return self._plain(lambda: self._batch.read_namespaced_job(name, self.namespace, _request_timeout=TIMEOUT))

    def pod(self, job: str) -> Object | None:
        """The pod of a Job; None where there is none."""
        with self._asking("look at a pod"):
            found = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"batch.kubernetes.io/job-name={job}", _request_timeout=TIMEOUT
            )
            pods = self._client.sanitize_for_serialization(found)["items"]
            return pods[-1] if pods else None

    def events(self, name: str) -> list[Object]:
        """What the cluster noted of an object, the oldest first."""
        with self._asking("read events"):
            found = self._core.list_namespaced_event(
                self.namespace, field_selector=f"involvedObject.name={name}", _request_timeout=TIMEOUT
            )
            return list(self._client.sanitize_for_serialization(found)["items"])

    def log(self, pod: str) -> Iterator[bytes]:
        """The log of a pod from its beginning, piece by piece, as long as it runs."""
        with self._asking("read a log"):
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=CONTAINER, follow=True, _preload_content=False, _request_timeout=LOG_TIMEOUT
            )
            try:
                yield from answer.stream(amt=2**16, decode_content=False)
            finally:
                answer.close()

    def delete(self, name: str) -> None:
        """Take a Job away with its pod, which gets SIGTERM first; nothing happens where it is gone."""
        with self._asking("delete a job"):
            self._plain(
                lambda: self._batch.delete_namespaced_job(
                    name, self.namespace, propagation_policy="Background", _request_timeout=TIMEOUT
                )
            )

    # --- the client ---

    @cached_property
    def _client(self) -> Any:
        try:
            from kubernetes import client, config
            from kubernetes.config.config_exception import ConfigException
        except ModuleNotFoundError as error:
            raise missing_extra(error) from error
        file = self._options.get("kubeconfig")
        path = str(Path(file).expanduser()) if file else None
        try:
            return config.new_client_from_config(path, self._options.get("context"), persist_config=False)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            if file or self._options.get("context"):
                hint = "is the file there, and does it have the context? kubectl config get-contexts"
                raise OperationalError(f"the cluster's settings cannot be used: {error}", hint=hint) from error
        try:
            own = client.Configuration()
            config.load_incluster_config(client_configuration=own)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            hint = "WITH (kubeconfig = 'path') of the runner, or KUBECONFIG"
            raise OperationalError("nothing tells how to reach a cluster: there is no kubeconfig", hint=hint) from error
        return client.ApiClient(own)

    @cached_property
    def _batch(self) -> Any:
        from kubernetes import client

        return client.BatchV1Api(self._client)

    @cached_property
    def _core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api(self._client)

    def _plain(self, ask: Any) -> Object | None:
        """An answer as a dictionary; None for 404."""
        from kubernetes.client import ApiException

        try:
            found: Object = self._client.sanitize_for_serialization(ask())
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        client = self._client
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise _api_error(error, what, self.namespace) from error
        except (HTTPError, OSError) as error:
            host = client.configuration.host
            reason = str(getattr(error, "reason", None) or error)
            raise Unreachable(
                f"the cluster at {host} does not answer: {reason}", hint="is it up, and is the context right?"
            ) from error


def _api_error(error: Any, what: str, namespace: str) -> OperationalError:
    """An error of the API in words."""
    said = _message(error)
    if error.status == 401:
        hint = "log in again, and see with kubectl whether it works"
        return OperationalError(f"the cluster does not know who asks: {said}", hint=hint)
    if error.status == 403 and "quota" in said:
        hint = "ask for less (cpu, memory, gpu of the runner, LIMIT (MEMORY …)), or for a larger quota"
        return OperationalError(f"the quota of namespace {namespace} is used up: {said}", hint=hint)
    if error.status == 403:
        hint = f"who asks needs rights in {namespace}: create, get and delete jobs; list pods and events; get logs of pods"
        return OperationalError(f"the cluster does not let us {what}: {said}", hint=hint)
    if error.status == 404:
        return OperationalError(f"the cluster cannot {what}: {said}", hint=f"is there a namespace {namespace}?")
    kind = Unreachable if error.status in (429, 500, 502, 503, 504) else OperationalError
    return kind(f"the cluster cannot {what}: {said} (HTTP {error.status})", hint="see its own log")


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        return str(error.reason)
