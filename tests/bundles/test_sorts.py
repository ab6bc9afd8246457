"""Models of every sort: several targets, components, anomalies, lists, a TRANSFORM, nothing but a TRANSFORM."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from sqlml.bundles.answers import texts
from sqlml.bundles.model import Model
from sqlml.errors import BindError, DataError, NotSupportedError
from sqlml.types import Kind, Task, sql_type
from tests.bundles.handmade import HEADS, TABLE, N, open_bundle, open_sort, rows_of, same
from tests.bundles.handmade import fit_transform as fit

Models = Callable[[str], Model]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A model of each sort, made when it is first asked for."""
    return cache(lambda sort: open_sort(tmp_path_factory.mktemp("bundle"), sort))


@pytest.mark.parametrize("sort", HEADS)
def test_what_it_says_of_itself_is_so(models: Models, sort: str) -> None:
    model, rows = models(sort), rows_of(sort)
    assert model.predict(rows).type == model.label_type
    full = model.full(rows)
    assert full.schema == model.full_schema
    assert full.num_rows == N
    assert model.signature.result == sql_type(model.label_type)
    assert model.signature.added == tuple((f.name, sql_type(f.type)) for f in full.schema)
    assert [name for name, _ in model.signature.columns] == [i.name for i in model.manifest.inputs]


@pytest.mark.parametrize("sort", HEADS)
def test_no_rows_nulls_and_pieces(models: Models, sort: str) -> None:
    model, rows = models(sort), rows_of(sort)
    assert model.full(rows.slice(0, 0)).num_rows == 0
    assert model.predict(rows.slice(0, 0)).type == model.label_type
    assert model.full({name: pa.nulls(3) for name in rows.column_names}).num_rows == 3
    pieces = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 0), rows.slice(7)])
    whole = model.full(rows).to_pylist()
    assert same(model.full(pieces).to_pylist(), whole)
    assert same([model.full(rows.slice(i, 1)).to_pylist()[0] for i in range(20)], whole[:20])


@pytest.mark.parametrize("sort", HEADS)
def test_many_threads(models: Models, sort: str) -> None:
    model, rows = models(sort), rows_of(sort)
    expected = model.full(rows)
    with ThreadPoolExecutor(8) as pool:
        assert all(found.equals(expected) for found in pool.map(lambda _: model.full(rows), range(24)))


@pytest.mark.parametrize("sort", [sort for sort, heads in HEADS.items() if len(heads) == 1])
def test_explanations(models: Models, sort: str) -> None:
    model, rows = models(sort), rows_of(sort)
    if not model.head.explains:
        with pytest.raises(NotSupportedError):
            model.explain(rows, 2)
        return
    found = model.explain(rows, 2)
    assert found.schema == model.explain_schema()
    assert found.column(0).equals(model.predict(rows))
    names = [name for name, _ in model.features]
    values = model.contributions(rows)
    for i, row in enumerate(found.to_pylist()):
        sizes = np.sort(np.abs(values[i, :-1]))[::-1][:2]
        assert [abs(a["attribution"]) for a in row["top_feature_attributions"]] == pytest.approx(list(sizes))
        assert {a["feature"] for a in row["top_feature_attributions"]} <= set(names)
        assert row["baseline_prediction_value"] == pytest.approx(values[i, -1])
        assert row["prediction_value"] == pytest.approx(values[i].sum())
        assert row["approximation_error"] == 0
    if model.classes:
        assert found.column(1).to_numpy() == pytest.approx(model.raw(rows).max(1))
    everything = model.explain(rows, 99).to_pylist()[0]
    total = sum(a["attribution"] for a in everything["top_feature_attributions"])
    assert total + everything["baseline_prediction_value"] == pytest.approx(everything["prediction_value"])
    assert model.explain(rows.slice(0, 0), 2).schema == model.explain_schema()


