"""The functions of TRANSFORM: BigQuery's, by name.  A new one is a class and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from sqlml.features.fitted.base import FittedFunction
from sqlml.features.fitted.buckets import Bucketize, HashBucketize, QuantileBucketize
from sqlml.features.fitted.cross import FeatureCross, PolynomialExpand
from sqlml.features.fitted.scale import Imputer, MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from sqlml.features.fitted.words import BagOfWords, LabelEncoder, MultiHotEncoder, Ngrams, OneHotEncoder, Sparse, TfIdf

_ALL: tuple[FittedFunction, ...] = (
    StandardScaler(),
    MinMaxScaler(),
    MaxAbsScaler(),
    RobustScaler(),
    QuantileBucketize(),
    OneHotEncoder(),
    LabelEncoder(),
    MultiHotEncoder(),
    Imputer(),
    BagOfWords(),
    TfIdf(),
    Normalizer(),
    Bucketize(),
    FeatureCross(),
    PolynomialExpand(),
    HashBucketize(),
    Ngrams(),
)

FUNCTIONS: Mapping[str, FittedFunction] = {function.name: function for function in _ALL}
"""Name without ``ML.``, in capitals → function."""

STEPS: Mapping[str, FittedFunction] = {**FUNCTIONS, "SPARSE": Sparse()}
"""The same, and what is applied without being called."""
