"""The files of a job's folder, by name: whoever starts a job, carries it out or reads what it left takes the names from here."""

from __future__ import annotations

DOCUMENT = "job.json"
"""The job itself (``JobSpec``)."""
TRAIN_ROWS, VALIDATION_ROWS, PREDICT_ROWS = "train.arrow", "validation.arrow", "rows.arrow"
"""Its copies of rows: to learn from, of VALIDATE ON, to predict for."""
STAGED_ROWS = {name: name.replace(".arrow", ".staged") for name in (TRAIN_ROWS, VALIDATION_ROWS, PREDICT_ROWS)}
"""The folders of Parquet files that a runner may make of them, here or elsewhere."""

EVENTS, LOG = "events.jsonl", "job.log"
"""What it does, a line of JSON for each event; and what it says, for people."""
RESULT = "result.json"
"""What became of it, at its end: a ``TrainOutcome``, ``FoldsOutcome`` or ``PredictOutcome``."""
BUNDLE, FITS = "bundle", "fits"
"""What TRAIN made, until it is published; checkpoints on the way."""
HELDOUT_ROWS, SAMPLE_ROWS = "heldout.arrow", "sample.arrow"
"""What a training keeps: labels and scores of held-out rows; some rows as the model reads them."""
PREDICTIONS = "predictions"
"""The folder of Parquet files that a prediction leaves."""
