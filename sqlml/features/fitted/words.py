"""Texts and lists of texts to codes and vectors, by a vocabulary of the training rows.

A vector has a position for each word, in the order of the alphabet, and before them all position 0, which BigQuery gives to NULL
and to every word that is not in the vocabulary.  BigQuery writes such a vector as ARRAY<STRUCT<index, value>>; here it is dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import count_of
from sqlml.features.fitted.base import (
    Analytic,
    Apply,
    Options,
    Parameter,
    Scalar,
    State,
    Takes,
    Vocabulary,
    flat_list,
    floats,
    most_frequent,
    vectors,
    word_counts,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

OTHER = "(other)"
"""The name of position 0."""

_LIMITS = (Parameter("top_k", "int", 32_000, low=1, high=999_999), Parameter("frequency_threshold", "int", 5, low=0))


class _Words(Analytic):
    """What all of them share: a vocabulary, in the order of the alphabet."""

    takes = Takes.TEXTS
    value = "array_expression"
    parameters: tuple[Parameter, ...] = _LIMITS

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "DOUBLE[]"

    def describe(self, options: Options, state: State) -> str:
        return count_of(len(state["words"]), "category", "categories")

    def features(self, options: Options, state: State) -> tuple[str, ...]:
        return (OTHER, *state["words"])


class OneHotEncoder(_Words):
    """1 at the value's position.  ``drop`` 'most_frequent' leaves out the position of the most frequent value (dummy encoding).

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-one-hot-encoder
    """

    name = "ONE_HOT_ENCODER"
    takes = Takes.TEXT
    value = "string_expression"
    parameters: tuple[Parameter, ...] = (Parameter("drop", "str", "none", choices=("none", "most_frequent")), *_LIMITS)

    def fit(self, values: pa.Array, options: Options) -> State:
        counts = word_counts(values)
        words = most_frequent(counts, options["top_k"], options["frequency_threshold"])
        dropped = None
        if options["drop"] == "most_frequent" and words:
            dropped = most_frequent([(word, count) for word, count in counts if word in set(words)], 1, 0)[0]
        return {"words": words, "dropped": dropped}

    def bind(self, options: Options, state: State) -> Apply:
        vocabulary, size = Vocabulary.of(state["words"]), len(state["words"])
        dropped = vocabulary.places.get(state["dropped"], -1) if state["dropped"] is not None else None

        def apply(values: pa.Array) -> pa.Array:
            matrix = np.zeros((len(values), size + 1))
            matrix[np.arange(len(values)), vocabulary.find(values) + 1] = 1.0
            return vectors(matrix if dropped is None else np.delete(matrix, dropped + 1, 1))

        return apply

    def describe(self, options: Options, state: State) -> str:
        text = super().describe(options, state)
        return text if state["dropped"] is None else f"{text}, {state['dropped']} dropped"

    def features(self, options: Options, state: State) -> tuple[str, ...]:
        return tuple(name for name in super().features(options, state) if name != state["dropped"])


class LabelEncoder(_Words):
    """The number of a value in the vocabulary, counted from 1; 0 for NULL and for values that are not in it.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-label-encoder
    """

    name = "LABEL_ENCODER"
    takes = Takes.TEXT
    value = "string_expression"

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "BIGINT"

    def fit(self, values: pa.Array, options: Options) -> State:
        return {"words": most_frequent(word_counts(values), options["top_k"], options["frequency_threshold"])}

    def bind(self, options: Options, state: State) -> Apply:
        vocabulary = Vocabulary.of(state["words"])
        return lambda values: pa.array(vocabulary.find(values) + 1)

    def features(self, options: Options, state: State) -> tuple[str, ...]:
        return ()


class MultiHotEncoder(_Words):
    """1 at the position of every value in the list.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-multi-hot-encoder
    """

    name = "MULTI_HOT_ENCODER"

    def fit(self, values: pa.Array, options: Options) -> State:
        return {"words": most_frequent(word_counts(values.flatten()), options["top_k"], options["frequency_threshold"])}

    def bind(self, options: Options, state: State) -> Apply:
        vocabulary, size = Vocabulary.of(state["words"]), len(state["words"])

        def apply(values: pa.Array) -> pa.Array:
            flat, rows, absent = flat_list(values)
            matrix = np.zeros((len(values), size + 1))
            matrix[rows, vocabulary.find(flat) + 1] = 1.0
            return vectors(matrix, absent)

        return apply


class BagOfWords(_Words):
    """How often each term occurs in the document.

    The vocabulary: the ``top_k`` terms that are in most documents, those in fewer than ``frequency_threshold`` left out.
    BigQuery's page gives no defaults; they are those of its other encoders.
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-bag-of-words
    """

    name = "BAG_OF_WORDS"
    value = "tokenized_document"

    def fit(self, values: pa.Array, options: Options) -> State:
        return {"words": _frequent_terms(values, options)}

    def bind(self, options: Options, state: State) -> Apply:
        vocabulary, size = Vocabulary.of(state["words"]), len(state["words"])
        return lambda values: _term_matrix(values, vocabulary, size)

    def describe(self, options: Options, state: State) -> str:
        return count_of(len(state["words"]), "term")


class TfIdf(_Words):
    """Term frequency times inverse document frequency.

    Term frequency: (count of the term in the document) / (size of the document); inverse document frequency:
    log(1 + documents / (1 + documents with the term)), the natural logarithm; terms that are not in the vocabulary count as one.
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-tf-idf
    """

    name = "TF_IDF"
    value = "tokenized_document"

    def fit(self, values: pa.Array, options: Options) -> State:
        words = _frequent_terms(values, options)
        vocabulary, documents = Vocabulary.of(words), len(values) - values.null_count
        flat, rows, _ = flat_list(values)
        with_term = np.bincount(_pairs(rows, vocabulary.find(flat) + 1, len(words) + 1)[1], minlength=len(words) + 1)
        return {"words": words, "documents": documents, "with_term": [int(count) for count in with_term]}

    def bind(self, options: Options, state: State) -> Apply:
        vocabulary, size = Vocabulary.of(state["words"]), len(state["words"])
        idf = np.log(1 + state["documents"] / (1 + np.asarray(state["with_term"], np.float64)))
        return lambda values: _term_matrix(values, vocabulary, size, idf)

    def describe(self, options: Options, state: State) -> str:
        return f"{count_of(len(state['words']), 'term')} of {count_of(state['documents'], 'document')}"


def _frequent_terms(values: pa.Array, options: Options) -> tuple[str, ...]:
    """The vocabulary by the number of documents that have a term."""
    flat, rows, _ = flat_list(values)
    coded = pc.dictionary_encode(flat)
    codes = np.asarray(pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False), np.int64)
    known = codes >= 0
    with_term = np.bincount(_pairs(rows[known], codes[known], len(coded.dictionary))[1], minlength=len(coded.dictionary))
    counts = list(zip(coded.dictionary.to_pylist(), with_term.tolist(), strict=True))
    return most_frequent(counts, options["top_k"], options["frequency_threshold"])


def _pairs(rows: NDArray[np.int64], codes: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair of row and code once."""
    both = np.unique(rows * max(size, 1) + codes)
    return both // max(size, 1), both % max(size, 1)


