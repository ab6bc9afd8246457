"""A stand-in for a Kubernetes cluster: its API for Jobs over HTTP, real objects, and containers that are real processes.

It knows the calls that a runner makes, refuses objects that Kubernetes would refuse (by the published schemas), and has one node,
this machine: a container's command is a child process with its environment, in a folder of its own, within a memory limit that is
held as the process runner holds its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml
from sqlml_runners.limits import MemoryLimit, limit_memory

Object = dict[str, Any]

TOKEN = "let-me-in"
_JOBS = re.compile(r"/apis/batch/v1/namespaces/([^/]+)/jobs(?:/([^/]+))?")
_CORE = re.compile(r"/api/v1/namespaces/([^/]+)/(pods|events)(?:/([^/]+)/log)?")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Container:
    """A container that runs, or has run."""

    process: subprocess.Popen[bytes]
    limit: MemoryLimit
    log: Path
    scratch: Path
    evicted: str | None = None
    late: bool = False
    exceeded: bool = False


@dataclass
class Cluster:
    """The cluster's objects by name, and what it is to do to the next Jobs."""

    folder: Path
    namespaces: tuple[str, ...] = ("default", "ml")
    images: tuple[str, ...] = ("registry.example/sqlml:1",)
    quota_cpu: float = 8.0
    room: bool = True  # whether a pod finds a node
    away: int = 0  # so many requests are answered with 503
    seen: list[str] = field(default_factory=list)
    jobs: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    events: list[Object] = field(default_factory=list)
    containers: dict[str, Container] = field(default_factory=dict)
    made: list[Object] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    url: str = ""

    def kubeconfig(self, token: str = TOKEN) -> Path:
        """A file as kubectl reads it."""
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        path = self.folder / f"kubeconfig-{token}"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    # --- what the controllers do ---

    def add(self, namespace: str, body: Object) -> Object:
        """Keep a Job and begin to run it."""
        name = body["metadata"]["name"]
        body["metadata"] |= {"namespace": namespace, "uid": name, "creationTimestamp": now()}
        body["status"] = {"startTime": now()}
        self.jobs[name] = body
        self.made.append(json.loads(json.dumps(body)))
        container = body["spec"]["template"]["spec"]["containers"][0]
        asked = float(container["resources"]["requests"]["cpu"].removesuffix("m")) / 1000
        if asked > self.quota_cpu:
            said = f'pods "{name}-x" is forbidden: exceeded quota: team, requests.cpu={asked:g}, limited: {self.quota_cpu:g}'
            self.note(namespace, name, "FailedCreate", f"Error creating: {said}")
            return body
        self._make_pod(namespace, name, body, container)
        return body

    def note(self, namespace: str, name: str, reason: str, message: str) -> None:
        about = {"kind": "Job", "name": name, "namespace": namespace}
        head = {"name": f"{name}.{len(self.events)}", "namespace": namespace}
        self.events.append({"metadata": head, "involvedObject": about, "reason": reason, "message": message, "type": "Warning"})

    def _make_pod(self, namespace: str, name: str, job: Object, container: Object) -> None:
        labels = {**job["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
        pod: Object = {
            "metadata": {"name": f"{name}-abcde", "namespace": namespace, "labels": labels},
            "spec": job["spec"]["template"]["spec"],
            "status": {"phase": "Pending", "conditions": []},
        }
        self.pods[pod["metadata"]["name"]] = pod
        if not self.room:
            said = "0/3 nodes are available: 3 Insufficient memory."
            pod["status"]["conditions"] = [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
            ]
        elif container["image"] not in self.images:
            said = f'Back-off pulling image "{container["image"]}"'
            self._set(pod, {"waiting": {"reason": "ImagePullBackOff", "message": said}})
        else:
            self._run(pod, job, container)

    def _set(self, pod: Object, state: Object, phase: str = "Pending") -> None:
        own = {"name": "job", "image": "i", "imageID": "i", "ready": "running" in state, "restartCount": 0, "state": state}
        pod["status"] |= {"phase": phase, "containerStatuses": [own]}

    def _run(self, pod: Object, job: Object, container: Object) -> None:
        name = pod["metadata"]["name"]
        scratch = self.folder / f"scratch-{name}"
        scratch.mkdir()
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        environment |= {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(scratch)}
        command = [sys.executable if part == "python" else part for part in container["command"]]
        log = self.folder / f"{name}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, cwd=scratch, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
        memory = int(container["resources"]["limits"]["memory"])
        own = self.containers[name] = Container(process, limit_memory(process.pid, memory), log, scratch)
        self._set(pod, {"running": {"startedAt": now()}}, "Running")
        threading.Thread(target=self._watch, args=(pod, job, own), daemon=True).start()

    def _watch(self, pod: Object, job: Object, own: Container) -> None:
        seconds = job["spec"].get("activeDeadlineSeconds")
        until = time.monotonic() + seconds if seconds else None
        while own.process.poll() is None:
            time.sleep(0.05)
            if own.limit.exceeded():
                own.exceeded = True
                self.kill(own)
            if until is not None and time.monotonic() > until:
                own.late = True
                self.kill(own)
        own.exceeded = own.exceeded or own.limit.exceeded()
        for _ in range(20):  # the kernel may count its kill a moment after it
            if own.exceeded or own.evicted or own.late or own.process.returncode != -9:
                break
            time.sleep(0.05)
            own.exceeded = own.limit.exceeded()
        own.limit.close()
        with self.lock:
            self._ended(pod, job, own)
        shutil.rmtree(own.scratch, ignore_errors=True)

    def _ended(self, pod: Object, job: Object, own: Container) -> None:
        status = own.process.returncode
        code = 128 - status if status < 0 else status
        reason = "OOMKilled" if own.exceeded else "Completed" if code == 0 else "Error"
        self._set(pod, {"terminated": {"exitCode": code, "reason": reason}}, "Succeeded" if code == 0 else "Failed")
        if own.evicted:
            pod["status"] |= {"reason": "Evicted", "message": own.evicted}
        kind = "Complete" if code == 0 else "Failed"
        why = "DeadlineExceeded" if own.late else "BackoffLimitExceeded" if code else "CompletionsReached"
        job["status"]["conditions"] = [{"type": kind, "status": "True", "reason": why, "message": why}]

    @staticmethod
    def kill(own: Container) -> None:
        with suppress(ProcessLookupError):
            os.killpg(own.process.pid, 9)

    def evict(self, message: str) -> None:
        """Take the place of every running pod away."""
        with self.lock:
            for own in self.containers.values():
                own.evicted = message
                self.kill(own)

    def remove(self, name: str) -> None:
        """Delete a Job: its pod gets SIGTERM, and SIGKILL when its grace is over."""
        job = self.jobs.pop(name)
        pod = f"{name}-abcde"
        self.pods.pop(pod, None)
        own = self.containers.get(pod)
        if own is not None and own.process.poll() is None:
            own.process.terminate()
            grace = job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            threading.Timer(grace, self.kill, [own]).start()

    def close(self) -> None:
        for own in self.containers.values():
            self.kill(own)


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

        def answer(self, status: int, document: Object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, message: str) -> None:
            self.answer(status, {"kind": "Status", "status": "Failure", "message": message, "code": status})

        def body(self) -> Object:
            return dict(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"))

        def handle_request(self, act: Callable[[str], None]) -> None:
            cluster.seen.append(f"{self.command} {self.path}")
            self.content = self.body()
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refuse(401, "Unauthorized")
            elif cluster.away > 0:
                cluster.away -= 1
                self.refuse(503, "the apiserver is being updated")
            else:
                act(urlsplit(self.path).path)

        def do_POST(self) -> None:
            self.handle_request(self.create)

        def do_GET(self) -> None:
            self.handle_request(self.read)

        def do_DELETE(self) -> None:
            self.handle_request(self.delete)

        def create(self, path: str) -> None:
            found = _JOBS.fullmatch(path)
            if found is None or found[1] not in cluster.namespaces:
                self.refuse(404, f'namespaces "{found[1] if found else path}" not found')
                return
            try:
                kubernetes_validate.validate(self.content, kubernetes_validate.latest_version(), strict=True)
            except kubernetes_validate.ValidationError as error:
                self.refuse(422, str(error.message))
                return
            with cluster.lock:
                self.answer(201, cluster.add(found[1], self.content))

        def read(self, path: str) -> None:
            job, core = _JOBS.fullmatch(path), _CORE.fullmatch(path)
            query = parse_qs(urlsplit(self.path).query)
            if job and job[2]:
                with cluster.lock:
                    known = cluster.jobs.get(job[2])
                    self.answer(200, known) if known else self.refuse(404, f'jobs.batch "{job[2]}" not found')
            elif core and core[3]:
                self.send_log(core[3])
            elif core:
                with cluster.lock:
                    self.answer(200, {"items": self.chosen(core[2], query)})
            else:
                self.refuse(404, f"the server could not find {path}")

        def chosen(self, kind: str, query: Mapping[str, list[str]]) -> list[Object]:
            if kind == "events":
                name = query["fieldSelector"][0].partition("=")[2]
                return [event for event in cluster.events if event["involvedObject"]["name"] == name]
            key, _, value = query["labelSelector"][0].partition("=")
            return [pod for pod in cluster.pods.values() if pod["metadata"]["labels"].get(key) == value]

        def send_log(self, pod: str) -> None:
            own = cluster.containers[pod]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with own.log.open("rb") as log:
                over = False
                while not over:
                    over = own.process.poll() is not None
                    while piece := log.read(1000):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    time.sleep(0.02)
            self.wfile.write(b"0\r\n\r\n")

        def delete(self, path: str) -> None:
            found = _JOBS.fullmatch(path)
            with cluster.lock:
                if found is None or found[2] not in cluster.jobs:
                    self.refuse(404, "not found")
                    return
                cluster.remove(found[2])
                self.answer(200, {"kind": "Status", "status": "Success"})

    return Handler


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster whose API listens on loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    server.daemon_threads = True
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        cluster.close()
        server.shutdown()
        server.server_close()