def test_several_targets(models: Models, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = models("several")
    answers = model.predict(TABLE)
    assert [f.name for f in answers.type] == ["y", "the value", "z"]
    full = model.full(TABLE)
    assert full.schema.names == [
        "predicted_y", "predicted_y_probs", "predicted_the value", "predicted_z", "predicted_z_probs",
    ]  # fmt: skip
    for name in ("y", "the value", "z"):
        assert answers.field(name).equals(full.column(f"predicted_{name}"))
    alone = open_bundle(tmp_path_factory.mktemp("bundle"), TABLE, HEADS["several"][2])
    assert alone.predict(TABLE).equals(answers.field("z"))
    assert alone.full(TABLE).column(1).equals(full.column("predicted_z_probs"))
    with pytest.raises(BindError, match=r"the model has several targets \(y, the value, z\)"):
        model.probabilities(TABLE)


def test_components(models: Models) -> None:
    model = models("components")
    raw = model.raw(TABLE)
    assert model.full(TABLE).schema.names == ["principal_component_1", "principal_component_2"]
    assert model.full(TABLE).column(1).to_numpy() == pytest.approx(raw[:, 1])
    assert np.array(model.predict(TABLE).to_pylist()) == pytest.approx(raw)
    assert model.evaluate(TABLE)["total_explained_variance_ratio"] is not None
    with pytest.raises(BindError, match="the model predicts components: it has no probabilities"):
        model.probabilities(TABLE)


def test_anomalies(models: Models) -> None:
    model = models("anomalies")
    full = model.full(TABLE)
    assert full.schema.names == ["is_anomaly", "anomaly_score"]
    scores = full.column("anomaly_score").to_numpy()
    assert list(full.column("is_anomaly")) == list(pa.array(scores > model.head.threshold))
    assert 0 < sum(full.column("is_anomaly").to_pylist()) < N


def test_a_transform_is_applied_before_the_model(models: Models) -> None:
    model = models("transformed")
    assert model.transform is not None
    features = model.transform.apply({i.name: TABLE[i.name] for i in model.inputs}, N)
    assert [name for name, _ in model.features] == ["a scaled", "both", "word"] == list(features)
    assert np.nanstd(features["a scaled"].to_numpy(zero_copy_only=False), ddof=1) == pytest.approx(1)
    assert np.array_equal(model.raw(TABLE), model.predictor.predict(model.encoder.transform(features, N)))
    shown = {r["feature"]: r["value"] for r in model.reasons(TABLE, 9).to_pylist()[1]}
    assert shown == {
        "a scaled": str(features["a scaled"][1]), "both": str(features["both"][1]), "word": "CLERK",
    }  # fmt: skip
    assert model.importance()[0][0] == "a scaled"
    with pytest.raises(BindError, match="the model needs columns that are not there: B b"):
        model.predict(TABLE.select(["a", "word"]))


def test_nothing_but_a_transform(models: Models) -> None:
    model = models("only transform")
    assert (model.task, model.heads) == (Task.TRANSFORM, ())
    full = model.full(TABLE)
    assert full.to_struct_array().equals(model.predict(TABLE))
    kinds = [Kind.NUMBER, Kind.NUMBER, Kind.TEXT, Kind.DATE, Kind.TIMESTAMP, Kind.NUMBERS, Kind.TEXTS]
    assert [kind for _, kind in model.features] == kinds
    row = full.slice(1, 1).to_pylist()[0]
    assert row["word"] == "CLERK"
    assert isinstance(row["day"], dt.date)
    assert isinstance(row["at"], dt.datetime)
    assert row["pair"] == [TABLE["a"][1].as_py(), TABLE["B b"][1].as_py()]
    assert row["tags"] == ["clerk", "x"]
    for ask in (model.probabilities, model.contributions, model.evaluate):
        with pytest.raises(BindError, match="the model only transforms: it predicts nothing"):
            ask(TABLE)


def test_a_row_that_a_transform_cannot_compute(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = pa.table({"word": ["1", "2"]})
    model = open_bundle(tmp_path_factory.mktemp("bundle"), rows, transform=fit(rows, number="CAST(word AS DOUBLE)"))
    assert model.predict(rows).to_pylist() == [{"number": 1}, {"number": 2}]
    for words in (["x"], ["1", "x"]):
        with pytest.raises(DataError, match="TRANSFORM cannot compute a row"):
            model.predict({"word": pa.array(words)})


def test_lists(models: Models) -> None:
    model, rows = models("lists"), rows_of("lists")
    shown = [{r["feature"]: r["value"] for r in row} for row in model.reasons(rows, 9).to_pylist()]
    vec = rows["vec"][0].as_py()
    assert shown[0]["vec"] == f"[{vec[0]}, {vec[1]}, {vec[2]}]"
    assert [shown[i]["tags"] for i in (0, 1, 2, 4)] == ["[]", "[t1]", "[t2, all]", None]
    assert shown[3]["vec"] is None
    fixed = rows.set_column(0, "vec", rows["vec"].cast(pa.list_(pa.float64(), 3)))
    large = rows.set_column(1, "tags", rows["tags"].cast(pa.large_list(pa.large_string())))
    assert np.array_equal(model.raw(fixed), model.raw(rows))
    assert np.array_equal(model.raw(large), model.raw(rows))
    with pytest.raises(BindError, match="vec"):
        model.predict(rows.set_column(0, "vec", pa.array([[1.0, 2.0]] * N)))
    with pytest.raises(BindError, match=r"column vec is DOUBLE\[\] to the model"):
        model.predict(rows.set_column(0, "vec", pa.array([["x"]] * N)))


TEXTS = [
    ([[1.0, None, 2.5, 4.0], None, [], [None]], Kind.NUMBERS, ["[1, NULL, 2.5, …]", None, "[]", "[NULL]"]),
    ([["a", "b", "c"], ["d"], None], Kind.TEXTS, ["[a, b, c]", "[d]", None]),
    ([], Kind.TEXTS, []),
    ([None, None], Kind.NUMBERS, [None, None]),
]


@pytest.mark.parametrize(("values", "kind", "expected"), TEXTS)
def test_lists_as_people_write_them(values: list[object], kind: Kind, expected: list[str | None]) -> None:
    array = pa.array(values, pa.list_(pa.float64() if kind is Kind.NUMBERS else pa.string()))
    assert texts(array, kind).to_pylist() == expected
    assert texts(pa.chunked_array([array.slice(0, 1), array.slice(1)], array.type), kind).to_pylist() == expected
    assert texts(pa.concat_arrays([array, array]).slice(len(array)), kind).to_pylist() == expected
    assert texts(array.slice(1), kind).to_pylist() == expected[1:]
