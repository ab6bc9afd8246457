"""Other servers of the same model, each as plain as its documentation shows.

    python -m tests.bench.serving_peers NAME PORT FOLDER

``echo`` and ``raw`` have no model: ``echo`` decodes the rows by msgspec and answers with the same rows, encoded; ``raw`` answers
with the body's bytes.  Both are bare ASGI functions on the uvicorn that sqlml uses, with the same settings.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

FEATURES = tuple(f"f{i}" for i in range(28))
NAMES = ("echo", "raw", "fastapi_ort", "fastapi_xgb")


def echo(raw: bool) -> Any:
    """The floor: what the HTTP server alone can do."""
    row = msgspec.defstruct("Row", [(name, float | None, None) for name in FEATURES], forbid_unknown_fields=True, gc=False)
    body = msgspec.defstruct("Body", [("rows", list[row])], gc=False)  # type: ignore[valid-type]
    decode, encode = msgspec.json.Decoder(body).decode, msgspec.json.Encoder().encode

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        content = message["body"]
        while message["more_body"]:
            message = await receive()
            content += message["body"]
        answer = content if raw else encode(decode(content))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def fastapi(predict: Any) -> FastAPI:
    """FastAPI with pydantic's models, as its tutorial has it; the route is a plain function, which FastAPI runs in a thread, or
    an async one where the model is quick.
    """
    row: Any = create_model("Row", **dict.fromkeys(FEATURES, (float | None, None)))  # type: ignore[call-overload]

    request: Any = create_model("Body", rows=(list[row], ...))
    response: Any = create_model("Answer", predictions=(list[dict[str, float]], ...))
    app = FastAPI()

    async def answer(body: Any) -> Any:
        x = np.array([[getattr(r, name) for name in FEATURES] for r in body.rows], np.float32)
        return {"predictions": [{"no": 1.0 - p, "yes": p} for p in predict(x)]}

    answer.__annotations__["body"] = request  # a type of this function's own: its name alone would tell FastAPI nothing
    app.post("/models/m/predict", response_model=response)(answer)
    return app


def fastapi_ort(folder: Path) -> FastAPI:
    """ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return fastapi(lambda x: session.run(None, {"x": x})[0][:, 1].tolist())


def fastapi_xgb(folder: Path) -> FastAPI:
    """``XGBClassifier.predict_proba`` on one thread."""
    import xgboost

    model = xgboost.XGBClassifier(n_jobs=1)
    model.load_model(folder / "model.json")
    return fastapi(lambda x: model.predict_proba(x)[:, 1].tolist())


def main() -> None:
    name, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    makers = {
        "echo": lambda: echo(raw=False),
        "raw": lambda: echo(raw=True),
        "fastapi_ort": lambda: fastapi_ort(folder),
        "fastapi_xgb": lambda: fastapi_xgb(folder),
    }
    uvicorn.run(
        makers[name](),  # type: ignore[no-untyped-call]
        host="127.0.0.1", port=port, http="httptools", loop="uvloop", ws="none", log_level="warning",
        access_log=False, server_header=False, proxy_headers=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
