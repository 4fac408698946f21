"""The audit of one partition: recompute every allocation from the journal, and compare byte for byte."""

from collections.abc import AsyncIterable, Iterable, Sequence

from streams.audits.comparison import Verdict
from streams.audits.segment import Chunks, SegmentAudit, combine
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
    """Fold one journal partition from Genesis and compare its decisions with the published ones.

    `published` is the partition of `allocations`, read at any time: decisions after the last published one count as
    pending, not as missing.
    """
    segment = SegmentAudit(partition, part=Part(portfolio=portfolio), observe=observe)
    return combine(partition, [await segment.verify(_singly(entries), _at_once(published))])


async def _singly(records: AsyncIterable[Record]) -> Chunks:
    async for record in records:
        yield [record]


async def _at_once(records: Iterable[Record]) -> Chunks:
    found: Sequence[Record] = list(records)
    yield found
