"""Load on a server: ``wrk`` where it is installed, else a small closed loop of our own, which is slower and says so.

Each connection sends a request, waits for the answer, and sends the next; 64 bodies take turns.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LUA = """
local bodies, requests, i = {}, {}, 0
init = function(args)
  for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
  local headers = {["content-type"] = "application/json"}
  if args[3] then headers["authorization"] = args[3] end
  for j = 1, #bodies do requests[j] = wrk.format("POST", args[2], headers, bodies[j]) end
end
request = function() i = i % #requests + 1; return requests[i] end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('{"requests": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, "refused": %d, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What a load gave: answers a second, latencies in seconds, answers that were not 2xx, and connections that failed."""

    rps: float
    p50: float
    p99: float
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0  # that it took


@dataclass(frozen=True)
class Target:
    """Where to send what."""

    url: str  # scheme, host and port
    path: str
    key: str | None = None


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def load(target: Target, bodies: Sequence[bytes], connections: int, seconds: float, folder: Path, cpu: int | None) -> Load:
    """Load a server for some seconds, from one processor."""
    if has_wrk():
        return _wrk(target, bodies, connections, seconds, folder, cpu)
    return asyncio.run(_own(target, bodies, connections, seconds))


def pinned(command: Sequence[str], cpu: int | None) -> list[str]:
    """A command held to one processor, where that can be."""
    return ["taskset", "-c", str(cpu), *command] if cpu is not None and shutil.which("taskset") else list(command)


def _wrk(target: Target, bodies: Sequence[bytes], connections: int, seconds: float, folder: Path, cpu: int | None) -> Load:
    (folder / "load.lua").write_text(LUA, encoding="utf-8")
    (folder / "bodies.txt").write_bytes(b"\n".join(bodies) + b"\n")
    more = [f"Bearer {target.key}"] if target.key else []
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(folder / "load.lua"), target.url, "--",
               str(folder / "bodies.txt"), target.path, *more]  # fmt: skip
    done = subprocess.run(pinned(command, cpu), capture_output=True, text=True, check=True, timeout=seconds + 60)
    found = json.loads(done.stdout.splitlines()[-1])
    return Load(
        found["requests"] / found["seconds"], found["p50"], found["p99"], found["refused"], found["failed"], found["seconds"]
    )


async def _own(target: Target, bodies: Sequence[bytes], connections: int, seconds: float) -> Load:
    host, _, port = target.url.removeprefix("http://").partition(":")
    head = f"POST {target.path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {target.key}\r\n" if target.key else ""
    requests = [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    latencies, refused, end = list[float](), 0, time.perf_counter() + seconds

    async def ask(first: int) -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection(host, int(port))
        i = first
        while time.perf_counter() < end:
            began = time.perf_counter()
            writer.write(requests[i % len(requests)])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
            latencies.append(time.perf_counter() - began)
            refused += answer.split(b" ", 2)[1] != b"200"
            i += 1
        writer.close()

    await asyncio.gather(*(ask(i) for i in range(connections)))
    cuts = statistics.quantiles(latencies, n=100)
    return Load(len(latencies) / seconds, cuts[49], cuts[98], refused, 0, seconds)
