"""Compares recomputed with published allocations in one pass: bytes, order, and hash chain.

Both sides arrive in log order and are matched here, so memory grows with the distance between the two, not with the
length of the log. Of each matched allocation 16 bytes of its hash are kept, to recognise later copies.
"""

import hashlib
from collections import deque
from typing import Any, Final, NamedTuple

import orjson

DIGEST_BYTES: Final = 16


class Verdict(NamedTuple):
    """The result of an audit; verdicts of several partitions can be added."""

    checked: int = 0
    mismatched: int = 0
    chain_broken: int = 0
    repeats: int = 0
    pending: int = 0
    """Decided at the journal's end, and not yet published when the audit read the topic."""
    first_mismatch: str | None = None
    journal_broken: int = 0
    """Journal entries missing or impossible to fold; the partition is not verified beyond them."""
    checkpoints_broken: int = 0
    """Checkpoints that differ from the replayed state."""
    entries: int = 0
    """Journal entries folded."""
    unchecked: int = 0
    """Copies of allocations decided before the start of the audit."""
    others: tuple[str, ...] = ()
    """Journal segments of other decision versions, and how to verify them."""

    @property
    def ok(self) -> bool:
        """Whether there is no finding."""
        return not (self.mismatched or self.chain_broken or self.journal_broken or self.checkpoints_broken)

    def __add__(self, other: "Verdict") -> "Verdict":  # type: ignore[override]
        """Return the sum of both."""
        return Verdict(
            self.checked + other.checked,
            self.mismatched + other.mismatched,
            self.chain_broken + other.chain_broken,
            self.repeats + other.repeats,
            self.pending + other.pending,
            self.first_mismatch or other.first_mismatch,
            self.journal_broken + other.journal_broken,
            self.checkpoints_broken + other.checkpoints_broken,
            self.entries + other.entries,
            self.unchecked + other.unchecked,
            (*self.others, *(each for each in other.others if each not in self.others)),
        )

    def report(self) -> dict[str, Any]:
        """Return what `audit verify --json` prints."""
        return self._asdict()


class Decided(NamedTuple):
    """An allocation recomputed from the journal."""

    sequence: int
    value: bytes
    hash: str
    """sha256 (hex)."""
    previous: str
    """Hash of the portfolio's previous allocation."""
    offset: int
    """Journal offset of its entry."""


class Foreign(NamedTuple):
    """A published allocation that belongs to another journal segment."""

    portfolio: bytes
    sequence: int
    digest: bytes
    place: int
    """Offset in `allocations`."""


class _AuditedPortfolio:
    """One portfolio's chain, decided and published."""

    __slots__ = ("ahead", "decided", "decided_hash", "digests", "first", "last", "last_hash", "missing", "queue")

    def __init__(self) -> None:
        self.first = 0
        """First decided sequence; 0: none yet."""
        self.decided, self.decided_hash = 0, ""
        self.last, self.last_hash = -1, ""
        """Last published sequence; -1: not known yet."""
        self.queue: deque[Decided] = deque()
        """Decided and not yet matched, in order."""
        self.missing: dict[int, Decided] = {}
        """Decided, but a later sequence was published first."""
        self.ahead: dict[int, tuple[int, bytes]] = {}
        """Published and not yet decided: (offset, value)."""
        self.digests = bytearray()

    def digest(self, sequence: int) -> bytes:
        """Return the first bytes of a decided allocation's hash."""
        place = DIGEST_BYTES * (sequence - self.first)
        return bytes(self.digests[place : place + DIGEST_BYTES])


