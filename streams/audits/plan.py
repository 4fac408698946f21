"""Divides an audit into pieces: segments between checkpoints, and shares of a partition's portfolios."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final, Literal, NamedTuple

from streams.audits.shards import Part

Where = Literal["genesis", "archive", "live"]
FOR_EVER_NS: Final = 1 << 63


class Mark(NamedTuple):
    """The position of a checkpoint; its contents are read when needed."""

    offset: int
    """Last entry folded in; -1: before Genesis."""
    outputs: int
    """Offset in `allocations` before which there are no allocations of entries above `offset`."""
    now_ns: int
    """Journal time at `offset`, ns since 1970."""
    where: Where


BEGINNING: Final = Mark(-1, 0, 0, "genesis")


class Ends(NamedTuple):
    """The readable range of one partition, and its workers' progress."""

    journal: int
    outputs: int
    """End of `allocations`, read before that of the journal."""
    progress: int = -1
    """Entry up to which the workers have published everything."""
    marks: Sequence[Mark] = ()
    """Checkpoints to start from, oldest first."""
    first: int = 0
    """First readable entry."""


class Range(NamedTuple):
    """The requested range: entries of one partition, or times in all."""

    since_ns: int = 0
    until_ns: int = FOR_EVER_NS
    since: int = 0
    until: int | None = None


class Piece(NamedTuple):
    """One segment of one partition, for one share of its portfolios."""

    partition: int
    start: Mark
    end: int
    """End entry, exclusive."""
    outputs_end: int
    open_end: bool
    """Whether everything published up to `outputs_end` must follow from the journal up to `end`."""
    part: Part
    until_ns: int | None
    probe: int


def planned(partition: int, ends: Ends, wanted: Range, portfolio: str | None) -> list[Piece]:
    """Return the segments of a partition, starting at the nearest checkpoint at or before the requested range."""
    marks = [BEGINNING, *ends.marks]
    end = ends.journal if wanted.until is None else min(wanted.until, ends.journal)
    usable = [mark for mark in marks if mark.offset + 1 >= ends.first and mark.offset < end] or [BEGINNING]
    begin = _begin(usable, wanted)
    starts = [mark for mark in usable if mark.offset >= begin.offset and mark.where != "live"]
    starts = starts if begin in starts else [begin]
    until_ns = wanted.until_ns if wanted.until_ns < FOR_EVER_NS else None
    if until_ns is not None:
        starts = [mark for mark in starts if mark.now_ns < until_ns] or [begin]
    bounds = [*((mark.offset + 1, mark.outputs) for mark in starts[1:]), (end, ends.outputs)]
    bounded = until_ns is not None or wanted.until is not None
    return [
        Piece(
            partition,
            start,
            stop,
            outputs,
            open_end=not (bounded and start is starts[-1]),
            part=Part(portfolio=portfolio),
            until_ns=until_ns,
            probe=ends.progress if start.offset < ends.progress < stop else -1,
        )
        for start, (stop, outputs) in zip(starts, bounds, strict=True)
    ]


def _begin(usable: Sequence[Mark], wanted: Range) -> Mark:
    """Return the nearest checkpoint at or before the start of the range; the beginning if no start is given."""
    if wanted.since:
        usable = [mark for mark in usable if mark.offset < wanted.since] or usable[:1]
    elif wanted.since_ns:
        usable = [mark for mark in usable if mark.now_ns <= wanted.since_ns] or usable[:1]
    else:
        return usable[0] if usable[0].where != "live" else BEGINNING
    return max(usable)


def shared(pieces: Sequence[Piece], processes: int) -> list[Piece]:
    """Return the pieces balanced over several processes: long ones are split by shares of their portfolios."""
    total = sum(piece.end - piece.start.offset for piece in pieces)
    found = []
    for piece in pieces:
        size = piece.end - piece.start.offset
        count = min(processes, ceil(size * processes / total)) if total and piece.part.portfolio is None else 1
        if len(pieces) >= 4 * processes:
            count = 1
        found += [piece._replace(part=Part(number, count)) for number in range(count)] if count > 1 else [piece]
    return sorted(found, key=lambda each: (each.start.offset - each.end) / each.part.of)


def entries_of(pieces: Sequence[Piece]) -> int:
    """Return the number of entries to fold; each share of a segment counts its entries."""
    return sum(piece.end - piece.start.offset - 1 for piece in pieces)


def by_partition(pieces: Sequence[Piece]) -> Mapping[int, list[int]]:
    """Return the indexes of each partition's pieces, in journal order."""
    found: dict[int, list[int]] = {}
    for place in sorted(range(len(pieces)), key=lambda place: (pieces[place].start.offset, pieces[place].part.number)):
        found.setdefault(pieces[place].partition, []).append(place)
    return found