def _term_matrix(values: pa.Array, vocabulary: Vocabulary, size: int, weights: NDArray[np.float64] | None = None) -> pa.Array:
    """The counts of each document's terms, unknown ones first; with ``weights`` (1 + size,) their shares times those."""
    flat, rows, absent = flat_list(values)
    width = size + 1
    places, counts = np.unique(rows * width + vocabulary.find(flat) + 1, return_counts=True)
    found = counts.astype(np.float64)
    if weights is not None:
        lengths = np.bincount(rows, minlength=len(values))
        found *= weights[places % width] / lengths[places // width]
    matrix = np.zeros(len(values) * width)
    matrix[places] = found
    return vectors(matrix.reshape(len(values), width), absent)


class Ngrams(Scalar):
    """Runs of ``range[0]`` to ``range[1]`` neighbouring elements, joined: by where they begin, shorter ones first.

    A run with a NULL in it is left out.
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-ngrams
    """

    name = "NGRAMS"
    takes = Takes.TEXTS
    value = "array_input"
    parameters: tuple[Parameter, ...] = (
        Parameter("range", "ints", required=True, low=1, high=100),
        Parameter("separator", "str", " "),
    )

    def check(self, options: Options) -> None:
        if len(options["range"]) not in (1, 2) or options["range"][0] > options["range"][-1]:
            raise ValueError("range is a number or two, the lower one first, such as [1, 2]")

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "VARCHAR[]"

    def bind(self, options: Options, state: State) -> Apply:
        sizes = range(options["range"][0], options["range"][-1] + 1)

        def apply(values: pa.Array) -> pa.Array:
            flat, rows, absent = flat_list(values)
            pieces, places = zip(*(_runs(flat, rows, size, options["separator"]) for size in sizes), strict=True)
            starts = np.concatenate(places)
            order = np.argsort(starts, kind="stable")
            lengths = np.bincount(rows[starts], minlength=len(values)) if len(rows) else np.zeros(len(values), int)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
            runs = pa.concat_arrays(pieces).take(pa.array(order))
            return pa.ListArray.from_arrays(offsets, runs, mask=pa.array(absent) if absent.any() else None)

        return apply


def _runs(flat: pa.Array, rows: NDArray[np.int64], size: int, separator: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """The runs of one size, and the element at which each begins."""
    starts = np.arange(max(len(flat) - size + 1, 0))
    starts = starts[rows[starts] == rows[starts + size - 1]]
    parts = [flat.take(pa.array(starts + i)) for i in range(size)]
    joined = parts[0] if size == 1 else pc.binary_join_element_wise(*parts, separator)
    known = joined.is_valid().to_numpy(zero_copy_only=False)
    return joined.filter(pa.array(known)), starts[known]


class Sparse(Analytic):
    """Lists of STRUCT(index, value), as BigQuery writes vectors, to dense ones; not to be called, but applied to such items.

    As long as the largest index of the training rows needs, counted from 0; what lies beyond is left out.
    """

    name = "SPARSE"
    takes = Takes.NUMBERS
    value = "vector"
    parameters: tuple[Parameter, ...] = ()

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "DOUBLE[]"

    def fit(self, values: pa.Array, options: Options) -> State:
        largest = pc.max(pc.struct_field(values.flatten(), "index")).as_py()
        return {"width": min(max(largest, -1) + 1, 1_000_000) if largest is not None else 0}

    def bind(self, options: Options, state: State) -> Apply:
        width = state["width"]

        def apply(values: pa.Array) -> pa.Array:
            flat, rows, absent = flat_list(values)
            index = np.asarray(pc.fill_null(pc.struct_field(flat, "index"), -1).to_numpy(zero_copy_only=False), np.int64)
            kept = (index >= 0) & (index < width)
            matrix = np.zeros((len(values), width))
            np.add.at(matrix, (rows[kept], index[kept]), floats(pc.struct_field(flat, "value"))[kept])
            return vectors(matrix, absent)

        return apply

    def describe(self, options: Options, state: State) -> str:
        return count_of(state["width"], "position")

    def features(self, options: Options, state: State) -> tuple[str, ...]:
        return tuple(str(i) for i in range(state["width"]))
