"""Several versions behind one endpoint: whether a caller can take them for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from sqlml_dialect import Span

from sqlml.catalog import Share, Version
from sqlml.catalog.shares import SERVES
from sqlml.errors import BindError, listing

Arms: TypeAlias = Sequence[tuple[Version, Share]]


def check_arms(arms: Arms, source: str, span: Span) -> None:
    """``BindError`` unless all that answer give the same columns, and no input is of one kind here and of another there.

    Inputs may differ otherwise: a request may have the columns of all, and each version takes its own (those that a request
    lacks are NULL).  What is compared are columns' names and types, never the classes: a newer version may know more of them.
    """
    if len(arms) < 2:
        return
    first = main_version(arms)
    for version, share in arms:
        if share.role == SERVES and version.added != first.added:
            theirs, ours = (", ".join(f"{name} {kind}" for name, kind in v.added) for v in (version, first))
            raise BindError(
                f"{version.name} answers in other columns than {first.name}: a caller could not read both", source=source,
                span=span, hint=f"{version.name} gives {theirs}\n{first.name} gives {ours}\ngive it an endpoint of its own",
            )  # fmt: skip
    kinds: dict[str, tuple[str, Version]] = {}
    for version, _ in arms:
        for column in version.inputs:
            kind, other = kinds.setdefault(column.name.lower(), (column.kind.value, version))
            if kind != column.kind.value:
                raise BindError(
                    f"the column {column.name} is a {kind} for {other.name} and a {column.kind.value} for {version.name}",
                    source=source, span=span, hint="one request cannot be both: give it an endpoint of its own",
                )  # fmt: skip


def differences(arms: Arms) -> tuple[str, ...]:
    """What a caller should know of versions that do not read the same columns."""
    if len(arms) < 2:
        return ()
    first = main_version(arms)
    notices = []
    for version, _ in arms:
        if more := _only_of(version, first):
            notices.append(
                f"{version.name} also reads {listing(more)}, which {first.name} does not: NULL where a request lacks it"
            )
        if fewer := _only_of(first, version):
            notices.append(
                f"{version.name} does not read {listing(fewer)}, which {first.name} does: it leaves that out of a request, "
                "now and when it has all of the traffic"
            )
    return tuple(notices)


def _only_of(version: Version, other: Version) -> list[str]:
    """The inputs of one version that another does not have."""
    known = {column.name.lower() for column in other.inputs}
    return [column.name for column in version.inputs if column.name.lower() not in known]


def main_version(arms: Arms) -> Version:
    """The version with the largest share, of equal ones the first."""
    return max(arms, key=lambda arm: arm[1].weight)[0]
