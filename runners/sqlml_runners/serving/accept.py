"""What a caller accepts of the types that an answer can have: ``Accept: text/csv, */*;q=0.5``, RFC 9110, 12.5.1.  No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def choose_type(accept: bytes, there: Sequence[bytes], other_names: Mapping[bytes, bytes]) -> bytes | None:
    """The type that is accepted most of those that are ``there``, the usual one first; None where none is.

    ``other_names`` are those of types that are there.  Who says nothing takes anything.
    """
    if not accept.strip():
        return there[0]
    wanted = [_weighed(part, other_names) for part in accept.lower().split(b",")]
    refused = {kind for kind, weight in wanted if weight == 0}
    matches = (_match(kind, there, refused) for kind, weight in sorted(wanted, key=lambda one: -one[1]) if weight > 0)
    return next((found for found in matches if found is not None), None)


def _weighed(part: bytes, other_names: Mapping[bytes, bytes]) -> tuple[bytes, float]:
    """``text/csv;q=0.5`` → its type and weight; without one it is 1."""
    kind, *parameters = (piece.strip() for piece in part.split(b";"))
    given = next((piece[2:] for piece in parameters if piece.startswith(b"q=")), b"1")
    try:
        weight = float(given)
    except ValueError:
        weight = 1.0
    return other_names.get(kind, kind), weight


def _match(kind: bytes, there: Sequence[bytes], refused: Collection[bytes]) -> bytes | None:
    if not kind.endswith(b"/*"):
        return kind if kind in there else None
    begin = b"" if kind == b"*/*" else kind[:-1]
    return next((own for own in there if own.startswith(begin) and own not in refused), None)
