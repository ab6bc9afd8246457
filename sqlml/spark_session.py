"""A Spark session, opened from the options of a runner or a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def open_spark(options: Mapping[str, Any]) -> Any:
    """The Spark session of ``options``: ``master`` or ``connect``, and ``config``, Spark's own settings."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(options["master"])
    for name, value in options.get("config", {}).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
