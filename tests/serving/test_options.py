"""The table of an endpoint's options: defaults, changes, what contradicts what."""

from typing import Any

import pytest

from sqlml.endpoint_options import (
    DEPLOY_OPTIONS,
    KEPT_OPTIONS,
    Replicas,
    Sticky,
    merged,
    option_fault,
    parse_sticky,
    replicas,
    settings,
)


def test_settings_are_the_endpoints_own_and_defaults_for_the_rest() -> None:
    found = settings({"timeout": 2.5, "log": None})
    assert found.keys() == {spec.name for spec in KEPT_OPTIONS}
    assert (found["timeout"], found["log"], found["auth"]) == (2.5, 1.0, "none")


def test_no_option_is_there_twice() -> None:
    names = [spec.name for spec in DEPLOY_OPTIONS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Replicas(1, 1)),
        ({"replicas": 3}, Replicas(3, 3)),
        ({"min_replicas": 2}, Replicas(2, 2)),
        ({"max_replicas": 4}, Replicas(1, 4)),
        ({"min_replicas": 2, "max_replicas": 4}, Replicas(2, 4)),
    ],
)
def test_replicas(options: dict[str, Any], expected: Replicas) -> None:
    assert replicas(options) == expected


@pytest.mark.parametrize(
    ("kept", "given", "expected"),
    [
        ({"replicas": 2}, {"timeout": 1.0}, {"replicas": 2, "timeout": 1.0}),
        ({"replicas": 2}, {"max_replicas": 4}, {"max_replicas": 4}),
        ({"min_replicas": 1, "max_replicas": 4}, {"replicas": 2}, {"replicas": 2}),
        ({"replicas": 2, "log": 0.5}, {"log": None}, {"replicas": 2}),
        ({"replicas": 2}, {"min_replicas": None}, {"replicas": 2}),
    ],
)
def test_a_change_of_options(kept: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merged(kept, given) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("header:X-User", Sticky("header", "x-user")),
        (" Column : Customer Id ", Sticky("column", "Customer Id")),
        ("header:two words", None),
        ("x-user", None),
        ("cookie:a", None),
        ("header:", None),
        (None, None),
    ],
)
def test_what_to_stick_by(text: str | None, expected: Sticky | None) -> None:
    assert parse_sticky(text) == expected


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"replicas": 2, "max_replicas": 3}, "replicas"),
        ({"min_replicas": 5, "max_replicas": 3}, "max_replicas"),
        ({"max_replicas": 3, "min_replicas": 3}, None),
        ({"sticky": "age"}, "sticky"),
        ({"sticky": "column:job"}, "sticky"),
        ({"sticky": "column:AGE"}, None),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], option: str | None) -> None:
    fault = option_fault(options, ["age"])
    assert (fault and fault.option) == option
