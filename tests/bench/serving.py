"""``python -m tests.bench serving``: an endpoint beside other servers of its model, on one processor; the load is on another.

1.00 is ``echo``: a bare ASGI function on the same uvicorn that decodes the rows and answers with them, without any model (``raw``
does not even decode).  The model is XGBoost's, 100 trees of depth 6 on 28 numbers.  Every server's answers are checked first.
``sqlml`` has API keys, figures, the access log and the prediction log on; ``sqlml (no log)`` has no prediction log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from sqlml_runners.serving.control import LocalServer

import sqlml
from sqlml.catalog import Catalog
from sqlml.home import home_of
from tests.bench.serving_load import Load, Target, has_wrk, load, pinned
from tests.bench.serving_peers import FEATURES

SERVER_CPU, LOAD_CPU = 1, 0
BODIES = 64
PEERS = ("echo", "raw", "sqlml", "sqlml (no log)", "fastapi_ort", "fastapi_xgb", "mlserver")
SHAPES = ((1, 1), (1, 32), (32, 1), (32, 32))
"""Rows of a request, and connections."""
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Case:
    """What one server did with requests of so many rows over so many connections."""

    server: str
    rows: int
    connections: int
    load: Load
    processor: float  # seconds of the server's processes for each answer


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each figure")
    parser.add_argument("--rounds", type=int, default=1, help="every server in turn, so often; the best of each figure counts")
    parser.add_argument("--servers", default=",".join(PEERS), help="which, by comma")
    parser.add_argument("--mlserver", action="store_true", help="install MLServer in an environment of its own (1 GB)")
    parser.add_argument("--folder", type=Path, help="keep the model and the bodies here, and use those that are there")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    if not has_wrk():
        print("wrk is not installed (Debian: apt-get install wrk): a slower load of our own is used")
    with tempfile.TemporaryDirectory(prefix="sqlml-serving-") as temporary:
        place = prepare(options.folder or Path(temporary))
        cases = [
            case
            for _ in range(options.rounds)
            for name in options.servers.split(",")
            for case in measure(place, name, options.seconds, options.mlserver)
        ]
    figures = ratios(cases)
    print_table(figures)
    if options.json:
        options.json.write_text(
            json.dumps({"cases": [asdict(case) for case in cases], "ratios": figures}, indent=1), encoding="utf-8"
        )


@dataclass(frozen=True)
class Place:
    """The model in each form, the bodies, and the answers that are right."""

    folder: Path
    home: Path
    key: str
    bodies: Mapping[int, tuple[bytes, ...]]
    expected: Mapping[int, list[float]]  # of the first body: the probability of the second class


def prepare(folder: Path) -> Place:
    """The model by SQL, deployed twice, and written as others read it."""
    folder.mkdir(exist_ok=True)
    database = folder / "bench.duckdb"
    if not (folder / "key").exists():
        make_model(folder, database)
    home = home_of(database)
    with contextlib.closing(Catalog.open(home)) as catalog:
        bundle = catalog.resolve("m").bundle
    shutil.copy(bundle / "model.onnx", folder)
    write_json_model(bundle / "native" / "model.ubj", folder / "model.json")
    rng = np.random.default_rng(1)
    tables = {rows: rng.standard_normal((BODIES, rows, len(FEATURES)), dtype=np.float32) for rows, _ in SHAPES}
    bodies = {rows: tuple(_body(one) for one in table) for rows, table in tables.items()}
    key = (folder / "key").read_text(encoding="utf-8")
    return Place(folder, home, key, bodies, {rows: right_answers(bundle, table[0]) for rows, table in tables.items()})


def make_model(folder: Path, database: Path) -> None:
    """A table, a model and two endpoints, by SQL."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, len(FEATURES)), dtype=np.float32)
    y = x[:, 0] * x[:, 1] + np.sin(x[:, 2] * 2) + x[:, 3] + rng.standard_normal(len(x)) > 0
    table = pa.table({name: x[:, i] for i, name in enumerate(FEATURES)} | {"y": np.where(y, "yes", "no")})
    pq.write_table(table, folder / "t.parquet")
    with sqlml.connect(database) as connection:
        connection.execute(f"CREATE TABLE t AS FROM '{folder / 't.parquet'}'")
        options = "WITH (n_estimators = 100, max_depth = 6)"
        connection.execute(f"TRAIN MODEL m USING xgboost_classifier TARGET y SPLIT NONE {options} AS FROM t")
        connection.execute("DEPLOY MODEL m TO ENDPOINT m WITH (auth = 'key')")
        connection.execute("DEPLOY MODEL m TO ENDPOINT quiet WITH (auth = 'key', log = 0)")
        [(_, key)] = [row[:2] for row in connection.execute("CREATE API KEY bench FOR ENDPOINT m, quiet").fetchall()]
    LocalServer(home_of(database)).stop()  # the bench starts its own, on its processor
    (folder / "key").write_text(key, encoding="utf-8")


