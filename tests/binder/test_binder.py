"""Text that remembers where it comes from, parameters, names of models, and which versions macros mean."""

from __future__ import annotations

import pytest
from sqlml_dialect import ModelRef, find_calls, parse

from sqlml.binder.calls import macro_name, parse_macro_name
from sqlml.binder.models import check_name
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Piece, Sql, fill, hole, made, number_parameters, replace_calls, verbatim
from sqlml.errors import BindError, Error
from sqlml.types import label_text


def test_a_place_in_replaced_text() -> None:
    source = "SELECT PREDICT(m), nothing FROM t"
    found = find_calls(source)
    [call] = found.calls
    sql = replace_calls(source, (0, len(source)), found, lambda call: made(source, "f(x, y)", call.span))
    assert sql.text == 'SELECT f(x, y) AS "PREDICT(m)", nothing FROM t'
    start = sql.text.index("nothing")
    assert sql.place((start, start + 7)) == (19, 26)
    assert sql.place((sql.text.index("y)"), sql.text.index("y)") + 1)) == call.span
    assert sql.wrapped("SELECT * FROM (", ")").place((0, 3)) is None
    assert sql.span == (0, len(source))


def test_holes_keep_their_places() -> None:
    source = "PREDICT(m USING nop AS age)"
    part = verbatim(source, (16, 19))
    sql = fill(source, f"f(CAST({hole(0)} AS DOUBLE))", (part,), (0, len(source)))
    assert sql.text == "f(CAST(nop AS DOUBLE))"
    assert sql.place((7, 10)) == (16, 19)
    assert sql.place((0, 1)) == (0, len(source))


def test_marks_become_numbers() -> None:
    source = "f(?, '?', ?) -- ?"
    whole = verbatim(source, (0, len(source)))
    turned = Sql(source, (verbatim(source, (10, 11)).pieces[0], Piece(" "), verbatim(source, (2, 4)).pieces[0]))
    assert number_parameters(whole, (0, len(source))).text == "f($1, '?', $2) -- ?"
    assert number_parameters(turned, (0, len(source))).text == "$2 $1,"


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("SELECT ?, ?", [1], "the statement has 2 parameters, 1 value was given"),
        ("SELECT ?", [], "the statement has 1 parameter, 0 values were given"),
        ("SELECT 1", [1], "the statement has 0 parameters, 1 value was given"),
        ("SELECT ?", {"a": 1}, "give a sequence of values, not a mapping"),
        ("SELECT ?, $1", [1, 2], "give one kind of parameters: ? or $1"),
        ("SELECT $2", [1], "the parameter $2 has no value"),
        ("SELECT $a", {"b": 1}, "the parameter $a has no value"),
        ("SELECT $a", {"a": 1, "b": 2}, "values were given for parameters that the statement does not have: $b"),
        ("SELECT $1", [1, 2], "values were given for parameters that the statement does not have: $2"),
    ],
)
def test_wrong_parameters(text: str, values: object, message: str) -> None:
    with pytest.raises(Error) as raised:
        Parameters(text, (0, len(text)), values).check()  # type: ignore[arg-type]
    assert raised.value.message == message


def test_values_of_a_part() -> None:
    text = "A ? B ? ? C"
    parameters = Parameters(text, (0, len(text)), [1, 2, 3])
    parameters.check()
    assert parameters.within((4, 9)) == [2, 3]
    assert parameters.within((10, 11)) == ()
    named = Parameters("A $x B $y", (0, 9), {"x": 1, "y": 2})
    named.check()
    assert named.within((5, 9)) == {"y": 2}
    numbered = Parameters("A $2 B $1", (0, 9), ["a", "b"])
    assert numbered.within((0, 4)) == {"2": "b"}


@pytest.mark.parametrize("name", ["churn", "Кунде", "顧客", "a b", "a-b", "v1.2", "a" * 128, "select", "1"])
def test_names_that_are_fine(name: str) -> None:
    check_name(name, name, (0, 1), "a model")


@pytest.mark.parametrize(
    "name", ["", " a", "a ", ".a", "a..b", "../a", "a/b", "a\\b", 'a"', "a'", "a@1", "a;b", "a\n", "a\0", "a" * 129, "%a"]
)
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(BindError):
        check_name(name, name, (0, 1), "a model")


def reference(text: str) -> ModelRef:
    [call] = find_calls(f"SELECT PREDICT({text})").calls
    return call.model


@pytest.mark.parametrize(
    ("text", "output", "parsed"),
    [
        ("churn", "predict", ("predict", "churn", None, None)),
        ("churn@3", "probs", ("probs", "churn", 3, None)),
        ('"my model"@champion', "reasons:3", ("reasons:3", "my model", None, "champion")),
        ("sales.churn", "full", ("full", "sales.churn", None, None)),
    ],
)
def test_names_of_macros(text: str, output: str, parsed: tuple[object, ...]) -> None:
    assert parse_macro_name(macro_name(output, reference(text))) == parsed


def test_other_names_are_no_macros() -> None:
    assert [parse_macro_name(name) for name in ("predict", "predict:", "sum", "other:churn")] == [None] * 4


def test_classes_as_keys() -> None:
    assert [label_text(value) for value in (True, False, 3, 1.5, "yes")] == ["true", "false", "3", "1.5", "yes"]


def test_values_in_options() -> None:
    text = "TRAIN MODEL m TARGET y WITH (a = ?, b = [1, ?], c = {'k': ?}) AS SELECT ?"
    [statement] = parse(text)
    parameters = Parameters(text, statement.span, [1, 2, 3, 4])
    parameters.check()
    options = statement.node.options  # type: ignore[union-attr]
    assert [parameters.resolve(option.value) for option in options] == [1, (1, 2), {"k": 3}]
    assert parameters.within(statement.node.query.span) == [4]  # type: ignore[union-attr]
