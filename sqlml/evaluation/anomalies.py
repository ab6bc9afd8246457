"""ML.DETECT_ANOMALIES: which rows are unlike those that a version was trained on.

    isolation_forest    anomaly_score           the model's own score
    kmeans              normalized_distance     the distance from the nearest centre, in radii of its cluster; and centroid_id
    pca                 mean_squared_error      what is lost when the row is rebuilt from its components, per feature

The names are BigQuery's.  A row is an anomaly where its figure is above that of all but a share (``contamination``) of the
training rows; an isolation forest has a limit of its own, used where no share is given.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.bundles.head import Head
from sqlml.bundles.model import Data, Features, Model
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURE = {
    Task.ANOMALY: "anomaly_score",
    Task.CLUSTERING: "normalized_distance",
    Task.PROJECTION: "mean_squared_error",
}
"""The figure that tells, by task; other tasks have none."""


def anomaly_schema(task: Task) -> pa.Schema:
    """The columns that ML.DETECT_ANOMALIES adds to a row."""
    fields = [("is_anomaly", pa.bool_()), (FIGURE[task], pa.float64())]
    return pa.schema([*fields, *([("centroid_id", pa.int64())] if task is Task.CLUSTERING else [])])


class AnomalyModel(Model):
    """A model whose ``full`` is what ML.DETECT_ANOMALIES adds to each row; the rest is as in ``model``.

    ``sample`` are training rows, since such models have no target; it may be None for an isolation forest without
    ``contamination`` alone.
    """

    def __init__(self, model: Model, contamination: float | None, sample: Features | None) -> None:
        super().__init__(model.folder, model.manifest, model.heads)
        self._radii = np.ones(0)
        x = None if sample is None else model.head.encode(sample.columns, sample.n)
        if model.task is Task.CLUSTERING and x is not None:
            self._radii = cluster_radii(model.head.predictor.predict(x))
        if contamination is None or x is None or not len(x):
            self._limit = self.head.threshold
        else:
            self._limit = float(np.quantile(self._figures(x)[0], 1 - contamination))

    @cached_property
    def full_schema(self) -> pa.Schema:
        """``anomaly_schema`` of the task."""
        return anomaly_schema(self.task)

    def full(self, data: Data) -> pa.RecordBatch:
        """The columns of ``full_schema`` for each row."""
        figures, nearest = self._figures(self.encode(data))
        arrays = [pa.array(figures > self._limit), pa.array(figures)]
        if nearest is not None:
            arrays.append(pa.array(nearest + 1, pa.int64()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.full_schema)

    def _figures(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
        if self.task is Task.PROJECTION:
            return reconstruction_errors(self.head, x), None
        raw = np.asarray(self.predictor.predict(x), np.float64)
        if self.task is Task.ANOMALY:
            return raw, None
        scaled = raw / self._radii
        return scaled.min(1, initial=np.inf), scaled.argmin(1)


def cluster_radii(distances: NDArray[Any]) -> NDArray[np.float64]:
    """The root mean square distance of each cluster's rows from its centre; of a cluster without extent that of all rows."""
    nearest, own = distances.argmin(1), distances.min(1, initial=np.inf)
    count = np.bincount(nearest, minlength=distances.shape[1])
    squares = np.bincount(nearest, own**2, minlength=distances.shape[1])
    radii = np.sqrt(np.divide(squares, count, out=np.zeros(len(count)), where=count > 0))
    whole = float(np.sqrt(np.mean(own**2))) or 1.0
    return np.where(radii > 0, radii, whole)


def reconstruction_errors(head: Head, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,): the mean over the features of the squared difference between a row and what its components give back."""
    learnt = head.predictor.parameters()
    components, mean = learnt["components"], learnt["mean"]
    apart = x - mean
    lost = apart - apart @ components.T @ components
    return np.asarray((lost**2).mean(1))
