"""Sizing on the journal: the engines' fold, as a processor runs it."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict
from time import perf_counter_ns
from typing import Any

import orjson

from engines.fold import apply
from engines.handlers.effects import FoldResult, Journaled, Refusal
from engines.handlers.versions import version_of
from engines.state.partition import PartitionProgress, State
from engines.state.tables import TABLES, Key
from schemas.errors import InvalidMessage
from streams.journal import entries as journal
from streams.journal import handover
from streams.journal.dead_letters import letter
from streams.journal.entries import SourcePlace
from streams.journal.handover import MIGRATIONS, HandoverReader, Migration
from streams.processing.ports import Headers, Identity, Record, RecordKey, Send

SECOND_NS = 1_000_000_000

FoldObserver = Callable[[Journaled, FoldResult, int], None]
"""Told what each entry led to, and how long that took in ns."""


class SizingFold:
    """One journal partition: its state, what it publishes, and the tick it writes when nothing else comes."""

    tables = TABLES
    audited = "allocations"

    def __init__(
        self,
        partition: int,
        observe: FoldObserver | None = None,
        headers: Headers = (),
        version: int = 0,
        migrations: Mapping[tuple[int, int], Migration] = MIGRATIONS,
    ) -> None:
        """Fold `partition`; `observe` is told what each entry led to, `headers` go with each allocation.

        `version`: of the decisions (0: this code's), `migrations`: how it takes over from others.
        """
        self.state = State(partition, version)
        self.migrations = migrations
        self._wait: HandoverReader | None = None
        """In a journal that is folded again from its beginning, which another version made: until it hands over."""
        self._waiting: list[Record] = []
        """Entries after the hand-over, until its state is whole."""
        self.observe = observe
        self.headers = headers
        self.touched: dict[RecordKey, int] = {}
        self._names: dict[tuple[str, Key], RecordKey] = {}

    def fold(self, record: Record) -> list[Send]:
        """Fold one journal entry; return allocations, requests, alerts and dead letters, in this order."""
        raw = record.value
        if raw is None:
            msg = f"journal partition {self.state.partition}: entry {record.offset} has no value"
            raise ValueError(msg)
        began_ns = perf_counter_ns()
        entry = journal.read(record.offset, raw)
        if self._wait is not None and self._is_before(self._wait, entry):
            return self._await(self._wait, record, entry)
        folded = apply(self.state, entry)
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

    # -- another version's part ------------------------------------------------------------------------------------
    def _is_before(self, wait: HandoverReader, entry: Journaled) -> bool:
        """Return whether an entry is another version's; the wait is over where this one's own Genesis comes."""
        if entry.kind == "genesis" and entry.body["decision_version"] == version_of(self.state):
            self._wait = None
        return self._wait is wait

    def _await(self, wait: HandoverReader, record: Record, entry: Journaled) -> list[Send]:
        """Pass over an entry of another version; fold what waited once the state is there that it handed over."""
        if wait.offset >= 0:
            self._waiting.append(record)
        left = wait.take(entry)
        if wait.offset == entry.offset:
            self._waiting.clear()
        if left is None:
            return []
        self._wait, waiting, self._waiting = None, self._waiting, []
        self._take_over(left)
        return [send for each in waiting for send in self.fold(each)]

    def _take_over(self, left: handover.HandoverState) -> None:
        """Go on from the state of another version. Every record counts as touched: it may be another one now."""
        place = f"journal partition {self.state.partition}"
        mine = handover.taken_over(place, left, version_of(self.state), self.migrations)
        self._become(mine.meta, mine.records)
        self.touched = dict.fromkeys([*left.records, *mine.records], left.offset)

    def _name(self, touched: tuple[str, Key]) -> RecordKey:
        name = self._names.get(touched)
        if name is None:
            name = self._names[touched] = (touched[0], "|".join(touched[1]).encode())
        return name

    def elapse(self, now_ns: int) -> list[Send]:
        """Return the tick that tells the journal the time when nothing else does."""
        return [Send(journal.TOPIC, self.state.partition, None, journal.internal("tick", {}, now_ns))]

    # -- checkpoint ------------------------------------------------------------------------------------------------
    def encode(self, key: RecordKey) -> bytes | None:
        """Return a record's value now."""
        table, name = key
        return self.state.encode(table, tuple(name.decode().split("|")))

    def meta(self) -> dict[str, object]:
        """Return settings in force, source high-waters, journal time and the inputs hash."""
        return {} if self.state.progress is None else asdict(self.state.progress)

    def restore(self, meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        """Become the state of a checkpoint; of another version's, if that has handed over to this one.

        An empty `meta`: the source is folded again from its beginning, to a place that is known. What other versions
        decided there is passed over then, up to the state that was handed over to this one.

        Raises: AnotherVersion where this one cannot go on from there.
        """
        own = version_of(self.state)
        self._wait, self._waiting = (HandoverReader(own) if meta is not None and not meta else None), []
        if meta and meta["decision_version"] != own:
            self._take_over(handover.HandoverState(-1, handover.plain(meta), dict(records)))
        else:
            self._become(meta, records)

    def _become(self, meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        fields: Any = meta
        progress = PartitionProgress(**fields) if fields else None
        named = {(table, tuple(name.decode().split("|"))): value for (table, name), value in records.items()}
        self.touched = {}
        self.state.restore(progress, named)

    def identify(self, value: bytes) -> tuple[Identity, int]:
        """Return portfolio and sequence of an allocation, and the journal offset it was decided at."""
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
    """Return an input that only sizing could judge, as it came, for its dead-letter topic."""
    fields = orjson.loads(raw)
    key = None if fields["key"] is None else base64.b64decode(fields["key"])
    headers = tuple((name, base64.b64decode(text)) for name, text in fields["headers"])
    place = SourcePlace(entry.topic, entry.epoch, entry.partition, entry.source_offset)
    error = InvalidMessage(refusal.code, refusal.field, refusal.text)
    return letter(place, key, fields["value"].encode(), headers, error)
