"""Principal components: scikit-learn's, whitened and not, by every solver; weights; what is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sqlml.algorithms.metrics import measure
from sqlml.errors import TrainingDataError
from sqlml.types import Task
from tests.algorithms.fitting import fit, numbers, table


@pytest.mark.parametrize("solver", ["auto", "full", "covariance_eigh", "arpack", "randomized"])
@pytest.mark.parametrize("whiten", [False, True])
def test_equals_scikit_learn(solver: str, whiten: bool) -> None:
    from sklearn.decomposition import PCA

    x, new = numbers(), numbers(50, seed=8)
    ours = fit("pca", table(x), n_components=3, svd_solver=solver, whiten=whiten, seed=4)
    theirs = PCA(3, svd_solver=solver, whiten=whiten, random_state=4).fit(x.astype(np.float64))
    expected = theirs.transform(new.astype(np.float64))
    # arpack and randomized stop where they find it good enough
    assert np.abs(ours.predict(new) - expected).max() < (1e-9 if solver in ("auto", "full", "covariance_eigh") else 1e-6)
    learnt = ours.parameters()
    for name in ("components", "explained_variance", "explained_variance_ratio", "mean"):
        assert np.allclose(learnt[name], getattr(theirs, f"{name}_"), rtol=1e-9)


@pytest.mark.parametrize(("given", "components"), [(None, 5), (0.5, None), (0.99, None), (1, 1)])
def test_number_of_components(given: Any, components: int | None) -> None:
    from sklearn.decomposition import PCA

    x = numbers()
    ours = fit("pca", table(x), **({} if given is None else {"n_components": given}))
    theirs = PCA(given).fit(x.astype(np.float64))
    assert len(ours.parameters()["components"]) == len(theirs.components_) == (components or len(theirs.components_))
    weighted = fit("pca", table(x, weight=np.ones(len(x))), **({} if given is None else {"n_components": given}))
    assert np.allclose(weighted.predict(x), ours.predict(x), atol=1e-8)


def test_weights_are_repetitions() -> None:
    x = numbers()
    times = np.random.default_rng(2).integers(0, 4, len(x))
    one = fit("pca", table(x, weight=times), n_components=2)
    two = fit("pca", table(np.repeat(x, times, 0)), n_components=2)
    assert np.allclose(one.predict(x), two.predict(x), atol=1e-8)
    assert np.allclose(one.parameters()["explained_variance"], two.parameters()["explained_variance"], rtol=1e-9)


def test_what_is_lost() -> None:
    x = numbers()
    ours = fit("pca", table(x), n_components=2, whiten=True)
    figures = measure(Task.PROJECTION, ours.predict(x), x=x, parameters=ours.parameters())
    ratio = ours.parameters()["explained_variance_ratio"].sum()
    assert figures["total_explained_variance_ratio"] == pytest.approx(ratio, abs=1e-9)
    apart = x - x.mean(0, dtype=np.float64)
    assert figures["reconstruction_error"] == pytest.approx((1 - ratio) * (apart**2).mean(), rel=1e-6)
    whole = fit("pca", table(x))
    everything = measure(Task.PROJECTION, whole.predict(x), x=x, parameters=whole.parameters())
    assert everything["total_explained_variance_ratio"] == pytest.approx(1)
    assert measure(Task.PROJECTION, whole.predict(x)) == {}
    assert set(measure(Task.PROJECTION, whole.predict(x[:0]), x=x[:0], parameters=whole.parameters()).values()) == {None}


def test_importance_is_of_the_features_that_vary() -> None:
    x = numbers(k=3)
    x[:, 0] = 7
    share = fit("pca", table(x), n_components=1).importance()
    assert share[0] < 1e-20
    assert share[2] > share[1] > 0


def test_constant_columns() -> None:
    x = np.ones((20, 3), np.float32)
    ours = fit("pca", table(x), whiten=True)
    assert np.isfinite(ours.predict(x)).all()
    assert not ours.importance().any()
    assert measure(Task.PROJECTION, ours.predict(x), x=x, parameters=ours.parameters()) == {
        "total_explained_variance_ratio": None,
        "reconstruction_error": 0,
    }


@pytest.mark.parametrize(
    ("rows", "options", "message", "hint"),
    [
        (50, {"n_components": 6}, "n_components = 6 is too many for 5 features and 50 rows", "WITH (n_components = 5) or fewer"),
        (3, {"n_components": 4}, "n_components = 4 is too many for 5 features and 3 rows", "WITH (n_components = 3) or fewer"),
        (1, {}, "principal components need 2 rows at least; there is 1", None),
        (
            50,
            {"n_components": 5, "svd_solver": "arpack"},
            "n_components = 5 is too many for 5 features and 50 rows: with svd_solver = 'arpack' it must be less than either",
            "WITH (n_components = 4) or fewer",
        ),
        (
            50,
            {"n_components": 0.9, "svd_solver": "randomized"},
            "n_components = 0.9 is a part of the variance, which svd_solver = 'randomized' cannot aim at",
            "leave svd_solver out, or give a number of components",
        ),
    ],
)
def test_refused(rows: int, options: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(TrainingDataError) as caught:
        fit("pca", table(numbers(rows)), **options)
    assert (caught.value.message, caught.value.hint) == (message, hint)
