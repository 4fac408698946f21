"""Sizing on the journal: the engines' fold, in the form that a processor runs."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter_ns
from typing import Any

import orjson

from engines.fold import apply
from engines.handlers.effects import FoldResult, Journaled, Refusal
from engines.handlers.versions import version_of
from engines.state.codec import decode_key, encode_key
from engines.state.partition import PartitionProgress, State
from engines.state.tables import TABLES, Key
from schemas.errors import InvalidMessage, SizingError
from streams.journal import entries as journal
from streams.journal import handover
from streams.journal.dead_letters import letter
from streams.journal.entries import SourcePlace
from streams.journal.handover import MIGRATIONS, Migration
from streams.processing.ports import FoldRecord, Headers, Identity, Record, RecordKey, Send
from streams.stages.handover_fold import HandoverFold

SECOND_NS = 1_000_000_000
NAMES_MAX = 200_000
"""Encoded keys that are kept; a memo, safe to drop."""

FoldObserver = Callable[[Journaled, FoldResult, int], None]
"""Called with each entry, its result, and the time it took in ns."""


class SizingFold:
    """One journal partition: its state, what it publishes, and the tick it journals when no entry arrives."""

    tables = TABLES
    audited = "allocations"

    def __init__(
        self,
        partition: int,
        observe: FoldObserver | None = None,
        headers: Headers = (),
        version: int = 0,
        migrations: Mapping[tuple[int, int], Migration] = MIGRATIONS,
        latest: Callable[[], int] | None = None,
    ) -> None:
        """Fold `partition`; `observe` is called for each entry, `headers` are added to each allocation.

        `version`: decision version (0: this code's); `migrations`: from other versions to it. `latest`: the latest
        time that an entry may have, ns since 1970; None: any.
        """
        self.latest = latest
        self.state = State(partition, version)
        self.migrations = migrations
        self.observe = observe
        self.headers = headers
        self.touched: dict[RecordKey, int] = {}
        self._names: dict[tuple[str, Key], RecordKey] = {}

    def fold(self, record: Record) -> list[Send]:
        """Fold one journal entry; return allocations, requests, alerts and dead letters, in this order."""
        raw = record.value or b""
        began_ns = perf_counter_ns()
        entry = self._entry(record.offset, raw)
        try:
            folded = apply(self.state, entry)
        except SizingError:
            raise
        except Exception as error:
            raise journal.stray(self.state.partition, record.offset, error) from error
        elapsed_ns = perf_counter_ns() - began_ns
        for touched in self.state.touched:
            self.touched[self._name(touched)] = record.offset
        self.state.touched.clear()
        if self.observe is not None:
            self.observe(entry, folded, elapsed_ns)
        sends = [
            Send(
                "allocations",
                self.state.partition,
                published.decision.portfolio_id.encode(),
                published.value,
                self.headers,
                Identity(published.decision.portfolio_id, published.sequence),
            )
            for published in folded.allocations
        ]
        if folded.requests:
            sends += [_request(each, self.state) for each in folded.requests]
        if folded.alerts:
            sends += [_alert(each, self.state) for each in folded.alerts]
        if folded.refusals:
            sends += [_refused(each, entry, raw) for each in folded.refusals]
        return sends

    def _entry(self, offset: int, raw: bytes) -> Journaled:
        """Return an entry; refuse what is none, and what is of a time that cannot be, before it is folded."""
        entry = journal.read(offset, raw, self.state.partition)
        ahead_ns = 0 if self.latest is None else entry.journaled_at_ns - self.latest()
        if ahead_ns > 0:
            rule = f"journaled_at_ns is {ahead_ns / 1e9:.0f} s beyond what kafka.max_ahead_s allows by this clock"
            raise journal.stray(self.state.partition, offset, rule)
        return entry

    def _name(self, touched: tuple[str, Key]) -> RecordKey:
        name = self._names.get(touched)
        if name is None:
            if len(self._names) >= NAMES_MAX:
                self._names.clear()  # names that are not used any more
            name = self._names[touched] = (touched[0], encode_key(touched[1]))
        return name

    def elapse(self, now_ns: int) -> list[Send]:
        """Return the tick that advances journal time while no entry arrives."""
        return [Send(journal.TOPIC, self.state.partition, None, journal.internal("tick", {}, now_ns))]

    # -- checkpoint ------------------------------------------------------------------------------------------------
    def encode(self, key: RecordKey) -> bytes | None:
        """Return a record's current value."""
        table, name = key
        return self.state.encode(table, decode_key(name))

    def meta(self) -> dict[str, object]:
        """Return the settings in force, source high-waters, journal time and the inputs hash."""
        return {} if self.state.progress is None else asdict(self.state.progress)

    def restore(self, meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        """Become the state of a checkpoint; one of another version is migrated if it was handed over to this one.

        Raises:
            AnotherVersion: it was not handed over to this version, or no migration is known.
        """
        if meta and meta["decision_version"] != version_of(self.state):
            self.take_over(handover.HandoverState(-1, handover.plain(meta), dict(records)))
        else:
            self._become(meta, records)

    def refold(self) -> FoldRecord:
        """Become the state before the first entry; return the fold for a journal that other versions may have begun."""
        self._become(None, {})
        return HandoverFold(version_of(self.state), self.fold, self.take_over).fold

    def take_over(self, left: handover.HandoverState) -> None:
        """Continue from the state of another version. Every record counts as touched, as the migration may change it.

        Raises:
            AnotherVersion: it was not handed over to this version, or no migration is known.
        """
        place = f"journal partition {self.state.partition}"
        mine = handover.taken_over(place, left, version_of(self.state), self.migrations)
        self._become(mine.meta, mine.records)
        self.touched = dict.fromkeys([*left.records, *mine.records], left.offset)

    def _become(self, meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        fields: Any = meta
        progress = PartitionProgress(**fields) if fields else None
        named = {(table, decode_key(name)): value for (table, name), value in records.items()}
        self.touched = {}
        self.state.restore(progress, named)

    def identify(self, value: bytes) -> tuple[Identity, int]:
        """Return portfolio and sequence of an allocation, and the journal offset of its decision."""
        fields = orjson.loads(value)
        return Identity(fields["portfolio_id"], fields["sequence"]), fields["journal"]["offset"]


def _request(fields: dict[str, Any], state: State) -> Send:
    value = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return Send("rl-requests", state.partition, fields["portfolio_id"].encode(), value)


def _alert(fields: dict[str, Any], state: State) -> Send:
    now_ns = state.progress.now_ns if state.progress else 0
    value = orjson.dumps({**fields, "timestamp_ns": now_ns}, option=orjson.OPT_SORT_KEYS)
    return Send("alerts", None, str(fields["subject"]).encode(), value)


def _refused(refusal: Refusal, entry: Journaled, raw: bytes) -> Send:
    """Return the dead letter of an input that only sizing could refuse, with its original bytes."""
    fields = orjson.loads(raw)
    key = None if fields["key"] is None else base64.b64decode(fields["key"])
    headers = tuple((name, base64.b64decode(text)) for name, text in fields["headers"])
    place = SourcePlace(entry.topic, entry.epoch, entry.partition, entry.source_offset)
    error = InvalidMessage(refusal.code, refusal.field, refusal.text)
    return letter(place, key, fields["value"].encode(), headers, error)