class PartitionAudit:
    """Compares one partition of `allocations` with the decisions of the journal after entry `start`."""

    def __init__(self, partition: int, start: int = -1) -> None:
        self.partition, self.start = partition, start
        self.checked = self.mismatched = self.chain_broken = self.repeats = 0
        self.finding: str | None = None
        """The first finding."""
        self.finding_at = 0
        """Journal offset of the first finding."""
        self.foreign: list[Foreign] = []
        self.waiting = 0
        """Number of decided allocations not yet matched."""
        self.last_offset = -1
        """Newest journal offset whose decision was matched."""
        self._portfolios: dict[bytes, _AuditedPortfolio] = {}

    def _chain(self, portfolio: bytes) -> _AuditedPortfolio:
        chain = self._portfolios.get(portfolio)
        if chain is None:
            chain = self._portfolios[portfolio] = _AuditedPortfolio()
            if self.start < 0:
                chain.last = 0
        return chain

    # -- decided -----------------------------------------------------------------------------------------------------
    def decide(self, portfolio: bytes, sequence: int, value: bytes, value_hash: str, offset: int) -> None:
        """Add the next recomputed allocation of a portfolio."""
        chain = self._portfolios.get(portfolio) or self._chain(portfolio)
        if not chain.first:
            chain.first, chain.decided_hash = sequence, orjson.loads(value)["previous_hash"]
            if chain.last < 0:
                chain.last, chain.last_hash = sequence - 1, chain.decided_hash
        decided = Decided(sequence, value, value_hash, chain.decided_hash, offset)
        chain.decided, chain.decided_hash = sequence, value_hash
        chain.digests += bytes.fromhex(value_hash[: 2 * DIGEST_BYTES])
        self.waiting += 1
        if sequence > chain.last:
            chain.queue.append(decided)
        elif sequence in chain.ahead:
            self._meet(*chain.ahead.pop(sequence), decided)
        else:
            chain.missing[sequence] = decided

    # -- published ---------------------------------------------------------------------------------------------------
    def take(self, place: int, key: bytes | None, value: bytes) -> bool:
        """Add the next published record; return False if its decision has not been recomputed yet."""
        chain = self._portfolios.get(key) if key else None
        if chain is not None and chain.queue:
            head = chain.queue[0]
            if head.value == value and head.previous == chain.last_hash and head.sequence == chain.last + 1:
                chain.queue.popleft()
                chain.last, chain.last_hash = head.sequence, head.hash
                self.checked += 1
                self.waiting -= 1
                self.last_offset = head.offset
                return True
        return self._judge(place, key, value)

    def _judge(self, place: int, key: bytes | None, value: bytes) -> bool:
        """Judge a record that is not the expected next one."""
        fields = _fields(value)
        if fields is None:
            return self._breaks(f"{self._at(place)} is not an allocation", self.last_offset)
        portfolio, sequence, entry = fields["portfolio_id"].encode(), fields["sequence"], fields["journal"]["offset"]
        if key not in {None, portfolio}:
            return self._breaks(f"{self._at(place)} has key {key!r}, but portfolio {portfolio!r}", entry)
        if self.start < 0 and sequence < 1:
            return self._breaks(f"{self._at(place)}: {_named(fields)} must be at least 1", entry)
        chain = self._chain(portfolio)
        if entry <= self.start or sequence < chain.first:
            digest = hashlib.sha256(value).digest()[:DIGEST_BYTES]
            self.foreign.append(Foreign(portfolio, sequence, digest, place))
        elif sequence > chain.last:
            return self._follow(place, chain, fields, value)
        elif sequence in chain.missing:
            self._meet(place, value, chain.missing.pop(sequence))
        elif sequence in chain.ahead:
            self._recognise(place, fields, equal=chain.ahead[sequence][1] == value)
        else:
            same = hashlib.sha256(value).digest()[:DIGEST_BYTES] == chain.digest(sequence)
            self._recognise(place, fields, equal=same)
        return True

    def _follow(self, place: int, chain: _AuditedPortfolio, fields: dict[str, Any], value: bytes) -> bool:
        """Handle a record that continues its chain or leaves a gap; return False if it is not decided yet."""
        sequence, previous, entry = fields["sequence"], fields["previous_hash"], fields["journal"]["offset"]
        if chain.last >= 0 and sequence > chain.last + 1:
            self._breaks(f"{self._at(place)}: {_named(fields)} must be sequence {chain.last + 1}", entry)
        elif chain.last >= 0 and previous != chain.last_hash:
            self._breaks(
                f"{self._at(place)}: {_named(fields)} must follow {chain.last_hash}, follows {previous}", entry
            )
        chain.last, chain.last_hash = sequence, hashlib.sha256(value).hexdigest()
        while chain.queue and chain.queue[0].sequence < sequence:
            skipped = chain.queue.popleft()
            chain.missing[skipped.sequence] = skipped
        if not chain.queue:
            chain.ahead[sequence] = (place, value)
            return False
        self._meet(place, value, chain.queue.popleft())
        return True

    def _meet(self, place: int, value: bytes, decided: Decided) -> None:
        self.checked += 1
        self.waiting -= 1
        before, self.last_offset = self.last_offset, max(self.last_offset, decided.offset)
        if value == decided.value:
            return
        self.mismatched += 1
        fields, own = orjson.loads(value), orjson.loads(decided.value)
        at = f"journal {self.partition}:{decided.offset}, {self._at(place)}"
        text = f"{own['portfolio_id']} sequence {decided.sequence}, {at}: bytes differ"
        if fields["inputs_hash"] != own["inputs_hash"]:
            first = min(before + 1, decided.offset)
            text = f"{text}; it was not decided from journal {self.partition}:{first} to {decided.offset}"
        self._find(text, decided.offset)

    def _recognise(self, place: int, fields: dict[str, Any], *, equal: bool) -> None:
        if equal:
            self.repeats += 1
        else:
            entry = fields["journal"]["offset"]
            self._breaks(f"{self._at(place)}: {_named(fields)} was published with other bytes", entry)

    # -- the end -----------------------------------------------------------------------------------------------------
    def finish(self, before: int | None = None) -> None:
        """End the input. Published decisions of entries at or after `before` are outside this audit."""
        left = [(place, value) for chain in self._portfolios.values() for place, value in chain.ahead.values()]
        for place, value in sorted(left):
            fields = orjson.loads(value)
            entry = fields["journal"]["offset"]
            if before is None or entry < before:
                self.mismatched += 1
                self._find(f"{self._at(place)}: {_named(fields)}: published, but not in the journal", entry)

    def missing(self) -> list[tuple[bytes, Decided]]:
        """Return decided but unmatched allocations, by journal offset."""
        found = [(name, each) for name, chain in self._portfolios.items() for each in chain.missing.values()]
        found += [(name, each) for name, chain in self._portfolios.items() for each in chain.queue]
        return sorted(found, key=lambda pair: (pair[1].offset, pair[0]))

    def digests(self) -> dict[bytes, tuple[int, bytes]]:
        """Return per portfolio the first decided sequence, and the truncated hashes from there."""
        return {name: (chain.first, bytes(chain.digests)) for name, chain in self._portfolios.items() if chain.first}

    def _at(self, place: int) -> str:
        return f"allocations {self.partition}:{place}"

    def _breaks(self, finding: str, entry: int) -> bool:
        self.chain_broken += 1
        self._find(finding, entry)
        return True

    def _find(self, finding: str, entry: int) -> None:
        if self.finding is None:
            self.finding, self.finding_at = finding, entry


def _fields(value: bytes) -> dict[str, Any] | None:
    """Return the fields of an allocation, None if the value is not one."""
    try:
        fields = orjson.loads(value)
        texts = {type(fields[name]) for name in ("portfolio_id", "previous_hash", "inputs_hash")}
        numbers = {type(fields["sequence"]), type(fields["journal"]["offset"])}
    except (KeyError, TypeError, ValueError):
        return None
    return fields if (texts, numbers) == ({str}, {int}) else None


def _named(fields: dict[str, Any]) -> str:
    return f"{fields['portfolio_id']} sequence {fields['sequence']}"
