"""Choosing the next token: pure functions, and the distributions that they draw from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sqlml.generation.sampling import Sampling, draw, keep_top_k, keep_top_p, next_token, probabilities, softmax

LOGITS = np.array([1.0, 3.0, 2.0, -1.0, 3.0, 0.0], np.float32)
RANDOM = np.random.default_rng(0)


def test_temperature_zero_and_one_candidate_are_the_likeliest() -> None:
    assert next_token(LOGITS, Sampling(temperature=0.0), RANDOM) == 1
    assert next_token(LOGITS, Sampling(temperature=5.0, top_k=1), RANDOM) == 1
    assert next_token(LOGITS, Sampling(temperature=5.0, top_p=1e-9), RANDOM) == 1


def test_softmax_of_large_scores_and_of_minus_infinity() -> None:
    assert softmax(np.array([1e4, 1e4, -np.inf])).tolist() == [0.5, 0.5, 0.0]


def test_the_k_likeliest_stay_and_the_first_of_equal_ones() -> None:
    kept = keep_top_k(np.array([1.0, 3.0, 2.0, 3.0, 3.0]), 2)
    assert np.flatnonzero(np.isfinite(kept)).tolist() == [1, 3]
    assert keep_top_k(LOGITS.astype(float), 0).tolist() == keep_top_k(LOGITS.astype(float), 99).tolist() == LOGITS.tolist()


def test_the_fewest_that_reach_p_stay() -> None:
    probs = np.array([0.1, 0.5, 0.25, 0.15])
    assert keep_top_p(probs, 0.5).tolist() == [0, 1, 0, 0]
    assert keep_top_p(probs, 0.51) == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert keep_top_p(probs, 1.0) is probs


def test_a_lower_temperature_is_surer() -> None:
    cold, warm = (probabilities(LOGITS, Sampling(t)) for t in (0.5, 2.0))
    assert cold.max() > warm.max()
    assert probabilities(LOGITS, Sampling(1.0)) == pytest.approx(softmax(LOGITS.astype(float)))


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.7), Sampling(1.5, top_k=3), Sampling(1.0, top_p=0.9), Sampling(2.0, top_k=4, top_p=0.8)]
)
def test_tokens_are_drawn_as_often_as_they_should(sampling: Sampling) -> None:
    n, random = 4_000, np.random.default_rng(7)
    wanted = probabilities(LOGITS, sampling)
    found = np.bincount([next_token(LOGITS, sampling, random) for _ in range(n)], minlength=len(LOGITS))
    assert found[wanted == 0].sum() == 0
    possible = wanted > 0
    assert stats.chisquare(found[possible], n * wanted[possible]).pvalue > 0.001


def test_the_same_seed_gives_the_same_tokens() -> None:
    def tokens(seed: int) -> list[int]:
        random = np.random.default_rng(seed)
        return [next_token(LOGITS, Sampling(), random) for _ in range(50)]

    assert tokens(1) == tokens(1) != tokens(2)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    st.floats(0.05, 10),
    st.integers(0, 40),
    st.floats(0.001, 1),
    st.integers(0, 1000),
)
def test_whatever_is_drawn_is_possible(logits: list[float], temperature: float, k: int, p: float, seed: int) -> None:
    probs = probabilities(np.array(logits), Sampling(temperature, k, p))
    assert probs.sum() == pytest.approx(1)
    assert np.count_nonzero(probs) <= (k or len(logits))
    assert probs[draw(probs, np.random.default_rng(seed))] > 0