def _body(rows: np.ndarray) -> bytes:
    return json.dumps({"rows": [dict(zip(FEATURES, map(float, row), strict=True)) for row in rows]}).encode()


def right_answers(bundle: Path, x: np.ndarray) -> list[float]:
    """By the library itself."""
    from sqlml.bundles.model import Model

    answers: list[float] = Model.open(bundle).predictor.predict(x)[:, 1].tolist()
    return answers


def write_json_model(source: Path, target: Path) -> None:
    """XGBoost's model as its scikit-learn face reads it."""
    import xgboost

    booster = xgboost.Booster(model_file=source)
    booster.feature_names = booster.feature_types = None
    booster.save_model(target)


def measure(place: Place, name: str, seconds: float, mlserver: bool) -> Iterator[Case]:
    """One server under every load."""
    if name == "mlserver" and not mlserver:
        print("mlserver: skipped (give --mlserver: it is installed in an environment of its own, 1 GB)")
        return
    with serving(place, name) as running:
        if running is None:
            return
        target, process = running
        settle(process)
        for rows, connections in SHAPES:
            check(place, name, target, rows)
            bodies = [as_infer(body) for body in place.bodies[rows]] if name == "mlserver" else place.bodies[rows]
            load(target, bodies, connections, 1.0, place.folder, LOAD_CPU)
            before = processor_seconds(process)
            found = load(target, bodies, connections, seconds, place.folder, LOAD_CPU)
            spent = processor_seconds(process) - before
            if found.refused or found.failed:
                print(f"{name}: {found.refused} answers were refusals, {found.failed} connections failed")
            yield Case(name, rows, connections, found, spent / max(1.0, found.rps * found.seconds))


@contextlib.contextmanager
def serving(place: Place, name: str) -> Iterator[tuple[Target, psutil.Process] | None]:
    """A server, running on its processor, and its process; None where it cannot be had, with the reason printed."""
    port = free_port()
    path = (
        "/v2/models/m/infer"
        if name == "mlserver"
        else "/models/quiet/predict"
        if name == "sqlml (no log)"
        else "/models/m/predict"
    )
    target = Target(f"http://127.0.0.1:{port}", path, place.key if name.startswith("sqlml") else None)
    command = command_of(place, name, port)
    if command is None:
        yield None
        return
    log = (place.folder / f"{name}.log").open("wb")
    process = subprocess.Popen(pinned(command, SERVER_CPU), stdout=log, stderr=log, cwd=place.folder)
    try:
        wait_for(place, name, target, process, place.folder / f"{name}.log")
        yield target, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def processor_seconds(process: psutil.Process) -> float:
    """How long a process and its children have computed."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def settle(process: psutil.Process) -> None:
    """Until a server that was just started computes nothing any more: sqlml's imports libraries for workers to come."""
    deadline, before = time.monotonic() + _START_SECONDS, processor_seconds(process)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = processor_seconds(process)
        if now - before < 0.1:
            return
        before = now


