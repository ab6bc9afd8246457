"""Charts: what is drawn, and what is left out."""

from __future__ import annotations

import pyarrow as pa

from sqlml import plots

CURVES = pa.table(
    {
        "model": ["m"] * 3,
        "version": [1] * 3,
        "step": [1] * 3,
        "split": ["train", "heldout", "job"],
        "metric": ["logloss", "logloss", "seconds"],
        "value": [0.4, 0.5, 12.0],
    }
)


def test_a_training_s_lines_are_figures_of_the_model_and_not_of_the_job() -> None:
    drawn = plots.plot(CURVES).to_dict()["data"]["values"]
    assert {(row["run"], row["metric"], row["value"]) for row in drawn} == {
        ("m@1 train", "logloss", 0.4),
        ("m@1 heldout", "logloss", 0.5),
    }
