"""One stretch of one journal partition, verified: folded from a checkpoint, compared on the way."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from time import process_time
from typing import Final, NamedTuple

import orjson

from schemas.errors import AnotherVersion, VerificationMismatch
from streams.audits.comparison import DIGEST_BYTES, Decided, Foreign, PartitionAudit, Verdict
from streams.audits.refold import GENESIS, Checkpoint, Refold, Summary
from streams.audits.shards import ALL, Part
from streams.processing.ports import Record
from streams.stages.sizing import FoldObserver

Chunks = AsyncIterator[Sequence[Record]]
"""Records of a partition in order, some at a time."""

CHUNK: Final = 500
"""Entries that are folded before what they decided is compared."""


class SegmentResult(NamedTuple):
    """What one stretch came to; several of a partition are put together by `together`."""

    verdict: Verdict
    missing: list[tuple[bytes, Decided]]
    """Decided here and not met here."""
    foreign: list[Foreign]
    """Published here and decided in another stretch."""
    digests: dict[bytes, tuple[int, bytes]]
    last_offset: int
    """Journal offset of the newest decision that was met, -1: none."""
    summary: Summary
    """Where the fold has come to."""
    probed: Summary | None
    """Where it stood at the entry that it was asked about."""
    broken: bool
    """Whether it ended before it should."""
    finding_at: int
    """Journal offset of what was found first."""
    cpu_s: float
    """Processor time that all took but the first `CHUNK` entries, with which things are loaded."""


class SegmentAudit:
    """Folds the journal and meets what was published, in step.

    `probe`: an entry at which the state is looked at. `until_ns`: end before the first entry whose journal time is at
    or past it. `told`: called with how many entries were folded since the last call.
    """

    def __init__(
        self,
        partition: int,
        start: Checkpoint = GENESIS,
        part: Part = ALL,
        *,
        probe: int = -1,
        until_ns: int | None = None,
        observe: FoldObserver | None = None,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.refold = Refold(partition, start, part, observe)
        self.comparison = PartitionAudit(partition, start.offset)
        self.probe, self.until_ns, self.told = probe, until_ns, told
        self.probed: Summary | None = None
        self.entries = 0
        self.others: tuple[str, ...] = ()
        """Stretches before and after that other decision versions decided."""
        self._began_s = 0.0
        self._last: Record | None = None
        self._ended = False
        self._ready: Iterator[Record] = iter(())
        """What was read of `allocations` and not looked at."""

    async def verify(self, entries: Chunks, published: Chunks, *, open_end: bool = True) -> SegmentResult:
        """Fold `entries`, from the start's offset on; compare with `published`, from the start's `outputs` on.

        `open_end`: both are read to their ends, so that nothing more may be published. Otherwise the entries end where
        somebody wanted them to, and what is published of later ones is not looked at.
        """
        finding = ""
        try:
            async for records in entries:
                for first in range(0, len(records), CHUNK):
                    self._fold(records[first : first + CHUNK])
                    await self._catch_up(published)
                    self._began_s = self._began_s or process_time()
                if self._ended:
                    break
        except AnotherVersion as error:
            self.others += (str(error),)
            self._ended = True
        except VerificationMismatch as error:
            finding = str(error)
        await self._catch_up(published)
        if open_end and not finding and not self._ended:
            while (record := await self._next(published)) is not None:
                self.comparison.take(record.offset, record.key, record.value or b"")
            self.comparison.finish()
        else:
            self.comparison.finish(self.refold.offset + 1)
        return self._found(finding)

    def _fold(self, records: Sequence[Record]) -> None:
        refold, decide, mine = self.refold, self.comparison.decide, self.refold.mine
        books = refold.state.books
        folded = 0
        try:
            for record in records:
                if self.until_ns is not None and self._is_past(record):
                    self._ended = True
                    break
                for each in refold.fold(record).allocations:
                    name = each.decision.portfolio_id
                    key = name.encode()
                    if mine(key):
                        decide(key, each.sequence, each.value, books[name,].last_hash, record.offset)
                self._last = record
                folded += 1
                if record.offset == self.probe:
                    self.probed = refold.summary(record)
        finally:
            self.entries += folded
            self.told(folded)

    def _is_past(self, record: Record) -> bool:
        """Return whether an entry stands at or past the end that was asked for."""
        return self.until_ns is not None and bool(
            orjson.loads(record.value or b"{}")["journaled_at_ns"] >= self.until_ns
        )

    async def _catch_up(self, published: Chunks) -> None:
        """Look at what was published until all that was decided is met, or one comes that is not decided yet."""
        comparison = self.comparison
        while comparison.waiting:
            record = await self._next(published)
            if record is None or not comparison.take(record.offset, record.key, record.value or b""):
                return

    async def _next(self, published: Chunks) -> Record | None:
        """Return the next record of `allocations` that is of this part, None at the end."""
        mine = self.refold.mine
        while True:
            for record in self._ready:
                if mine(record.key):
                    return record
            records = await anext(published, None)
            if records is None:
                return None
            self._ready = iter(records)

    def _found(self, finding: str) -> SegmentResult:
        met = self.comparison
        verdict = Verdict(
            met.checked,
            met.mismatched,
            met.chain_broken,
            met.repeats,
            first_mismatch=met.finding or finding or None,
            journal_broken=int(bool(finding)),
            entries=self.entries if self.refold.part.number == 0 else 0,
            others=self.others,
        )
        return SegmentResult(
            verdict,
            met.missing(),
            met.foreign,
            met.digests(),
            met.last_offset,
            self.refold.summary(self._last),
            self.probed,
            bool(finding),
            self.refold.offset + 1 if finding and not met.finding else met.finding_at,
            process_time() - self._began_s if self._began_s else 0.0,
        )


def together(partition: int, stretches: Sequence[SegmentResult], acknowledged: int = -1) -> Verdict:
    """Return the verdict on a partition whose stretches, in order, were verified apart.

    What one decided and another one saw published is met here. What nobody saw is missing, or pending where nothing
    that was decided later is published. All up to the entry `acknowledged` was published, say the workers.
    """
    ordered = sorted(stretches, key=lambda found: found.finding_at if found.verdict.first_mismatch else 0)
    verdict = sum((found.verdict for found in ordered), Verdict())
    missing = {(name, each.sequence): each for found in stretches for name, each in found.missing}
    last_offset = max((found.last_offset for found in stretches), default=-1)
    last_offset = max(last_offset, acknowledged)
    for each in (foreign for found in stretches for foreign in found.foreign):
        decided = missing.pop((each.portfolio, each.sequence), None)
        digest = _digest(stretches, each.portfolio, each.sequence)
        named = f"allocations {partition}:{each.place}: {each.portfolio.decode()} sequence {each.sequence}"
        if digest is None:
            verdict += Verdict(unchecked=1)
        elif digest != each.digest:
            verdict += Verdict(chain_broken=1, first_mismatch=f"{named} was published with other bytes")
        else:
            verdict += Verdict(checked=1) if decided else Verdict(repeats=1)
    for (name, sequence), lost in sorted(missing.items(), key=lambda item: (item[1].offset, item[0])):
        if lost.offset > last_offset and not stretches[-1].broken:
            verdict += Verdict(pending=1)
        else:
            text = f"{name.decode()} sequence {sequence}, journal {partition}:{lost.offset}: is missing"
            verdict += Verdict(checked=1, mismatched=1, first_mismatch=text)
    return verdict


def _digest(stretches: Sequence[SegmentResult], portfolio: bytes, sequence: int) -> bytes | None:
    for found in stretches:
        first, digests = found.digests.get(portfolio, (0, b""))
        place = DIGEST_BYTES * (sequence - first)
        if first and 0 <= place < len(digests):
            return digests[place : place + DIGEST_BYTES]
    return None
