"""Audit: every allocation is computed again from the journal, and compared byte for byte."""

import hashlib
from collections.abc import AsyncIterable, Iterable
from typing import Any, NamedTuple

import orjson

from schemas.errors import AllocationFork, AllocationGap
from streams.ports import Identity, Record
from streams.reader import AllocationReader
from streams.sizing import Observer, SizingFold


class Verdict(NamedTuple):
    """What an audit found; verdicts of several partitions add up."""

    checked: int = 0
    mismatched: int = 0
    chain_broken: int = 0
    repeats: int = 0
    pending: int = 0
    """Decided, and at the journal's end: not yet published when the audit read."""
    first_mismatch: str | None = None

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.mismatched and not self.chain_broken

    def __add__(self, other: "Verdict") -> "Verdict":  # type: ignore[override]
        """Return both together."""
        return Verdict(
            self.checked + other.checked,
            self.mismatched + other.mismatched,
            self.chain_broken + other.chain_broken,
            self.repeats + other.repeats,
            self.pending + other.pending,
            self.first_mismatch or other.first_mismatch,
        )

    def report(self) -> dict[str, Any]:
        """Return what `audit verify --json` prints."""
        return self._asdict()


class Ledger:
    """What one partition of `allocations` holds, read once: hashes by identity, and the chain."""

    def __init__(self, published: Iterable[bytes]) -> None:
        self.hashes: dict[Identity, bytes] = {}
        self.chain_broken = 0
        self.forked: list[str] = []
        self.last_offset = -1
        reader = AllocationReader(whole=True)
        for number, value in enumerate(published):
            try:
                self._take(reader, value)
            except (AllocationFork, AllocationGap) as error:
                self._broken(str(error))
                _go_on(reader, value)
            except (KeyError, TypeError, ValueError):
                self._broken(f"record {number} of the partition is no allocation")
        self.repeats = reader.repeats

    def _take(self, reader: AllocationReader, value: bytes) -> None:
        fields = orjson.loads(value)
        identity = Identity(fields["portfolio_id"], fields["sequence"])
        last_offset = max(self.last_offset, fields["journal"]["offset"])
        self.hashes.setdefault(identity, hashlib.sha256(value).digest())
        self.last_offset = last_offset
        reader.take(value)

    def _broken(self, finding: str) -> None:
        self.chain_broken += 1
        self.forked.append(finding)


def _go_on(reader: AllocationReader, value: bytes) -> None:
    """Let the chain go on from the record that broke it, so that each break is counted once; never backwards."""
    fields = orjson.loads(value)
    if fields["sequence"] > reader.last(fields["portfolio_id"]):
        reader.resume(fields["portfolio_id"], fields["sequence"], hashlib.sha256(value).hexdigest())


async def verify(
    partition: int,
    entries: AsyncIterable[Record],
    published: Iterable[bytes],
    portfolio: str | None = None,
    observe: Observer | None = None,
) -> Verdict:
    """Fold one journal partition from Genesis and compare what it decides with what was published.

    `published` is the partition of `allocations`, read after the journal's end was fixed or before: decisions past the
    last published one are pending, not wrong.
    """
    ledger = Ledger(published)
    fold = SizingFold(partition, observe)
    checked = mismatched = pending = 0
    first: str | None = ledger.forked[0] if ledger.forked else None
    async for entry in entries:
        for send in fold.fold(entry):
            if send.identity is None or send.value is None:
                continue
            if portfolio is not None and send.identity.portfolio_id != portfolio:
                ledger.hashes.pop(send.identity, None)
                continue
            found = ledger.hashes.pop(send.identity, None)
            if found is None and entry.offset > ledger.last_offset:
                pending += 1
                continue
            checked += 1
            if found != hashlib.sha256(send.value).digest():
                mismatched += 1
                first = first or _where(send.identity, partition, entry.offset, found)
    strays = [identity for identity in ledger.hashes if portfolio in {None, identity.portfolio_id}]
    if strays and first is None:
        first = f"{strays[0].portfolio_id} sequence {strays[0].sequence}: published, but the journal does not decide it"
    return Verdict(checked, mismatched + len(strays), ledger.chain_broken, ledger.repeats, pending, first)


def _where(identity: Identity, partition: int, offset: int, found: bytes | None) -> str:
    problem = "is missing" if found is None else "has other bytes"
    return f"{identity.portfolio_id} sequence {identity.sequence}, journal {partition}:{offset}: {problem}"
