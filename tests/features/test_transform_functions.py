"""The functions of TRANSFORM: against scikit-learn on real data, against BigQuery's own examples, and NULLs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    MultiLabelBinarizer,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)

from sqlml.features.fitted import FUNCTIONS
from sqlml.features.fitted.farmhash import fingerprint64
from tests.features.transforms import bank, fit, one, ready, run

TRAIN = range(0, 6000, 2)
FIVE = {"f": pa.array([1, 2, 3, 4, 5])}


def numbers(name: str) -> np.ndarray[Any, Any]:
    return np.asarray(bank()[name].to_numpy(zero_copy_only=False), np.float64)


def scaled(sql: str, scaler: Any, name: str = "balance") -> None:
    values = numbers(name)[:, None]
    expected = scaler.fit(values[list(TRAIN)]).transform(values)[:, 0]
    np.testing.assert_allclose(one(sql, bank(), TRAIN), expected, rtol=1e-9, atol=1e-9)


# --- scalers ----------------------------------------------------------------------------------------------------------


def test_standard_scaler() -> None:
    # scikit-learn divides by the deviation of the population, BigQuery by that of a sample
    n = len(TRAIN)
    values = numbers("age")[:, None]
    expected = StandardScaler().fit(values[list(TRAIN)]).transform(values)[:, 0] * math.sqrt((n - 1) / n)
    np.testing.assert_allclose(one("ML.STANDARD_SCALER(age) OVER ()", bank(), TRAIN), expected, rtol=1e-9)
    assert one("ML.STANDARD_SCALER(f) OVER ()", FIVE) == [
        -1.2649110640673518,
        -0.6324555320336759,
        0.0,
        0.6324555320336759,
        1.2649110640673518,
    ]


def test_min_max_scaler_caps() -> None:
    scaled("ML.MIN_MAX_SCALER(balance) OVER ()", MinMaxScaler(clip=True))
    assert one("ML.MIN_MAX_SCALER(f) OVER ()", FIVE, [1, 3]) == [0, 0, 0.5, 1, 1]


def test_max_abs_scaler() -> None:
    scaled("ML.MAX_ABS_SCALER(balance) OVER ()", MaxAbsScaler())


def test_robust_scaler() -> None:
    # quantiles are values of the data, where scikit-learn's RobustScaler interpolates: BigQuery's own example
    columns = {"f": pa.array([None, -3, 1, 2, 3, 4, 5])}
    assert one("ML.ROBUST_SCALER(f) OVER ()", columns) == pytest.approx([None, -5 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1])
    known = numbers("balance")
    low, median, high = np.quantile(known[list(TRAIN)], [0.1, 0.5, 0.9], method="inverted_cdf")
    found = one("ML.ROBUST_SCALER(balance, [10, 90]) OVER ()", bank(), TRAIN)
    np.testing.assert_allclose(found, (known - median) / (high - low), rtol=1e-12)
    found = one("ML.ROBUST_SCALER(balance, with_median => false, quantile_range => [10, 90]) OVER ()", bank(), TRAIN)
    np.testing.assert_allclose(found, known / (high - low), rtol=1e-12)
    found = one("ML.ROBUST_SCALER(balance, [10, 90], true, false) OVER ()", bank(), TRAIN)
    np.testing.assert_allclose(found, known - median, rtol=1e-12)


@pytest.mark.parametrize("name", ["STANDARD_SCALER", "MIN_MAX_SCALER", "MAX_ABS_SCALER", "ROBUST_SCALER"])
def test_scalers_of_little(name: str) -> None:
    sql = f"ML.{name}(f) OVER ()"
    assert one(sql, {"f": pa.array([None, None], pa.float64())}) == [None, None]
    assert one(sql, {"f": pa.array([0.0, 0.0, None])}) == [0, 0, None]
    assert one(sql, {"f": pa.array([0.1] * 3)})[0] == (1.0 if name == "MAX_ABS_SCALER" else 0.0)
    found = one(sql, {"f": pa.array([1.0, math.nan, 2.0, math.inf])})
    assert found[1] is None
    assert all(math.isfinite(found[i]) for i in (0, 2))
    assert one(sql, {"f": pa.array([], pa.float64())}) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e100, 1e100)), min_size=1, max_size=20))
def test_scalers_of_anything(values: list[float | None]) -> None:
    columns = {"f": pa.array(values, pa.float64())}
    names = ("STANDARD_SCALER", "MIN_MAX_SCALER", "MAX_ABS_SCALER", "ROBUST_SCALER")
    for found in run([f"ML.{name}(f) OVER () AS {name.lower()}" for name in names], columns).values():
        assert [v is None for v in found] == [v is None for v in values]
        assert all(v is None or math.isfinite(v) for v in found)


# --- imputation, norms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["mean", "most_frequent"])
def test_imputer(strategy: str) -> None:
    values = numbers("age")
    values[::3] = np.nan
    columns = {"f": pa.array(values, from_pandas=True)}
    expected = SimpleImputer(strategy=strategy).fit(values[list(TRAIN), None]).transform(values[:, None])[:, 0]
    np.testing.assert_allclose(one(f"ML.IMPUTER(f, '{strategy}') OVER ()", columns, TRAIN), expected, rtol=1e-9)


def test_imputer_of_bigquery() -> None:
    columns = {"f": pa.array([None, -3, -3, -3, 1, 2, 3, 4, 5]), "t": pa.array([None, "a", "a", "b", "b", "c", "c", "c", None])}
    assert one("ML.IMPUTER(f, 'mean') OVER ()", columns)[:2] == [0.75, -3]
    assert one("ML.IMPUTER(t, 'most_frequent') OVER ()", columns) == ["c", "a", "a", "b", "b", "c", "c", "c", "c"]
    # the median is a value of the data, where scikit-learn takes the middle of two
    assert one("ML.IMPUTER(f, 'median') OVER ()", columns)[0] == 1
    assert one("ML.IMPUTER(f, 'mean') OVER ()", {"f": pa.array([None, None], pa.float64())}) == [None, None]


@pytest.mark.parametrize(("p", "norm"), [("1", "l1"), ("2", "l2"), ("'inf'::DOUBLE", "max"), ("CAST('+INF' AS FLOAT64)", "max")])
def test_normalizer(p: str, norm: str) -> None:
    rows = np.column_stack([numbers("age"), numbers("balance"), numbers("day")])
    found = one(f"ML.NORMALIZER([age, balance, day], {p})", bank())
    np.testing.assert_allclose(found, Normalizer(norm).transform(rows), rtol=1e-9)


def test_normalizer_of_bigquery() -> None:
    columns = {"f": pa.array([[4.0, 1.0, 2.0, 2.0, 0.0], None, [], [0.0], [None, 3.0, 4.0]])}
    found = one("ML.NORMALIZER(f)", columns)
    assert found[0] == pytest.approx([0.8, 0.2, 0.4, 0.4, 0])
    assert found[1:4] == [None, [], [0]]
    assert found[4] == [None, 0.6, 0.8]
    assert one("ML.NORMALIZER(f, p => 0)", columns)[0] == [1, 0.25, 0.5, 0.5, 0]
    assert one("ML.NORMALIZER(f, 3)", columns)[0] == pytest.approx((np.array([4, 1, 2, 2, 0]) / 81 ** (1 / 3)).tolist())


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_quantile_bucketize() -> None:
    values = numbers("balance")[:, None]
    bins = KBinsDiscretizer(7, encode="ordinal", strategy="quantile", quantile_method="inverted_cdf", subsample=None)
    expected = bins.fit(values[list(TRAIN)]).transform(values)[:, 0]
    assert one("ML.QUANTILE_BUCKETIZE(balance, 7) OVER ()", bank(), TRAIN) == [f"bin_{int(i) + 1}" for i in expected]
    assert one("ML.QUANTILE_BUCKETIZE(f, 3) OVER ()", FIVE) == ["bin_1", "bin_2", "bin_2", "bin_3", "bin_3"]
    assert one("ML.QUANTILE_BUCKETIZE(f, 3, 'bucket_ranges') OVER ()", FIVE)[::2] == ["(-inf, 2)", "[2, 4)", "[4, +inf)"]
    assert one("ML.QUANTILE_BUCKETIZE(f, 9) OVER ()", {"f": pa.array([7, None, 7])}) == ["bin_2", None, "bin_2"]
    assert one("ML.QUANTILE_BUCKETIZE(f, 9) OVER ()", {"f": pa.array([None], pa.float64())}) == [None]


def test_bucketize() -> None:
    columns = {"f": pa.array([0.5, 1, 2.5, 4.6, 9, None, math.nan])}
    assert one("ML.BUCKETIZE(f, [1, 2.5, 4.6])", columns) == ["bin_1", "bin_2", "bin_3", "bin_4", "bin_4", None, None]
    assert one("ML.BUCKETIZE(f, [1, 2.5, 4.6], true)", columns)[:4] == ["bin_1", "bin_1", "bin_2", "bin_2"]
    ranges = one("ML.BUCKETIZE(f, [1, 2.5, 4.6], output_format => 'bucket_ranges')", columns)
    assert ranges[:4] == ["(-inf, 1)", "[1, 2.5)", "[2.5, 4.6)", "[4.6, +inf)"]
    ranges = one("ML.BUCKETIZE(f, [2.5], false, 'bucket_ranges_json')", columns)
    assert ranges[1:3] == ['{"start": "-Infinity", "end": "2.5"}', '{"start": "2.5", "end": "Infinity"}']


def farm_fingerprint(text: str) -> int:
    """BigQuery's FARM_FINGERPRINT: the same, signed."""
    return int.from_bytes(fingerprint64(text.encode()).to_bytes(8, "big"), "big", signed=True)


