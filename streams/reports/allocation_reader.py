"""How a consumer reads allocations: each sequence once, in order, or not at all.

The rule, for readers in any language: sequence = last + 1 is taken; at or below last with equal bytes is dropped; at or
below last with other bytes, or a wrong previous hash, is a fork: halt; above last + 1 is a gap: fetch again. A reader
that starts in mid-log drops lower sequences unseen.
"""

import hashlib
from collections import OrderedDict
from typing import Any, NamedTuple

import orjson

from schemas.errors import AllocationFork, AllocationGap

REMEMBERED = 4096
"""Sequences per portfolio whose bytes are recognised again."""


class TakenAllocation(NamedTuple):
    """One allocation that counts."""

    fields: dict[str, Any]
    value: bytes


class _Portfolio:
    __slots__ = ("hashes", "last", "last_hash")

    def __init__(self) -> None:
        self.last = 0
        self.last_hash = ""
        self.hashes: OrderedDict[int, bytes] = OrderedDict()


class AllocationReader:
    """The reader's rule over the records of `allocations`, portfolio by portfolio.

    `whole`: the log is read from its beginning, so that each portfolio has to begin with sequence 1.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.repeats = 0
        self._whole = whole
        self._portfolios: dict[str, _Portfolio] = {}

    def take(self, value: bytes) -> TakenAllocation | None:
        """Return the allocation if it is the next of its portfolio, None if it is a repeat.

        Raises:
            AllocationFork: another allocation has this sequence, or the chain does not continue. Halt.
            AllocationGap: one between was not seen. Fetch again from the last one taken.
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
        """Go on after the allocation with this sequence and sha256 (hex), which was taken in an earlier life."""
        known = self._portfolios.setdefault(portfolio, _Portfolio())
        known.last, known.last_hash = sequence, last_hash
        known.hashes[sequence] = bytes.fromhex(last_hash)

    def last(self, portfolio: str) -> int:
        """Return the last sequence taken of a portfolio, 0 before the first."""
        known = self._portfolios.get(portfolio)
        return 0 if known is None else known.last

    def _recognise(self, portfolio: str, sequence: int, digest: bytes, known: _Portfolio) -> None:
        before = known.hashes.get(sequence)
        if before is not None and before != digest:
            msg = f"allocations of {portfolio}: sequence {sequence} was published with other bytes"
            raise AllocationFork(msg)
        self.repeats += 1
