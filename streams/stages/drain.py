"""Hands a journal partition over to another decision version: fold to the end, journal the state, stop."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from engines.handlers.versions import version_of
from schemas.errors import AnotherVersion
from streams.journal import entries as journal
from streams.journal import handover
from streams.processing.ports import Ports, Record, Send
from streams.processing.processor import Processor
from streams.stages.sizing import SizingFold

CHUNK: Final = 500
"""Entries per chunk."""
ENGINE: Final = b'"kind":"engine"'
"""In the bytes of every entry that may hand over; such an entry ends its chunk."""


async def drain(fold: SizingFold, processor: Processor, ports: Ports, to_version: int, clock: Callable[[], int]) -> int:
    """Hand the partition over to a version; return the offset of the entry that does.

    Entries that others append meanwhile are decided by the next version. It can be repeated after an interruption:
    only the missing steps are done.

    Raises:
        AnotherVersion: another version decides here, or the partition was handed over to a third one.
    """
    partition = fold.state.partition
    first = await processor.recover()
    await _fold(fold, processor, ports, first)
    if not _successor(fold):
        entry = handover.engine(version_of(fold.state), to_version, clock())
        await ports.send([Send(journal.TOPIC, partition, None, entry)])
        await _fold(fold, processor, ports, processor.offset + 1)
    if _successor(fold) != to_version:
        found = _successor(fold)
        msg = f"journal partition {partition} was handed over to version {found}, not {to_version}: install that"
        raise AnotherVersion(msg)
    await processor.checkpoint()
    left = handover.HandoverState(processor.offset, handover.plain(fold.meta()), processor.records())
    for part in handover.state_entries(left, clock()):
        await ports.send([Send(journal.TOPIC, partition, None, part)])
    return left.offset


def _successor(fold: SizingFold) -> int:
    """Return the version that the partition was handed over to; 0: none."""
    return 0 if fold.state.progress is None else fold.state.progress.successor


async def _fold(fold: SizingFold, processor: Processor, ports: Ports, first: int) -> None:
    """Fold from an offset to the current end, or to the entry that hands over."""
    async for chunk in _chunks(ports.source(first)):
        if _successor(fold):
            return
        await processor.take(chunk, _nothing)


async def _chunks(records: AsyncIterator[Record]) -> AsyncIterator[Sequence[Record]]:
    chunk: list[Record] = []
    async for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK or ENGINE in (record.value or b""):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _nothing() -> None:
    """Acknowledge nothing: a drain has no consumer."""
