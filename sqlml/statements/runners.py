"""Runners by name: those that are there from the start, and those that CREATE RUNNER made."""

from __future__ import annotations

from sqlml_dialect import Ident

from sqlml.catalog import Catalog
from sqlml.contracts import Runner
from sqlml.errors import BindError, did_you_mean
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


def _is_built_in(name: str) -> bool:
    return name.lower() in (known.lower() for known in names("runner"))


def _unknown(catalog: Catalog, name: str) -> BindError:
    known = (*names("runner"), *(created.name for created in catalog.resources("runner")))
    near, more = did_you_mean(name, known), "SHOW RUNNERS lists all"
    return BindError(f"unknown runner {name}", hint=f"{near}  ({more})" if near else more)
