"""The rule for consumers of `allocations`: accept each sequence once, in order, or stop.

For readers in any language: accept sequence = last + 1. Drop a sequence ≤ last with equal bytes. A sequence ≤ last with
other bytes, or a wrong previous hash, is a fork: halt. A sequence > last + 1 is a gap: fetch again. A reader that
starts in the middle of the log drops lower sequences unchecked.
"""

import hashlib
from collections import OrderedDict
from typing import Any, NamedTuple

import orjson

from schemas.errors import AllocationFork, AllocationGap

REMEMBERED = 4096
"""Sequences per portfolio whose hashes are kept to recognise repeats."""


class TakenAllocation(NamedTuple):
    """One accepted allocation."""

    fields: dict[str, Any]
    value: bytes


class _Portfolio:
    __slots__ = ("hashes", "last", "last_hash")

    def __init__(self) -> None:
        self.last = 0
        self.last_hash = ""
        self.hashes: OrderedDict[int, bytes] = OrderedDict()


class AllocationReader:
    """Applies the reader's rule to the records of `allocations`, per portfolio.

    `whole`: the log is read from its beginning, so each portfolio must start with sequence 1.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.repeats = 0
        self._whole = whole
        self._portfolios: dict[str, _Portfolio] = {}

    def take(self, value: bytes) -> TakenAllocation | None:
        """Return the allocation if it is the next of its portfolio, None if it is a repeat.

        Raises:
            AllocationFork: another allocation has this sequence, or the hash chain breaks. Halt.
            AllocationGap: a sequence is missing. Fetch again from the last accepted one.
        """
        fields = orjson.loads(value)
        portfolio, sequence = fields["portfolio_id"], fields["sequence"]
        known = self._portfolios.get(portfolio)
        digest = hashlib.sha256(value).digest()
        if known is None:
            if self._whole and sequence != 1:
                msg = f"allocations of {portfolio}: sequence must be 1, was {sequence}"
                raise AllocationGap(msg)
            known = self._portfolios[portfolio] = _Portfolio()
        elif sequence <= known.last:
            self._recognise(portfolio, sequence, digest, known)
            return None
        elif sequence > known.last + 1:
            msg = f"allocations of {portfolio}: sequence must be {known.last + 1}, was {sequence}"
            raise AllocationGap(msg)
        elif fields["previous_hash"] != known.last_hash:
            found = fields["previous_hash"]
            msg = f"allocations of {portfolio}: sequence {sequence} must follow {known.last_hash}, follows {found}"
            raise AllocationFork(msg)
        known.last, known.last_hash = sequence, digest.hex()
        known.hashes[sequence] = digest
        if len(known.hashes) > REMEMBERED:
            known.hashes.popitem(last=False)
        return TakenAllocation(fields, value)

    def resume(self, portfolio: str, sequence: int, last_hash: str) -> None:
        """Continue after the allocation with this sequence and sha256 (hex), accepted before a restart."""
        known = self._portfolios.setdefault(portfolio, _Portfolio())
        known.last, known.last_hash = sequence, last_hash
        known.hashes[sequence] = bytes.fromhex(last_hash)

    def last(self, portfolio: str) -> int:
        """Return a portfolio's last accepted sequence, 0 before the first."""
        known = self._portfolios.get(portfolio)
        return 0 if known is None else known.last

    def _recognise(self, portfolio: str, sequence: int, digest: bytes, known: _Portfolio) -> None:
        before = known.hashes.get(sequence)
        if before is not None and before != digest:
            msg = f"allocations of {portfolio}: sequence {sequence} was published with other bytes"
            raise AllocationFork(msg)
        self.repeats += 1
