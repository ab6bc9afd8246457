"""Several targets, keys, what is kept of the rows, and lists as features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.errors import BindError, TrainingDataError
from sqlml.features.dataset import read_arrow
from sqlml.plan import SplitPlan
from tests.jobs import people, train

QUICK = {"n_estimators": 5}


def gapped() -> pa.Table:
    """Two targets, each NULL in other rows, and a key."""
    table = people()
    y = pa.array([None if i % 4 == 0 else v for i, v in enumerate(table["y"].to_pylist())])
    z = pa.array([None if i % 4 == 1 else v for i, v in enumerate(table["z"].to_pylist())])
    table = table.set_column(table.schema.get_field_index("y"), "y", y)
    return table.set_column(table.schema.get_field_index("z"), "z", z).append_column("id", pa.array(range(400)))


def test_several_targets(tmp_path: Path) -> None:
    model, outcome, report = train(tmp_path, gapped(), ("y", "z"), weight="w", key=("id",), options=QUICK)
    assert [head.algorithm for head in model.heads] == ["xgboost_classifier", "xgboost_regressor"]
    assert [head.target for head in model.heads] == ["y", "z"]
    assert sorted(p.name for p in model.folder.iterdir()) == [
        "manifest.json", "model-0.onnx", "model-1.onnx", "native-0", "native-1",
    ]  # fmt: skip
    assert outcome.algorithm == "xgboost_classifier, xgboost_regressor"
    assert (outcome.rows, outcome.heldout_rows) == (320, 80)
    assert {"y.roc_auc", "y.log_loss", "z.rmse", "z.r2"} <= set(outcome.metrics["heldout"])
    assert {"y.logloss", "z.rmse", "y.seconds", "z.seconds"} <= {metric for _, _, metric, _ in outcome.curves}
    assert {"train_y.logloss", "heldout_y.logloss"} <= set(report.steps[0][2])
    assert "100 of 400 rows are left out for y: their y is NULL" in report.notices
    predicted = model.predict(gapped()).to_pylist()
    assert set(predicted[0]) == {"y", "z"}
    assert model.full(gapped()).schema.names == ["predicted_y", "predicted_y_probs", "predicted_z"]


def test_rows_kept_of_several_targets(tmp_path: Path) -> None:
    table = gapped()
    model, outcome, _ = train(tmp_path, table, ("y", "z"), weight="w", key=("id",), options=QUICK)
    heldout = read_arrow(tmp_path / "heldout.arrow")
    assert heldout.schema.names == ["key:id", "weight", "actual_0", "raw_0", "actual_1", "raw_1"]
    assert heldout["raw_0"].type == pa.list_(pa.float64(), 2)
    ids = heldout["key:id"].to_pylist()
    assert heldout["actual_0"].to_pylist() == [table["y"][i].as_py() for i in ids]
    assert heldout["actual_1"].to_pylist() == [table["z"][i].as_py() for i in ids]
    for i, head in enumerate(model.heads):
        raw = np.array(heldout[f"raw_{i}"].to_pylist())
        again = head.evaluate(raw if i == 0 else raw[:, 0], heldout[f"actual_{i}"], heldout["weight"])
        expected = {n.partition(".")[2]: v for n, v in outcome.metrics["heldout"].items() if n.startswith(f"{head.target}.")}
        assert again == pytest.approx(expected, nan_ok=True)
    sample = read_arrow(tmp_path / "sample.arrow")
    assert sample.schema.names == [i.name for i in model.inputs]
    assert sample["x"].to_pylist() == [table["x"][i].as_py() for i in ids]


def test_a_family_and_options_for_several_targets(tmp_path: Path) -> None:
    options = {"n_estimators": 3, "scale_pos_weight": 2, "objective": "reg:absoluteerror"}
    model, _, _ = train(tmp_path, gapped(), ("y", "z"), "xgboost", exclude=("w", "id"), options=options)
    assert model.heads[0].manifest.options["scale_pos_weight"] == 2
    assert "objective" not in model.heads[0].manifest.options
    assert model.heads[1].manifest.options["objective"] == "reg:absoluteerror"
    with pytest.raises(BindError, match="has no option depth"):
        train(tmp_path, gapped(), ("y", "z"), "xgboost", exclude=("w", "id"), options={"depth": 3})


def test_several_targets_by_one_algorithm(tmp_path: Path) -> None:
    table = people()
    model, outcome, _ = train(tmp_path, table, ("x", "z"), "linear_regression", exclude=("y", "w"))
    assert outcome.algorithm == "linear_regression"
    assert [type(v) for v in model.predict(table)[0].as_py().values()] == [float, float]
    extra = people(50, seed=3)
    _, outcome, _ = train(tmp_path, table, ("x", "z"), "linear_regression", exclude=("y", "w"), validation=extra)
    assert (outcome.rows, outcome.heldout_rows) == (400, 50)
    assert read_arrow(tmp_path / "heldout.arrow")["actual_0"].null_count == extra["x"].null_count > 0


def test_the_rows_in_another_order(tmp_path: Path) -> None:
    table = gapped()
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    one, two = (
        train(tmp_path / str(i), rows, ("y", "z"), key=("id",), weight="w", options=QUICK)[1]
        for i, rows in enumerate((table, shuffled))
    )
    assert one.bundle_sha256 == two.bundle_sha256
    assert read_arrow(tmp_path / "0" / "heldout.arrow") == read_arrow(tmp_path / "1" / "heldout.arrow")


def test_a_target_without_training_rows(tmp_path: Path) -> None:
    table = gapped().append_column("late", pa.array([None] * 390 + [1.0, 2.0] * 5))
    with pytest.raises(TrainingDataError, match="target late is NULL in every training row"):
        train(tmp_path, table, ("z", "late"), "linear_regression", exclude=("y", "w"), split=SplitPlan("time", 0.1, "id"))


def test_one_target_keeps_the_plain_names(tmp_path: Path) -> None:
    model, outcome, _ = train(tmp_path, gapped(), "z", "linear_regression", exclude=("y",), weight="w", key=("id", "町"))
    assert sorted(p.name for p in model.folder.iterdir()) == ["manifest.json", "model.onnx", "native"]
    assert {i.name for i in model.inputs}.isdisjoint({"id", "町", "y", "z", "w"})
    heldout = read_arrow(tmp_path / "heldout.arrow")
    assert heldout.schema.names == ["key:id", "key:町", "weight", "actual_0", "raw_0"]
    assert len(outcome.feature_info) == len(model.inputs)
    assert outcome.feature_info[0]["input"] == model.inputs[0].name


@pytest.mark.parametrize(("algorithm", "width"), [("kmeans", 3), ("pca", 2), ("isolation_forest", 1)])
def test_without_a_target(tmp_path: Path, algorithm: str, width: int) -> None:
    options = {"kmeans": {"n_clusters": 3}, "pca": {"n_components": 2}, "isolation_forest": {"n_estimators": 10}}[algorithm]
    model, outcome, _ = train(tmp_path, people(), None, algorithm, exclude=("y", "z", "w"), options=options)
    heldout = read_arrow(tmp_path / "heldout.arrow")
    assert heldout.schema.names == ["raw_0"]
    assert heldout["raw_0"].type.list_size == width
    assert outcome.heldout_rows == len(heldout) == 80
    assert outcome.metrics["heldout"]
    assert model.full(people()).num_rows == 400


def test_keys_of_any_type(tmp_path: Path) -> None:
    table = people().append_column("blob", pa.array([bytes([i % 256]) for i in range(400)]))
    table = table.append_column("pair", pa.array([{"a": i} for i in range(400)]))
    train(tmp_path, table, "z", "linear_regression", exclude=("y", "w"), key=("blob", "pair", "at"))
    heldout = read_arrow(tmp_path / "heldout.arrow")
    assert heldout["key:blob"].type == pa.binary()
    assert heldout["key:pair"][0].as_py().keys() == {"a"}


def test_lists_are_features(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    x = r.normal(size=(300, 3))
    words = [[w for w in ("red", "green", "blue") if r.random() < 0.5] for _ in range(300)]
    table = pa.table(
        {
            "vector": pa.array([None if i == 7 else row.tolist() for i, row in enumerate(x)], pa.list_(pa.float64())),
            "fixed": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel(), pa.float32()), 3),
            "tags": pa.array(words),
            "y": pa.array(["red" in w for w in words]),
        }
    )
    how: Any = {"options": QUICK}
    model, outcome, _ = train(tmp_path, table, "y", **how)
    assert outcome.metrics["heldout"]["roc_auc"] == pytest.approx(1.0)
    assert isinstance(model.manifest.example["vector"], list)
    assert model.predict(table).to_pylist() == table["y"].to_pylist()