def test_hash_bucketize_is_bigquerys() -> None:
    columns = {"f": pa.array(["a", "b", "c", "d", None, "a"])}
    assert one("ML.HASH_BUCKETIZE(f, 3)", columns) == [0, 1, 1, 2, None, 0]
    assert one("ML.HASH_BUCKETIZE(f, 0)", columns)[0] == float(farm_fingerprint("a"))


def test_farmhash_known_answers() -> None:
    assert fingerprint64(b"") == 0x9AE16A3B2F90404F
    assert farm_fingerprint("1footrue") == -1541654101129638711  # BigQuery's page of FARM_FINGERPRINT
    assert farm_fingerprint("2applefalse") == 2794438866806483259
    assert farm_fingerprint("3true") == -4880158226897771312
    assert farm_fingerprint("Amazon Redshift") == 8085098817162212970  # Redshift's page of farmFingerprint64
    lengths = {
        33: 0x1BD257E2FC3DA812,
        63: 0xD52B7A8646A91B9E,
        64: 0x9C4A595C23BB9BFA,
        65: 0x2434D8917886FE2A,
        128: 0xC3244D5EC8A4474A,
        129: 0x9B1CA0571B8CEFD4,
    }
    for length, expected in lengths.items():
        assert fingerprint64(bytes(97 + i % 26 for i in range(length))) == expected


