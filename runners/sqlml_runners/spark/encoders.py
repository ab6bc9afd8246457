"""The encoder fitted on the cluster: each partition's figures, merged; the frequent texts counted by Spark.

    training rows → (executors) counts, ends, means and squares of each part of a column → (driver) ColumnCode

The result is the encoder that ``FeatureEncoder.fit`` makes of the same rows, up to the rounding of sums.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.algorithms.options import MAX_CATEGORIES
from sqlml.errors import TrainingDataError
from sqlml.features.column_code import CODES, DENSE, PARTS, ColumnCode, read_parts
from sqlml.features.dataset import Values
from sqlml.features.encode import FeatureEncoder
from sqlml.features.vectors import vector_blocks
from sqlml.training.aims import Learner
from sqlml.types import Kind
from sqlml_runners.spark.executors import Batches, Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNUSED_NULL = "not used: every training row is NULL"
_UNUSED_ONE = "not used: one value only in the training rows"


@dataclass
class Figures:
    """Of each part of a column: how many values, the ends, the mean, the squared distances from it; rows and NULLs.

    ``width`` is a vector's length, None where there was none yet; ``wrong`` another length that was met.
    """

    rows: int
    known: int
    width: int | None
    wrong: int | None
    count: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.float64], known: int) -> Figures:
        """Of a matrix (rows, parts), NaN for missing."""
        absent = np.isnan(x)
        count = (~absent).sum(0).astype(np.float64)
        filled = np.where(absent, 0.0, x)
        mean = filled.sum(0) / np.maximum(count, 1)
        squares = (np.where(absent, 0.0, x - mean) ** 2).sum(0)
        low = np.where(absent, np.inf, x).min(0, initial=np.inf)
        high = np.where(absent, -np.inf, x).max(0, initial=-np.inf)
        return cls(len(x), known, None, None, count, low, high, mean, squares)

    def add(self, other: Figures) -> Figures:
        """Both together (Chan, Golub and LeVeque 1979)."""
        lengths = {w for w in (self.width, other.width, self.wrong, other.wrong) if w is not None}
        width = min(lengths) if lengths else None
        wrong = max(lengths) if len(lengths) > 1 else None
        if not other.rows or not self.rows or len(self.count) != len(other.count):
            larger = self if len(self.count) >= len(other.count) and self.rows else other
            rows, known = self.rows + other.rows, self.known + other.known
            kept = (larger.count, larger.low, larger.high, larger.mean, larger.squares)
            return Figures(rows, known, width, wrong, *kept)
        count = self.count + other.count
        apart = other.mean - self.mean
        share = other.count / np.maximum(count, 1)
        return Figures(
            self.rows + other.rows,
            self.known + other.known,
            width,
            wrong,
            count,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.mean + apart * share,
            self.squares + other.squares + apart**2 * self.count * share,
        )

    @property
    def deviation(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(self.squares / np.maximum(self.count, 1)))

    def to_json(self) -> list[Any]:
        arrays = (self.count, self.low, self.high, self.mean, self.squares)
        return [self.rows, self.known, self.width, self.wrong, *(array.tolist() for array in arrays)]

    @classmethod
    def from_json(cls, document: Sequence[Any]) -> Figures:
        arrays = [np.array(values, np.float64) for values in document[4:]]
        return cls(*document[:4], *arrays)


# --- on the executors -------------------------------------------------------------------------------------------------


def figure_batches(batches: Batches, columns: Columns) -> Batches:
    """For each partition one row: the figures of every column, as JSON."""
    found: dict[str, Figures] = {}
    for batch in batches:
        if not batch.num_rows:
            continue
        for name, values in columns.read(batch).items():
            kind = next(k for n, _, k in columns.items if n == name)
            piece = _vector(values) if kind is Kind.NUMBERS else _parts(values, kind)
            found[name] = found[name].add(piece) if name in found else piece
    text = json.dumps({name: figures.to_json() for name, figures in found.items()})
    yield pa.RecordBatch.from_arrays([pa.array([text])], names=["figures"])


def _parts(values: Values, kind: Kind) -> Figures:
    x = np.column_stack(read_parts(values, kind, PARTS[kind]))
    return Figures.of(x, int((~np.isnan(x[:, 0])).sum()))


def _vector(values: Values) -> Figures:
    lengths = pc.list_value_length(values).drop_null()
    found = sorted(pc.unique(lengths).to_pylist())
    if len(found) != 1:
        none = np.zeros(0)
        low, high = (found[0], found[-1]) if found else (None, None)
        return Figures(len(values), len(lengths), low, high, none, none, none, none, none)
    width = int(found[0])
    blocks = [Figures.of(block, 0) for _, block in vector_blocks("", values, None, width)]
    whole = blocks[0]
    for block in blocks[1:]:
        whole = whole.add(block)
    whole.known, whole.width = len(lengths), width
    return whole


# --- on the driver ----------------------------------------------------------------------------------------------------


def fit_encoder(
    frame: Any, columns: Columns, learner: Learner, positions: Mapping[str, Sequence[str]]
) -> tuple[FeatureEncoder, dict[str, Words]]:
    """The encoder that the algorithm wants, of all rows of ``frame``, and the texts that were counted for it.

    ``TrainingDataError`` where it gives no features.
    """
    encoding = learner.algorithm.encoding
    most = learner.options.get(MAX_CATEGORIES.name) or (1000 if encoding == CODES else 100)
    numbers = Columns(tuple(item for item in columns.items if item[2] not in (Kind.TEXT, Kind.TEXTS)))
    texts = Columns(tuple(item for item in columns.items if item[2] in (Kind.TEXT, Kind.TEXTS)))
    figures = _figures(frame, numbers) if numbers.items else {}
    words = count_texts(frame, texts, most) if texts.items else {}
    codes = []
    for name, _, kind in columns.items:
        if kind is Kind.TEXT:
            codes.append(_text_code(name, words[name], most))
        elif kind is Kind.TEXTS:
            codes.append(_texts_code(name, words[name], most))
        elif kind is Kind.NUMBERS:
            codes.append(_vector_code(name, figures.get(name), encoding, positions.get(name, ())))
        else:
            codes.append(_parts_code(name, kind, figures.get(name), encoding))
    encoder = FeatureEncoder(codes, encoding)
    if not encoder.names:
        raise _no_features([name for name, _, _ in columns.items])
    return encoder, words


def _no_features(names: Sequence[str]) -> TrainingDataError:
    if not names:
        return TrainingDataError("there are no feature columns left to learn from")
    one = f"the only feature column, {names[0]}, does not vary"
    subject = one if len(names) == 1 else f"none of the {len(names):,} feature columns varies"
    return TrainingDataError(f"{subject} in the training rows: there is nothing to learn from")


def _figures(frame: Any, columns: Columns) -> dict[str, Figures]:
    picked = frame.select(*(column for _, column, _ in columns.items))
    rows = picked.mapInArrow(partial(figure_batches, columns=columns), "figures string").collect()
    total: dict[str, Figures] = {}
    for row in rows:
        for name, document in json.loads(row[0]).items():
            figures = Figures.from_json(document)
            total[name] = total[name].add(figures) if name in total else figures
    return total


def _parts_code(name: str, kind: Kind, figures: Figures | None, encoding: str) -> ColumnCode:
    """As ``encode._fit_column`` decides, from figures."""
    if figures is None or not figures.known:
        return ColumnCode(name, kind, (), note=_UNUSED_NULL)
    varies = figures.low < figures.high
    missing = figures.known < figures.rows
    if not varies.any():
        if not missing:
            return ColumnCode(name, kind, (), note=_UNUSED_ONE)
        varies[0] = True  # that it is missing is all there is to learn
    parts = tuple(part for part, useful in zip(PARTS[kind], varies, strict=True) if useful)
    if encoding == CODES:
        return ColumnCode(name, kind, parts, missing)
    deviation = figures.deviation[varies]
    scales = np.where(deviation > 0, deviation, 1.0)
    return ColumnCode(name, kind, parts, missing, means=tuple(figures.mean[varies].tolist()), scales=tuple(scales.tolist()))


def _vector_code(name: str, figures: Figures | None, encoding: str, names: Sequence[str]) -> ColumnCode:
    kind = Kind.NUMBERS
    if figures is None or not figures.known:
        return ColumnCode(name, kind, (), note=_UNUSED_NULL)
    if figures.wrong is not None and figures.wrong != figures.width:
        raise TrainingDataError(
            f"{name} has lists of {figures.width:,} and of {figures.wrong:,} numbers: as a feature a list must have one length",
            hint=f"take what all rows have (slice({name}, 1, {max(figures.width or 0, 1)})), or numbers of it",
        )
    width = figures.width or 0
    if not width:
        return ColumnCode(name, kind, (), note="not used: its lists are empty")
    missing = figures.known < figures.rows or bool((figures.count < figures.known).any())
    kept = np.flatnonzero(figures.low < figures.high)
    if not len(kept):
        if not missing:
            return ColumnCode(name, kind, (), note=_UNUSED_ONE)
        kept = np.zeros(1, np.intp)
    dense = encoding == DENSE
    deviation = figures.deviation[kept]
    return ColumnCode(
        name,
        kind,
        tuple(str(i) for i in kept),
        missing,
        means=tuple(figures.mean[kept].tolist()) if dense else (),
        scales=tuple(np.where(deviation > 0, deviation, 1.0).tolist()) if dense else (),
        width=width,
        labels=tuple(names[int(i)] for i in kept) if len(names) == width else (),
    )


# --- texts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """The most frequent texts of a column with the rows that have them, how many texts there are, the rows, and the NULLs."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    different: int
    rows: int
    absent: int


