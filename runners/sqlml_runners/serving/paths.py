"""The paths that are answered before FastAPI's router, and what they mean.  No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from sqlml_runners.serving.forms import EXPLAIN, INFER, ROWS, Form

_EXPLAIN = ":explain"


@dataclass(frozen=True)
class Target:
    """What a path means: an endpoint, maybe one version of it, and the form; without a form ``action`` says what.

    ``feedback`` keeps what turned out to be true; ``generate`` is FastAPI's to answer, once the request may come in.
    """

    name: str
    version: str | None = None
    form: Form | None = None
    action: str = ""


def parse_path(path: str) -> Target | None:
    """What a path means; None for one that is FastAPI's."""
    match path.split("/")[1:]:
        case ["models", name, "predict"] if name:
            return Target(name, form=ROWS)
        case ["models", name, "feedback"] if name:
            return Target(name, action="feedback")
        case ["models", name, "generate"] if name:
            return Target(name, action="generate")
        case ["models", name] if name.endswith(_EXPLAIN) and name != _EXPLAIN:
            return Target(name[: -len(_EXPLAIN)], form=EXPLAIN)
        case ["v2", "models", name, "infer"] if name:
            return Target(name, form=INFER)
        case ["v2", "models", name, "versions", version, "infer"] if name and version:
            return Target(name, version, INFER)
    return None