def command_of(place: Place, name: str, port: int) -> list[str] | None:
    if name.startswith("sqlml"):
        return [sys.executable, "-m", "sqlml_runners.serving", "--home", str(place.home), "--port", str(port), "--foreground"]
    if name == "mlserver":
        from tests.bench.serving_mlserver import command_of_mlserver

        return command_of_mlserver(place.folder, port, len(FEATURES))
    return [sys.executable, "-m", "tests.bench.serving_peers", name, str(port), str(place.folder)]


def wait_for(place: Place, name: str, target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers rightly."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            check(place, name, target, 1)
            return
        except OSError as error:  # it does not listen yet, or its model is not warm
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer: {error}\n{log.read_text(errors='replace')[-2000:]}") from error
        time.sleep(0.2)


def check(place: Place, name: str, target: Target, rows: int) -> None:
    """The first body's answers are the model's, to 1e-5."""
    body = place.bodies[rows][0]
    if name == "mlserver":
        body = as_infer(body)
    request = urllib.request.Request(target.url + target.path, body, {"content-type": "application/json"})
    if target.key:
        request.add_header("authorization", f"Bearer {target.key}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        document = json.load(answer)
    if name in ("echo", "raw"):
        assert len(document["rows"]) == rows
        return
    np.testing.assert_allclose(answers_of(name, document), place.expected[rows], atol=1e-5)


def answers_of(name: str, document: Any) -> list[float]:
    if name == "mlserver":
        flat: list[float] = document["outputs"][0]["data"]
        return flat[1::2] if document["outputs"][0]["shape"][-1] == 2 else flat
    predictions = document["predictions"]
    return [row["predicted_y_probs"]["yes"] if name.startswith("sqlml") else row["yes"] for row in predictions]


def as_infer(body: bytes) -> bytes:
    """The same rows as one tensor of the Open Inference Protocol."""
    rows = [list(row.values()) for row in json.loads(body)["rows"]]
    tensor = {"name": "x", "shape": [len(rows), len(FEATURES)], "datatype": "FP32", "data": [v for row in rows for v in row]}
    return json.dumps({"inputs": [tensor]}).encode()


def ratios(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Each figure beside echo's, the best of all rounds."""
    best: dict[tuple[str, int, int], Case] = {}
    for case in cases:
        key = (case.server, case.rows, case.connections)
        if key not in best or case.load.rps > best[key].load.rps:
            best[key] = case
    found = []
    for (server, rows, connections), case in best.items():
        own, echo = case.load, best.get(("echo", rows, connections))
        entry = {"server": server, "rows": rows, "connections": connections, "rps": round(own.rps), "p50_ms": own.p50 * 1e3,
                 "p99_ms": own.p99 * 1e3, "processor_us": case.processor * 1e6}  # fmt: skip
        if echo is not None:
            entry |= {
                "x_echo": own.rps / echo.load.rps,
                "x_echo_processor": echo.processor / case.processor,
                "p50_x_echo": own.p50 / echo.load.p50,
                "p99_x_echo": own.p99 / echo.load.p99,
            }
        found.append(entry)
    return found


def print_table(figures: Sequence[Mapping[str, Any]]) -> None:
    """``cpu``: microseconds of the server's processor for each answer, and echo's over them: other work does not move them."""
    print(
        f"{'server':16}{'rows':>5}{'conns':>6}{'x echo':>8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'p50 x':>7}{'p99 x':>7}"
        f"{'cpu us':>9}{'x echo':>8}"
    )
    for f in figures:
        print(
            f"{f['server']:16}{f['rows']:5}{f['connections']:6}{f.get('x_echo', 0):8.2f}{f['rps']:12,}{f['p50_ms']:9.2f}"
            f"{f['p99_ms']:9.2f}{f.get('p50_x_echo', 0):7.2f}{f.get('p99_x_echo', 0):7.2f}"
            f"{f['processor_us']:9.0f}{f.get('x_echo_processor', 0):8.2f}"
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main(sys.argv[1:])
