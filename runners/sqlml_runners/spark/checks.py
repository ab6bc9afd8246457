"""What Spark cannot do of a job, told before any row is read and before Spark is started."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from sqlml.contracts import Algorithm
from sqlml.errors import NotSupportedError, OperationalError
from sqlml.plan import PredictPlan, TrainPlan
from sqlml.registry import candidates
from sqlml_runners.checks import check_folder

ABLE = (
    "xgboost_classifier",
    "xgboost_regressor",
    "logistic_regression",
    "linear_regression",
    "kmeans",
)
"""The algorithms that learn on a cluster."""


def able_algorithms(plan: TrainPlan) -> tuple[Algorithm, ...]:
    """What may be meant by the plan's algorithm.  ``NotSupportedError`` for one that does not learn on a cluster."""
    able = candidates(plan.algorithm)
    if any(algorithm.name not in ABLE for algorithm in able):
        named = plan.algorithm or able[0].name
        raise NotSupportedError(
            f"{named} does not learn on Spark",
            hint=f"ON process trains it; on Spark there are: {', '.join(ABLE)}",
            about="algorithm" if plan.algorithm else "runner",
        )
    return able


def check_limits(plan: TrainPlan | PredictPlan, name: str) -> None:
    """``NotSupportedError`` for a memory limit, which only the executors' own settings can be."""
    if plan.limits.memory:
        raise NotSupportedError(
            f"the runner {name} cannot hold a memory limit: Spark's executors have their own",
            hint="leave out LIMIT (MEMORY …), and set it for all jobs: WITH (memory = '4 GB') of the runner",
            about="limit",
        )


def check_training(kind: str, plan: TrainPlan, name: str, connect: bool) -> None:
    """``NotSupportedError`` for what cannot be trained on Spark; ``connect``: over Spark Connect."""
    able = able_algorithms(plan)
    method = next((value for key, value in plan.options.items() if key.lower() == "tree_method"), None)
    if any(is_boosted(algorithm) for algorithm in able) and method == "exact":
        raise NotSupportedError(
            "tree_method = 'exact' cannot be distributed",
            hint="tree_method = 'hist' or 'approx', or ON process",
            about="tree_method",
        )
    asked = (
        ("EVALUATE WITH (folds = …)", "folds", kind == "folds"),
        ("TUNE", "tune", plan.tune is not None),
        ("WARM START", "warm_start", plan.start is not None),
        ("more than one target", "target", len(plan.targets) > 1),
        ("TRAIN over Spark Connect", "runner", connect),
    )
    for what, about, wanted in asked:
        if wanted:
            hint = "ON process does it"
            if connect and what.startswith("TRAIN"):
                hint = "xgboost.spark and MLlib need a session of their own: WITH (master = '…') of the runner, or ON process"
            raise NotSupportedError(f"{what} does not run on Spark ({name})", hint=hint, about=about)


def is_boosted(algorithm: Algorithm) -> bool:
    """Whether it is trained by xgboost.spark: its workers run at the same time or not at all."""
    return algorithm.name.startswith("xgboost")


def check_workers(plan: TrainPlan, options: Mapping[str, Any]) -> None:
    """``OperationalError`` for more workers than the master, by its name, runs tasks at once."""
    wanted, slots = options.get("workers"), _slots(str(options.get("master") or ""))
    if wanted and slots and wanted > slots and all(is_boosted(algorithm) for algorithm in candidates(plan.algorithm)):
        raise too_many_workers(wanted, slots)


def too_many_workers(wanted: int, slots: int) -> OperationalError:
    """The error for workers that would wait for each other forever."""
    return OperationalError(
        f"xgboost needs its {wanted} workers at the same time, and the cluster runs {slots} tasks at once",
        hint=f"WITH (workers = {slots}) of the runner, or give the cluster more cores",
        about="runner",
    )


def _slots(master: str) -> int | None:
    """How many tasks run at once, where a master's name says it."""
    alone = re.fullmatch(r"local(?:\[(\d+)(?:,\s*\d+)?\])?", master)
    if alone:
        return int(alone[1] or 1)
    several = re.fullmatch(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,.*\]", master)
    return int(several[1]) * int(several[2]) if several else None


def master_of(options: Mapping[str, Any]) -> str:
    """The master that a session of these options has, where none runs yet."""
    return str(options.get("master") or os.environ.get("MASTER") or "local[*]")


def is_local(options: Mapping[str, Any]) -> bool:
    """Whether executors see this machine's files, as far as the options tell."""
    if options.get("connect"):
        host = str(options["connect"]).removeprefix("sc://").partition("/")[0].rpartition(":")[0]
        return host in ("localhost", "127.0.0.1", "[::1]", "")
    return master_of(options).startswith("local")


def check_staging(options: Mapping[str, Any], name: str) -> None:
    """An error where rows have to travel in files, and there is no place for them that executors see."""
    check_folder(options.get("staging"), name)
    if not options.get("staging") and not is_local(options):
        raise no_staging(name)


def no_staging(name: str) -> NotSupportedError:
    """The error for a cluster that this machine's files do not reach."""
    return NotSupportedError(
        f"the workers of {name} do not see this machine's files",
        hint="give a folder that all machines share, or a URL: WITH (staging = '/mnt/shared') of the runner, "
        f"or let the query read where the cluster is: {name}.db.table",
        about="runner",
    )