# --- categories -------------------------------------------------------------------------------------------------------


def test_one_hot_encoder() -> None:
    words = np.array(bank()["job"].to_pylist(), object)[:, None]
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(words[list(TRAIN)])
    transform = fit(["ML.ONE_HOT_ENCODER(job, 'none', 1000, 0) OVER () AS j"], bank(), TRAIN)
    found = np.array(transform.apply(ready(bank()), 6000)["j"].to_pylist())
    assert transform.outputs[0].features == ("(other)", *encoder.categories_[0])
    np.testing.assert_array_equal(found[:, 1:], encoder.transform(words))
    assert transform.outputs[0].state == "12 categories"


def test_one_hot_encoder_limits() -> None:
    columns = {"f": pa.array(["a", "b", "b", "c", "c", "c", None])}
    assert one("ML.ONE_HOT_ENCODER(f, 'none', 2, 2) OVER ()", columns) == [
        *[[1, 0, 0]],
        *[[0, 1, 0]] * 2,
        *[[0, 0, 1]] * 3,
        *[[1, 0, 0]],
    ]
    transform = fit(["ML.ONE_HOT_ENCODER(f, 'most_frequent', frequency_threshold => 1) OVER () AS x"], columns)
    assert transform.outputs[0].features == ("(other)", "a", "b")
    assert transform.outputs[0].state == "3 categories, c dropped"
    assert transform.apply(ready(columns), 7)["x"].to_pylist()[3] == [0, 0, 0]
    assert one("ML.ONE_HOT_ENCODER(f) OVER ()", columns) == [[1]] * 7  # fewer than 5 of each


def test_label_encoder() -> None:
    columns = {"f": pa.array([None, "a", "b", "b", "c", "c", "c", "d", "d"])}
    assert one("ML.LABEL_ENCODER(f, 2, 2) OVER ()", columns) == [0, 0, 1, 1, 2, 2, 2, 0, 0]  # BigQuery's example
    words = np.array(bank()["education"].to_pylist(), object)[:, None]
    expected = OrdinalEncoder().fit(words[list(TRAIN)]).transform(words)[:, 0] + 1
    assert one("ML.LABEL_ENCODER(education) OVER ()", bank(), TRAIN) == expected.tolist()


def lists() -> dict[str, pa.Array]:
    random = np.random.default_rng(1)
    words = np.array(["free", "call", "now", "you", "I", "the"])
    return {"f": pa.array([random.choice(words, random.integers(0, 9)).tolist() for _ in range(500)])}


def test_multi_hot_encoder() -> None:
    texts = lists()["f"].to_pylist()
    encoder = MultiLabelBinarizer().fit(texts)
    found = np.array(one("ML.MULTI_HOT_ENCODER(f, frequency_threshold => 1) OVER ()", lists()))
    np.testing.assert_array_equal(found[:, 1:], encoder.transform(texts))
    columns = {"f": pa.array([["a", None], None, [], ["z"]])}
    assert one("ML.MULTI_HOT_ENCODER(f, 1, 1) OVER ()", columns) == [[1, 1], None, [0, 0], [1, 0]]


