"""Nested Arrow values as JSON texts, a column at a time: structs, maps and lists, for the database's jsonb."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_CONTROL = r"[\x00-\x1f\"\\]"


def json_texts(array: pa.Array) -> pa.Array:
    """Each value as JSON; NULL stays NULL.  Numbers that JSON has not (NaN, infinities) become null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return json_texts(array.storage)
    if pa.types.is_struct(kind):
        return _struct(array)
    if pa.types.is_map(kind):
        pairs = pc.binary_join_element_wise(_strings(pc.cast(array.keys, pa.string())), _whole(array.items), ":")
        return _joined(array, pairs, "{", "}")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _joined(array, _whole(array.values), "[", "]")
    if pa.types.is_fixed_size_list(kind):
        return json_texts(array.cast(pa.list_(kind.value_type)))
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return pc.cast(array, pa.string())
    if pa.types.is_floating(kind):
        return pc.cast(pc.if_else(pc.is_finite(array), array, pa.scalar(None, kind)), pa.string())
    return _strings(pc.cast(array, pa.string()))


def _whole(array: pa.Array) -> pa.Array:
    """The JSON of values inside others, where NULL is written."""
    import pyarrow.compute as pc

    return pc.coalesce(json_texts(array), "null")


def _struct(array: pa.StructArray) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = []
    for number, (field, child) in enumerate(zip(array.type, array.flatten(), strict=True)):
        parts += [pa.scalar(("{" if number == 0 else ", ") + json.dumps(field.name, ensure_ascii=False) + ": "), _whole(child)]
    text = pc.binary_join_element_wise(*parts, pa.scalar("}"), "") if parts else pa.array(["{}"] * len(array))
    return pc.if_else(array.is_valid(), text, pa.scalar(None, pa.string()))


def _joined(array: pa.Array, texts: pa.Array, first: str, last: str) -> pa.Array:
    """The texts of a list's elements between brackets."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pa.ListArray.from_arrays(array.offsets.cast(pa.int32()), texts)
    text = pc.binary_join_element_wise(pa.scalar(first), pc.binary_join(lists, ", "), pa.scalar(last), "")
    return pc.if_else(array.is_valid(), text, pa.scalar(None, pa.string()))


def _strings(array: pa.Array) -> pa.Array:
    """Texts as JSON strings; only those with something to escape are looked at one by one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    odd = pc.fill_null(pc.match_substring_regex(array, _CONTROL), False)
    if pc.any(odd).as_py():
        values = {text: json.dumps(text, ensure_ascii=False)[1:-1] for text in pc.unique(array.filter(odd)).to_pylist()}
        array = pa.array([None if t is None else values.get(t, t) for t in array.to_pylist()], pa.string())
    return pc.binary_join_element_wise(pa.scalar('"'), array, pa.scalar('"'), "")
