"""Replays the journal for one part of the portfolios; entries of other portfolios only advance time and hash."""

from collections.abc import Mapping
from dataclasses import asdict
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import orjson

from engines.fold import apply
from engines.handlers.effects import FoldResult, Journaled
from engines.state.codec import decode_key, encode_key
from engines.state.partition import PartitionProgress, State
from engines.state.tables import Key
from schemas.errors import AnotherVersion, VerificationMismatch
from streams.audits.shards import ALL, ENTRIES_OF_ONE, Part
from streams.journal import entries as journal
from streams.processing.checkpoint import fingerprint, term
from streams.processing.ports import Record, RecordKey
from streams.stages.sizing import FoldObserver

PASSED_OVER: Final = "passed-over"
"""Topic of the no-op `adopt` entry that replaces entries of portfolios outside the part."""
PASSED: Final = {"topic": PASSED_OVER, "epoch": 0}
_MODULUS: Final = 1 << 256


class Checkpoint(NamedTuple):
    """The state of one journal partition at an entry, from which a fold can continue."""

    offset: int
    """Last entry folded in; -1: none."""
    digest: int
    """Digest of all records: sum of their sha256."""
    entry: str
    """Fingerprint of the entry at `offset`."""
    outputs: int
    """Offset in `allocations` before which there are no allocations of entries above `offset`."""
    meta: Mapping[str, Any] | None
    records: Mapping[RecordKey, bytes]

    @property
    def now_ns(self) -> int:
        """Journal time, ns since 1970; 0 before Genesis."""
        return self.meta["now_ns"] if self.meta else 0


GENESIS: Final = Checkpoint(-1, 0, "", 0, None, {})


def restored(partition: int, checkpoint: Checkpoint) -> State:
    """Return the state of a checkpoint; changing the state does not change the checkpoint.

    Raises:
        VerificationMismatch: its records are not those of a state.
    """
    state = State(partition)
    if checkpoint.meta is None:
        return state
    try:
        records = {_named(key): value for key, value in checkpoint.records.items()}
        state.restore(PartitionProgress(**orjson.loads(orjson.dumps(checkpoint.meta))), records)
    except Exception as error:
        place = f"the checkpoint of journal {partition} at entry {checkpoint.offset}"
        msg = f"{place} cannot be read: {type(error).__name__}: {error}"
        raise VerificationMismatch(msg) from error
    return state


def _named(key: RecordKey) -> tuple[str, Key]:
    return key[0], decode_key(key[1])


class Summary(NamedTuple):
    """The end of a fold; the digests of several parts add up."""

    offset: int
    digest: int
    entry: str
    meta: Mapping[str, Any] | None


class Refold:
    """The fold of one journal partition, starting at a checkpoint.

    Raises:
        VerificationMismatch: an entry is missing, has the wrong key, or cannot be folded.
        AnotherVersion: another decision version continues the journal.
    """

    def __init__(
        self, partition: int, start: Checkpoint = GENESIS, part: Part = ALL, observe: FoldObserver | None = None
    ) -> None:
        self.partition, self.part, self.observe = partition, part, observe
        self.offset, self.entry = start.offset, start.entry
        self.state = State(partition)
        self._touched: dict[tuple[str, Key], None] = {}
        """Every record the state has or had."""
        self._mine: dict[bytes | None, bool] = {}
        if start.meta is not None:
            kept = start.records if part.whole else {k: v for k, v in start.records.items() if part.keeps(k)}
            self.state = restored(partition, start._replace(records=kept))
            self._touched.update(dict.fromkeys(map(_named, kept)))

    def fold(self, record: Record) -> FoldResult:
        """Fold the next entry; return the result, which may include portfolios outside this part."""
        place = f"journal {self.partition}:{self.offset + 1}"
        if record.offset != self.offset + 1:
            msg = f"{place} is missing, next is offset {record.offset}"
            raise VerificationMismatch(msg)
        began_ns = perf_counter_ns()
        try:
            entry = self._read(record)
            folded = apply(self.state, entry)
        except AnotherVersion:
            raise
        except Exception as error:
            msg = f"{place} cannot be folded: {type(error).__name__}: {error}"
            raise VerificationMismatch(msg) from error
        self._touched.update(self.state.touched)
        self.state.touched.clear()
        self.offset = record.offset
        if self.observe is not None:
            self.observe(entry, folded, perf_counter_ns() - began_ns)
        return folded

    def mine(self, portfolio: bytes | None) -> bool:
        """Return whether a portfolio is in this part."""
        found = self._mine.get(portfolio)
        if found is None:
            found = self._mine[portfolio] = self.part.mine(portfolio)
        return found

    def _read(self, record: Record) -> Journaled:
        """Return an entry as the engine folds it, after checking its record key."""
        raw = record.value or b""
        fields = orjson.loads(raw)
        kind, key = fields["kind"], record.key
        if kind in ENTRIES_OF_ONE and key is not None and not self.mine(key):
            return _passed(record.offset, fields, raw)
        entry = journal.read(record.offset, raw)
        if kind in ENTRIES_OF_ONE:
            portfolio = entry.body.get("portfolio_id", "main").encode()
            if key not in {None, portfolio}:
                msg = f"key is {key!r}, but portfolio is {portfolio!r}"
                raise ValueError(msg)
            if not self.mine(portfolio):
                return _passed(record.offset, fields, raw)
        return entry

    # -- the state ---------------------------------------------------------------------------------------------------
    def records(self) -> dict[RecordKey, bytes]:
        """Return the records of the state, as in a checkpoint."""
        found = {(table, encode_key(key)): self.state.encode(table, key) for table, key in self._touched}
        return {key: value for key, value in found.items() if value is not None}

    def meta(self) -> dict[str, Any] | None:
        """Return the metadata that `progress` stores for this state."""
        if self.state.progress is None:
            return None
        meta = asdict(self.state.progress)
        meta["sources"].pop(PASSED_OVER, None)
        return meta

    def summary(self, last: Record | None) -> Summary:
        """Return this part's share of a checkpoint at entry `last`; None if nothing was folded."""
        terms = (term(key, value) for key, value in self.records().items() if self.part.counts(key))
        entry = self.entry if last is None else fingerprint(last)
        return Summary(self.offset, sum(terms) % _MODULUS, entry, self.meta())


def _passed(offset: int, fields: dict[str, Any], raw: bytes) -> Journaled:
    """Return the no-op replacement of an entry of another part's portfolio."""
    source = fields["source"] or {"topic": "", "epoch": 0, "partition": 0, "offset": 0}
    where = (source["topic"], source["epoch"], source["partition"], source["offset"])
    return Journaled(offset, "adopt", *where, fields["journaled_at_ns"], PASSED, raw)
