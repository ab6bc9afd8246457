"""The contract of a target and an installer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from sqlml.contracts import Installer, Target
from sqlml.errors import BindError, DatabaseError, NotSupportedError
from sqlml.types import Kind, Task, arrow_type

if TYPE_CHECKING:
    from sqlml.bundles.model import Model


def check_target(
    target: Target, run: Callable[[str], list[Any]], model: Model, rows: Callable[[int], str] = "range({})".format
) -> None:
    """Every output of a version's functions that the target does not refuse, in a query.

    ``run`` gives the first column of a query's rows; ``rows`` is what stands after FROM for so many of them.
    """
    signature = model.signature
    arguments = {i.name: "NULL" for i in model.inputs}
    outputs = ["predict", "full"]
    if len(model.heads) == 1:
        outputs += ["probs", "proba:0"] if model.task is Task.CLASSIFICATION else []
        outputs += ["reasons:1", "explain:1"] if model.head.explains else []
    for output in outputs:
        try:
            call = target.call_sql("someversion", output, signature, lambda: model, arguments)
        except NotSupportedError:
            if output == "predict":
                raise
            continue
        assert target.call_sql("someversion", output, signature, lambda: model, arguments) == call
        assert run(f"SELECT {call}")[0] is not None
        assert run(f"SELECT {call} FROM {rows(3000)}") == run(f"SELECT {call}") * 3000
        assert run(f"SELECT {call} FROM {rows(3)} WHERE 1 = 0") == []
    predicted = run(f"SELECT {target.call_sql('someversion', 'predict', signature, lambda: model, arguments)}")
    nothing = {i.name: pa.nulls(1, arrow_type(i.kind)) for i in model.inputs}
    wanted = model.predict(nothing).to_pylist()
    if [head.algorithm for head in model.heads] == ["linear_regression"]:  # in what order numpy sums is the processor's
        wanted = [pytest.approx(value, rel=1e-14, nan_ok=True) for value in wanted]
    assert predicted == wanted


def check_installer(installer: Installer, run: Callable[[str], list[Any]], model: Model, other: Model) -> None:
    """Everything that the contract of an installer asks, of two models with one target each; the database has no ``kit_guess``.

    ``run`` gives the first column of a query's rows, on the connection that the installer works on; its errors are ours.
    """
    name = (installer.fold("Kit_Guess"),)
    planned = installer.plan(name, model, model.signature, "kit")
    assert [column for column, _ in planned.arguments] == [column.name for column in model.inputs]
    assert planned.size > 0
    assert planned.memory > 0
    for answers in (model, other, model):
        made = installer.install(name, answers, answers.signature, "it's \\ the kit")
        assert len(made[0].name) == 2
        assert made[0].name[1] == name[0]
        assert made[0].text.startswith(f"{made[0].name[0]}.{name[0]}(")
        for values in ({}, {Kind.NUMBER: 1.5, Kind.TEXT: "it's \\ x", Kind.BOOLEAN: True}):
            row = {column.name: values.get(column.kind) for column in answers.inputs}
            expected = answers.predict({c.name: pa.array([row[c.name]], arrow_type(c.kind)) for c in answers.inputs}).to_pylist()
            assert run(f"SELECT {installer.call(made[0].name, row)}") == pytest.approx(expected)
    call = installer.call(made[0].name, dict.fromkeys(row))
    assert planned.arguments == made[0].arguments
    installer.remove(made[0].name)
    with pytest.raises(DatabaseError):
        run(f"SELECT {call}")
    installer.plan(name, model, model.signature, "kit")  # makes nothing
    with pytest.raises(BindError):
        installer.remove(made[0].name)
