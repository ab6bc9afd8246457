"""``python -m sqlml_runners.serving --home DIR``: serve the endpoints of one home until told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlml.errors import Error, ServingError
from sqlml.home import CATALOG_VARIABLE
from sqlml.server_settings import origins_of, read_settings
from sqlml_runners.serving.options import ServerOptions
from sqlml_runners.serving.server import log_to_file, log_to_stderr, run_server

CORS = "let pages of this origin ask, such as https://shop.example; again for more, * for all (default: none)"
OPEN_METRICS = "let callers on other machines see the figures without a key that opens all endpoints"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit status is 1 where that was not possible, with one clear line on stderr and in the log."""
    try:
        options = _parse(arguments)
    except Error as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    try:
        log_to_stderr() if options.foreground else log_to_file(options.home)
        run_server(options)
    except (Error, OSError) as error:
        logging.getLogger("sqlml.serving").error("%s", error)
        if not options.foreground:
            sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> ServerOptions:
    parser = argparse.ArgumentParser(prog="python -m sqlml_runners.serving", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the models' folder, such as bank.sqlml")
    parser.add_argument(
        "--catalog",
        metavar="URL",
        default=os.environ.get(CATALOG_VARIABLE),
        help=f"the catalog's SQLAlchemy URL, where it is not in the home (or in {CATALOG_VARIABLE}: it may hold a password)",
    )
    parser.add_argument(
        "--frozen",
        type=Path,
        metavar="FILE",
        help="serve what EXPORT ENDPOINT wrote, with no catalog; the home is for logs alone",
    )
    parser.add_argument("--arm", metavar="MODEL@VERSION", help="with --frozen: only this version, with all of the traffic")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, help="the port to listen on (default: 8080 where it is free, else any)")
    parser.add_argument("--grpc-port", type=int, metavar="PORT", help="speak gRPC, too, at this port (0: a free one)")
    parser.add_argument(
        "--tls-cert", type=_file, metavar="FILE", help="speak https: the certificate, and those that signed it (PEM)"
    )
    parser.add_argument("--tls-key", type=_file, metavar="FILE", help="the private key of the certificate (PEM)")
    parser.add_argument("--cors-origin", action="append", metavar="ORIGIN", help=CORS)
    parser.add_argument("--open-metrics", action="store_true", help=OPEN_METRICS)
    parser.add_argument("--foreground", action="store_true", help="log to the terminal, and stay when nothing is deployed")
    parser.add_argument("--idle-seconds", type=float, default=30, help="leave after so long without any endpoint")
    parser.add_argument("--linger-seconds", type=float, default=2, help="leave so long after the last endpoint was undeployed")
    parser.add_argument(
        "--memory", type=int, metavar="BYTES", help="of models, all workers together (default: half the machine's)"
    )
    parser.add_argument("--calm-seconds", type=float, default=30, help="let a worker go after so long with too little to do")
    parser.add_argument("--hang-seconds", type=float, default=30, help="replace a worker that has been stuck for so long")
    given = vars(parser.parse_args(arguments))
    given = _with_settings(given) if given["frozen"] is None else given
    origins = given.pop("cors_origin")
    try:
        given["cors"] = origins_of(None if origins is None else ",".join(origins))
    except ValueError as error:
        raise ServingError(f"--cors-origin, or cors_origins of ALTER ENDPOINTS SET: {error}") from None
    if given["arm"] and not given["frozen"]:
        parser.error("--arm needs --frozen")
    if bool(given["tls_cert"]) != bool(given["tls_key"]):
        parser.error("--tls-cert and --tls-key need each other")
    return ServerOptions(**given | {"home": given["home"].absolute()})


def _with_settings(given: dict[str, Any]) -> dict[str, Any]:
    """What the command line says, and for the rest what ALTER ENDPOINTS SET has kept.  A certificate goes with its key."""
    kept = read_settings(given["home"])
    plain = {"port": kept.get("port"), "grpc_port": kept.get("grpc_port"), "cors_origin": None}
    if kept.get("cors_origins"):
        plain["cors_origin"] = [kept["cors_origins"]]
    if not given["tls_cert"] and not given["tls_key"] and kept.get("tls_certificate"):
        plain |= {"tls_cert": Path(kept["tls_certificate"]), "tls_key": Path(kept["tls_key"])}
    return given | {name: value for name, value in plain.items() if given[name] is None}


def _file(text: str) -> Path:
    return Path(text).absolute()


if __name__ == "__main__":
    sys.exit(main())
