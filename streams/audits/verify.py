"""Audit: every allocation is computed again from the journal, and compared byte for byte."""

from collections.abc import AsyncIterable, Iterable, Sequence

from streams.audits.comparison import Verdict
from streams.audits.segment import Chunks, SegmentAudit, together
from streams.audits.shards import Part
from streams.processing.ports import Record
from streams.stages.sizing import FoldObserver

__all__ = ["Verdict", "verify"]


async def verify(
    partition: int,
    entries: AsyncIterable[Record],
    published: Iterable[Record],
    portfolio: str | None = None,
    observe: FoldObserver | None = None,
) -> Verdict:
    """Fold one journal partition from Genesis and compare what it decides with what was published.

    `published` is the partition of `allocations`, read after the journal's end was fixed or before: decisions past the
    last published one are pending, not wrong.
    """
    stretch = SegmentAudit(partition, part=Part(portfolio=portfolio), observe=observe)
    return together(partition, [await stretch.verify(_singly(entries), _at_once(published))])


async def _singly(records: AsyncIterable[Record]) -> Chunks:
    async for record in records:
        yield [record]


async def _at_once(records: Iterable[Record]) -> Chunks:
    found: Sequence[Record] = list(records)
    yield found