def count_texts(frame: Any, columns: Columns, most: int) -> dict[str, Words]:
    """Of columns of texts and of lists of texts (each counted once in a row): the ``most`` + 1 most frequent ones."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    absent = frame.agg(sf.count(sf.lit(1)), *(sf.count_if(sf.col(column).isNull()) for _, column, _ in columns.items)).first()
    lists = [
        sf.transform(_as_list(column, kind), partial(_numbered_word, i)) for i, (_, column, kind) in enumerate(columns.items)
    ]
    words = frame.select(sf.explode(sf.concat(*lists)).alias("item")).select("item.column", "item.word").where("word IS NOT NULL")
    counts = words.groupBy("column", "word").count()
    ranked = counts.withColumn("rank", sf.row_number().over(Window.partitionBy("column").orderBy(sf.desc("count"), "word")))
    different = sf.count(sf.lit(1)).over(Window.partitionBy("column"))
    found = ranked.withColumn("different", different).where(sf.col("rank") <= most + 1).toArrow()
    made = {}
    for i, (name, _, _) in enumerate(columns.items):
        own = found.filter(pc.equal(found.column("column"), i)).sort_by("rank")
        texts, numbers = own.column("word").to_pylist(), own.column("count").to_pylist()
        total = own.column("different")[0].as_py() if own.num_rows else 0
        made[name] = Words(tuple(texts), tuple(numbers), int(total), int(absent[0]), int(absent[i + 1]))
    return made


def _as_list(column: str, kind: Kind) -> Any:
    from pyspark.sql import functions as sf

    if kind is Kind.TEXT:
        return sf.array(sf.col(column).cast("string"))
    return sf.coalesce(sf.array_distinct(sf.col(column)), sf.array().cast("array<string>"))


def _numbered_word(number: int, word: Any) -> Any:
    from pyspark.sql import functions as sf

    return sf.struct(sf.lit(number).alias("column"), word.alias("word"))


def _text_code(name: str, words: Words, most: int) -> ColumnCode:
    if not words.different:
        return ColumnCode(name, Kind.TEXT, (), note=_UNUSED_NULL)
    if words.different == 1 and not words.absent:
        return ColumnCode(name, Kind.TEXT, (), note=_UNUSED_ONE)
    kept = words.words[:most]
    others = words.different - len(kept)
    return ColumnCode(name, Kind.TEXT, PARTS[Kind.TEXT], bool(words.absent or others), kept, others)


def _texts_code(name: str, words: Words, most: int) -> ColumnCode:
    """The most frequent categories; those that every row has are left out."""
    known = words.rows - words.absent
    if not known:
        return ColumnCode(name, Kind.TEXTS, (), note=_UNUSED_NULL)
    pairs = zip(words.words, words.counts, strict=True)
    constant = sum(count == known for count in words.counts) if not words.absent else 0
    able = [word for word, count in pairs if words.absent or count < known]
    kept = tuple(able[:most])
    if not kept:
        return ColumnCode(name, Kind.TEXTS, (), note=_UNUSED_ONE)
    return ColumnCode(name, Kind.TEXTS, ("set",), bool(words.absent), kept, words.different - constant - len(kept))
