"""``python -m tests.soak.swapper HOME REPLICAS RATE UID UID``: swaps two versions while told to, in a process of its own.

``go`` and ``rest`` come on the standard input; at its end the number of swaps is printed.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from sqlml_runners.serving.control import LocalServer

from sqlml.catalog import Catalog
from sqlml.catalog.shares import Share


def put_version(catalog: Catalog, server: LocalServer, uid: str, replicas: int) -> None:
    """Put a version behind the endpoint ``m`` and wait until it is warm in every worker."""
    revision = catalog.put_endpoint("m", [Share(uid)], options={"replicas": replicas}, reason="soak")
    server.wait_ready("m", revision, 30)


def main() -> int:
    """Swap until the input ends."""
    home, replicas, rate, *uids = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]
    catalog, server = Catalog.open(home), LocalServer(home)
    going, over = threading.Event(), threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            going.set() if line.strip() == "go" else going.clear()
        over.set()
        going.set()

    threading.Thread(target=listen, daemon=True).start()
    print("ready", flush=True)
    swaps = 0
    while not over.is_set():
        going.wait()
        began = time.monotonic()
        swaps += 1
        put_version(catalog, server, uids[swaps % len(uids)], replicas)
        time.sleep(max(0.0, began + 1 / rate - time.monotonic()))
    print(swaps)
    catalog.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