def test_bag_of_words_and_tf_idf() -> None:
    texts = lists()["f"].to_pylist()
    counts = CountVectorizer(analyzer=list).fit_transform(texts).toarray().astype(float)
    found = np.array(one("ML.BAG_OF_WORDS(f) OVER ()", lists()))
    np.testing.assert_array_equal(found[:, 1:], counts)
    # scikit-learn's idf is another one: BigQuery's is log(1 + documents / (1 + documents with the term))
    idf = np.log(1 + len(texts) / (1 + (counts > 0).sum(0)))
    expected = counts / np.maximum(counts.sum(1, keepdims=True), 1) * idf
    np.testing.assert_allclose(np.array(one("ML.TF_IDF(f) OVER ()", lists()))[:, 1:], expected, rtol=1e-9)


def test_terms_that_are_unknown() -> None:
    columns = {"f": pa.array([["a", "a", "b", None], ["a", "c"], None, []])}
    assert one("ML.BAG_OF_WORDS(f, 1, 2) OVER ()", columns) == [[2, 2], [1, 1], None, [0, 0]]
    found = one("ML.TF_IDF(f, 1, 2) OVER ()", columns)
    both = math.log(1 + 3 / 3)  # of 3 documents 2 have a, and 2 a term that is not in the vocabulary
    assert found[0] == pytest.approx([0.5 * both, 0.5 * both])
    assert found[2:] == [None, [0, 0]]
    states = [c.state for c in fit(["ML.TF_IDF(f, 1, 2) OVER ()", "ML.BAG_OF_WORDS(f, 1, 1) OVER ()"], columns).outputs]
    assert states == ["1 term of 3 documents", "1 term"]


# --- combinations -----------------------------------------------------------------------------------------------------


def test_ngrams() -> None:
    columns = {"f": pa.array([["a", "b", "c"], ["x"], [], None, ["p", None, "q", "r"]])}
    assert one("ML.NGRAMS(f, [2, 3], '#')", columns) == [["a#b", "a#b#c", "b#c"], [], [], None, ["q#r"]]
    assert one("ML.NGRAMS(f, 1)", columns)[4] == ["p", "q", "r"]
    assert one("ML.NGRAMS(f, [1, 2])", columns)[0] == ["a", "a b", "b", "b c", "c"]


def test_feature_cross() -> None:
    columns = {"f1": pa.array(["a", None]), "f2": pa.array(["b", "x"]), "f3": pa.array(["c", "y"])}
    found = run(["ML.FEATURE_CROSS(STRUCT(f1, f2, f3))"], columns)
    assert found == {"f1_f2": ["a_b", None], "f1_f3": ["a_c", None], "f2_f3": ["b_c", "x_y"]}
    found = run(["ML.FEATURE_CROSS(STRUCT(f1 AS a, f2 AS b, f3 AS c), 3) AS x"], columns)
    assert list(found) == ["x_a_b", "x_a_b_c", "x_a_c", "x_b_c"]
    assert found["x_a_b_c"] == ["a_b_c", None]
    assert run(["ML.FEATURE_CROSS({'a': f2, 'b': f3})"], columns) == {"a_b": ["b_c", "x_y"]}


def test_polynomial_expand() -> None:
    columns = {"f1": pa.array([2, None]), "f2": pa.array([3, 4])}
    found = run(["ML.POLYNOMIAL_EXPAND(STRUCT(f1, f2))"], columns)
    assert {name: values[0] for name, values in found.items()} == {"f1": 2, "f1_f1": 4, "f1_f2": 6, "f2": 3, "f2_f2": 9}
    assert list(found) == ["f1", "f1_f1", "f1_f2", "f2", "f2_f2"]  # BigQuery's order
    assert found["f1_f2"][1] is None
    rows = np.column_stack([numbers("age"), numbers("day"), numbers("campaign")])
    expected = PolynomialFeatures(3, include_bias=False).fit_transform(rows)
    got = np.column_stack(list(run(["ML.POLYNOMIAL_EXPAND(STRUCT(age, day, campaign), 3)"], bank()).values()))
    assert got.shape == expected.shape
    order, other = (np.lexsort(m[:50][::-1]) for m in (got, expected))
    np.testing.assert_allclose(got[:, order], expected[:, other], rtol=1e-9)


def test_every_function_is_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in FUNCTIONS if f"ML.{name}(" not in text and f'"{name}"' not in text] == []
    assert [function.over for function in FUNCTIONS.values()] == [True] * 11 + [False] * 6
