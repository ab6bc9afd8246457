"""Runners by name: those that are there from the start, and those that CREATE RUNNER made."""

from __future__ import annotations

from sqlml_dialect import Ident

from sqlml.catalog import Catalog
from sqlml.connections import PLACES
from sqlml.contracts import Runner
from sqlml.errors import BindError, NotSupportedError, did_you_mean
from sqlml.plan import PredictPlan, TrainPlan
from sqlml.registry import get, names


def open_runner(catalog: Catalog, name: str) -> Runner:
    """A runner, ready for jobs.  ``BindError`` names the nearest where there is none of the name."""
    if _is_built_in(name):
        runner: Runner = get("runner", name)()
        return runner
    found = catalog.find_resource("runner", name)
    if found is None:
        raise _unknown(catalog, name)
    created: Runner = get("runner_type", found.type)(found.name, dict(found.options))
    return created


def runner_type(catalog: Catalog, name: str) -> str:
    """A runner's type, without opening it.  ``BindError`` where there is none of the name."""
    if _is_built_in(name):
        return name.lower()
    found = catalog.find_resource("runner", name)
    if found is None:
        raise _unknown(catalog, name)
    return found.type


def check_runner(catalog: Catalog, runner: Ident | None, source: str) -> None:
    """``BindError`` that points at a name after ON that is no runner's."""
    if runner is None:
        return
    try:
        runner_type(catalog, runner.name)
    except BindError as error:
        raise error.located(source, runner.span) from None


def check_job(runner: Runner, kind: str, plan: TrainPlan | PredictPlan, *, by_query: bool = False) -> None:
    """An error for a job that a runner cannot carry out; nothing is read or started for it.

    ``by_query``: the runner is to read all the rows itself.
    """
    if kind not in runner.kinds:
        raise NotSupportedError(
            f"the runner {runner.name} does not {kind}", hint="SHOW RUNNERS lists all; ON process is always there"
        )
    runner.check(kind, plan, by_query=by_query)


def runs_where(catalog: Catalog, connection: str | None, runner: Runner) -> bool:
    """Whether a runner that reads runs where a connection's tables are: it is that connection, or leads to the same place."""
    if not runner.reads or connection is None:
        return False
    if connection.lower() == runner.name.lower():
        return True
    one, other = catalog.find_resource("connection", connection), catalog.find_resource("runner", runner.name)
    if one is None or other is None or one.type.lower() != other.type.lower():
        return False
    return [one.options.get(name) for name in PLACES] == [other.options.get(name) for name in PLACES]


def _is_built_in(name: str) -> bool:
    return name.lower() in (known.lower() for known in names("runner"))


def _unknown(catalog: Catalog, name: str) -> BindError:
    known = (*names("runner"), *(created.name for created in catalog.resources("runner")))
    near, more = did_you_mean(name, known), "SHOW RUNNERS lists all"
    return BindError(f"unknown runner {name}", hint=f"{near}  ({more})" if near else more)
