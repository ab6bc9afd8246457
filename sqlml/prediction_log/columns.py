"""The columns of the prediction log and of the feedback: as relations, and as files.

In a file of predictions ``inputs`` and ``outputs`` are structs: the version's columns by name, and what PREDICT MODEL adds, where
probabilities are a struct from class to number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTIONS = (
    ("endpoint", "VARCHAR"),  # its name, in lower case
    ("request_id", "VARCHAR"),
    ("row", "BIGINT"),  # the row's number in the request, from 0
    ("key", "VARCHAR"),  # what the request gave to know the row by; NULL: nothing
    ("model", "VARCHAR"),
    ("version", "BIGINT"),
    ("role", "VARCHAR"),  # serves, shadow
    ("inputs", "VARCHAR"),  # in the relation a JSON object, column → value; in a file a struct
    ("outputs", "VARCHAR"),  # likewise what PREDICT MODEL adds; probabilities as an object, class → number
    ("latency", "DOUBLE"),  # seconds that the request took
    ("logged_at", "TIMESTAMP"),  # UTC
)
"""The columns of the relation ``sqlml.predictions``; a file has the same."""

FEEDBACK = (
    ("endpoint", "VARCHAR"),  # in lower case
    ("request_id", "VARCHAR"),  # NULL where the key is given
    ("row", "BIGINT"),  # of the request; NULL is 0
    ("key", "VARCHAR"),
    ("target", "VARCHAR"),  # NULL: the model's only one
    ("truth", "VARCHAR"),  # as text: a class, a number
    ("owner", "VARCHAR"),
    ("given_at", "TIMESTAMP"),
)
"""The columns of a file of feedback, and of the relation ``sqlml.feedback``."""


def relation_schema(columns: tuple[tuple[str, str], ...]) -> pa.Schema:
    """The Arrow schema of a relation."""
    import pyarrow as pa

    kinds = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "TIMESTAMP": pa.timestamp("us")}
    return pa.schema([(name, kinds[sql_type]) for name, sql_type in columns])


def predictions_schema(inputs: pa.StructType, outputs: pa.StructType) -> pa.Schema:
    """The Arrow schema of a version's files of predictions."""
    import pyarrow as pa

    structs = {"inputs": inputs, "outputs": outputs}
    return pa.schema([pa.field(field.name, structs.get(field.name, field.type)) for field in relation_schema(PREDICTIONS)])


def feedback_schema() -> pa.Schema:
    """The Arrow schema of a file of feedback."""
    return relation_schema(FEEDBACK)
