"""The journal folded again, for the portfolios of one part; entries of the others move the time and the hash alone."""

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
"""The topic that is adopted where an entry of somebody else's portfolio stands: the one order that does nothing."""
PASSED: Final = {"topic": PASSED_OVER, "epoch": 0}
_MODULUS: Final = 1 << 256


class Checkpoint(NamedTuple):
    """The state of one journal partition at an entry, from which a fold may go on."""

    offset: int
    """The last entry that is folded in; -1: none."""
    digest: int
    """Of all records."""
    entry: str
    """Fingerprint of the entry at `offset`."""
    outputs: int
    """Place in `allocations`: none of an entry above `offset` lies before it."""
    meta: Mapping[str, Any] | None
    records: Mapping[RecordKey, bytes]

    @property
    def now_ns(self) -> int:
        """Journal time, 0 before Genesis."""
        return self.meta["now_ns"] if self.meta else 0


GENESIS: Final = Checkpoint(-1, 0, "", 0, None, {})


def restored(partition: int, checkpoint: Checkpoint) -> State:
    """Return the state of a checkpoint; what is done to it leaves the checkpoint as it is."""
    state = State(partition)
    if checkpoint.meta is not None:
        records = {_named(key): value for key, value in checkpoint.records.items()}
        state.restore(PartitionProgress(**orjson.loads(orjson.dumps(checkpoint.meta))), records)
    return state


def _named(key: RecordKey) -> tuple[str, Key]:
    return key[0], decode_key(key[1])


class Summary(NamedTuple):
    """What a fold has come to, in a form that adds up over parts."""

    offset: int
    digest: int
    entry: str
    meta: Mapping[str, Any] | None


class Refold:
    """The fold of one journal partition, from a checkpoint on.

    Raises: VerificationMismatch where an entry is missing, stands under another key, or cannot be folded;
    AnotherVersion where another decision version goes on.
    """

    def __init__(
        self, partition: int, start: Checkpoint = GENESIS, part: Part = ALL, observe: FoldObserver | None = None
    ) -> None:
        self.partition, self.part, self.observe = partition, part, observe
        self.offset, self.entry = start.offset, start.entry
        self.state = State(partition)
        self._touched: dict[tuple[str, Key], None] = {}
        """Every record that the state has, or had."""
        self._mine: dict[bytes | None, bool] = {}
        if start.meta is not None:
            kept = start.records if part.whole else {k: v for k, v in start.records.items() if part.keeps(k)}
            self.state = restored(partition, start._replace(records=kept))
            self._touched.update(dict.fromkeys(map(_named, kept)))

    def fold(self, record: Record) -> FoldResult:
        """Fold the next entry; return what it led to, for the portfolios of this part and perhaps for more."""
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
        """Return an entry as the engine folds it, having seen that it stands under the key that it was given."""
        raw = record.value or b""
        fields = orjson.loads(raw)
        kind, key = fields["kind"], record.key
        if kind in ENTRIES_OF_ONE and key is not None and not self.mine(key):
            return _passed(record.offset, fields, raw)
        entry = journal.read(record.offset, raw)
        if kind in ENTRIES_OF_ONE:
            portfolio = entry.body.get("portfolio_id", "main").encode()
            if key not in {None, portfolio}:
                msg = f"its key is {key!r}, its portfolio {portfolio!r}"
                raise ValueError(msg)
            if not self.mine(portfolio):
                return _passed(record.offset, fields, raw)
        return entry

    # -- where it stands ---------------------------------------------------------------------------------------------
    def records(self) -> dict[RecordKey, bytes]:
        """Return the records of the state, as a checkpoint holds them."""
        found = {(table, encode_key(key)): self.state.encode(table, key) for table, key in self._touched}
        return {key: value for key, value in found.items() if value is not None}

    def meta(self) -> dict[str, Any] | None:
        """Return what `progress` carries of this state."""
        if self.state.progress is None:
            return None
        meta = asdict(self.state.progress)
        meta["sources"].pop(PASSED_OVER, None)
        return meta

    def summary(self, last: Record | None) -> Summary:
        """Return what the state adds to a checkpoint at this entry; `last` is the entry, None: nothing was folded."""
        terms = (term(key, value) for key, value in self.records().items() if self.part.counts(key))
        entry = self.entry if last is None else fingerprint(last)
        return Summary(self.offset, sum(terms) % _MODULUS, entry, self.meta())


def _passed(offset: int, fields: dict[str, Any], raw: bytes) -> Journaled:
    """Return an entry of somebody else's portfolio: what is shared of it, and nothing to be done."""
    source = fields["source"] or {"topic": "", "epoch": 0, "partition": 0, "offset": 0}
    where = (source["topic"], source["epoch"], source["partition"], source["offset"])
    return Journaled(offset, "adopt", *where, fields["journaled_at_ns"], PASSED, raw)
