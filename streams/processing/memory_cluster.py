"""A cluster in memory: topics, changelogs and local stores for processors that run without a broker.

The Driver, audit, what-if and the tests run on it. A test can observe each step, crash or delay it, or let sends that
were in flight arrive later.
"""

from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from schemas.errors import NotFound
from streams.processing.partitioner import partition_of
from streams.processing.ports import Headers, Record, RecordKey, Send

PROGRESS = "progress"
_OFFSET = attrgetter("offset")


class Stored(NamedTuple):
    """One record of a partition, as a consumer returns it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Log:
    """One partition of a topic. An offset is never reused, even if its record is deleted."""

    __slots__ = ("end", "first", "records")

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.first = 0
        self.end = 0

    def append(self, key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
        """Append a record; return its offset."""
        offset = self.end
        self.records.append(Stored(offset, key, value, headers))
        self.end = offset + 1
        return offset

    def read(self, first: int, end: int | None = None) -> list[Stored]:
        """Return the records from `first` up to, not including, `end` (None: all)."""
        records = self.records
        start = bisect_left(records, first, key=_OFFSET)
        return records[start:] if end is None else records[start : bisect_left(records, end, key=_OFFSET)]

    def compact(self) -> None:
        """Keep only the last value of each key; delete it if it is None."""
        last = {record.key: record for record in self.records}
        self.records = [r for r in self.records if last[r.key] is r and r.value is not None]

    def skip(self, count: int = 1) -> None:
        """Consume offsets without a record, as transaction markers do."""
        self.end += count

    def retain(self, first: int) -> None:
        """Delete the records below an offset, as retention does."""
        self.records, self.first = self.read(first), max(self.first, first)

    def lose(self, end: int) -> None:
        """Delete the records at or above an offset and reset the end to it, as a power failure does."""
        self.records, self.end = self.read(0, end), min(self.end, end)


class MemoryCluster:
    """Topics by logical name, and the changelogs of processors."""

    def __init__(self) -> None:
        self._topics: dict[str, list[Log]] = {}
        self._changelogs: dict[tuple[str, str, int], Log] = {}

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic, or leave it as it is."""
        self._topics.setdefault(topic, [Log() for _ in range(partitions)])

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic. Raises: NotFound."""
        return len(self._logs(topic))

    def log(self, topic: str, partition: int) -> Log:
        """Return one partition of a topic. Raises: NotFound."""
        logs = self._logs(topic)
        if not 0 <= partition < len(logs):
            msg = f"topic {topic} has {len(logs)} partitions, asked for partition {partition}"
            raise NotFound(msg)
        return logs[partition]

    def route(self, send: Send) -> Log:
        """Return the log a record goes to: its partition, or murmur2 of its key (no key: 0). Raises: NotFound."""
        partition = send.partition
        if partition is None:
            partition = partition_of(send.key, self.partitions(send.topic)) if send.key is not None else 0
        return self.log(send.topic, partition)

    def publish(self, send: Send) -> int:
        """Append a record to its partition; return its offset."""
        return self.route(send).append(send.key, send.value, send.headers)

    def changelog(self, processor: str, table: str, partition: int) -> Log:
        """Return the changelog of one table's partition, created empty if it is new."""
        return self._changelogs.setdefault((processor, table, partition), Log())

    def _logs(self, topic: str) -> list[Log]:
        try:
            return self._topics[topic]
        except KeyError:
            msg = f"no topic {topic}"
            raise NotFound(msg) from None


@dataclass
class LocalStore:
    """One machine's local store of one partition: records, and the offset up to which each changelog is applied."""

    records: dict[RecordKey, bytes] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def wipe(self) -> None:
        """Delete everything."""
        self.records.clear()
        self.places.clear()

    def copy(self) -> "LocalStore":
        """Return a copy of the current contents."""
        return LocalStore(dict(self.records), dict(self.places))


class Flight(NamedTuple):
    """A record in flight; when it arrives, its offset is stored in `landed` under `place`, its index in the batch."""

    log: Log
    key: bytes | None
    value: bytes | None
    headers: Headers
    place: int
    landed: dict[int, int]


Pause = Callable[[str], Awaitable[None]]
"""Called with the name of each step; it may raise, or suspend to delay the step."""


class MemoryPorts:
    """The effects of one processor on one partition of a cluster in memory.

    `pause`: see `Pause`; with it, records arrive one by one, in order within a log, and `choose(n)` picks which of n
    logs is next. Records that had not arrived when a step was cancelled stay in `flight`; `land` delivers them.
    `owner`: False once another worker holds the partition; the store then stops tracking the changelogs' ends.
    """

    def __init__(
        self,
        cluster: MemoryCluster,
        *,
        processor: str,
        source: str,
        partition: int,
        tables: Sequence[str],
        store: LocalStore | None = None,
        pause: Pause | None = None,
        choose: Callable[[int], int] = lambda _: 0,
    ) -> None:
        self._cluster, self._partition = cluster, partition
        self._source = cluster.log(source, partition)
        self._logs = {table: cluster.changelog(processor, table, partition) for table in tables}
        self._progress = cluster.changelog(processor, PROGRESS, partition)
        self._pause, self._choose = pause, choose
        self.store = LocalStore() if store is None else store
        self.flight: list[Flight] = []
        self.owner = True

    # -- tables ------------------------------------------------------------------------------------------------------
    async def local(self) -> dict[RecordKey, bytes]:
        """Apply the changelogs to the local store up to their ends; return its records."""
        store = self.store
        for table, log in self._logs.items():
            for record in log.read(store.places.get(table, 0)):
                _put(store.records, (table, record.key or b""), record.value)
            store.places[table] = log.end
            await self._reach(f"read {table}")
        return dict(store.records)

    async def changelog(self) -> dict[RecordKey, bytes]:
        """Rebuild the local store from the changelogs; return its records."""
        self.store.wipe()
        return await self.local()

    async def progress(self) -> bytes | None:
        """Return the newest `progress`."""
        records = self._progress.records
        newest = records[-1].value if records else None
        await self._reach("read progress")
        return newest

    async def write(self, changes: Mapping[RecordKey, bytes | None]) -> None:
        """Write records to the local store, then to the changelogs."""
        await self._reach("before local")
        for key, value in changes.items():
            _put(self.store.records, key, value)
        await self._reach("local written")
        await self._deliver([(self._logs[table], key, value, ()) for (table, key), value in changes.items()])

    async def write_progress(self, value: bytes) -> None:
        """Write `progress` to its changelog; the owner's store then counts as caught up with all changelogs."""
        await self._deliver([(self._progress, b"", value, ())])
        if self.owner:
            self.store.places.update((table, log.end) for table, log in self._logs.items())

    # -- topics ------------------------------------------------------------------------------------------------------
    async def send(self, sends: Sequence[Send]) -> list[int]:
        """Publish in order; return the offsets."""
        route = self._cluster.route
        return await self._deliver([(route(send), send.key, send.value, send.headers) for send in sends])

    async def outputs(self, topic: str, first: int) -> list[tuple[int, bytes]]:
        """Return (offset, value) of this partition of an output topic from `first` on."""
        found = self._cluster.log(topic, self._partition).read(first)
        await self._reach("read outputs")
        return [(record.offset, record.value or b"") for record in found]

    async def source(self, first: int, end: int | None = None) -> AsyncIterator[Record]:
        """Yield the source's records from `first` up to, not including, `end`."""
        found = self._source.read(first, end)
        await self._reach("read source")
        for record in found:
            yield record

    async def source_first(self) -> int:
        """Return the source's first offset."""
        return self._source.first

    async def source_end(self) -> int:
        """Return the source's end."""
        return self._source.end

    # -- steps -------------------------------------------------------------------------------------------------------
    async def _reach(self, step: str) -> None:
        if self._pause is not None:
            await self._pause(step)

    async def _deliver(self, records: Sequence[tuple[Log, bytes | None, bytes | None, Headers]]) -> list[int]:
        """Send records; return their offsets once all have arrived."""
        if self._pause is None:
            return [log.append(key, value, headers) for log, key, value, headers in records]
        landed: dict[int, int] = {}
        self.flight += [Flight(*record, place, landed) for place, record in enumerate(records)]
        while len(landed) < len(records):
            await self._land_one()
        await self._reach("acknowledged")
        return [landed[place] for place in range(len(records))]

    async def land(self) -> None:
        """Deliver everything in flight, one record per step."""
        while self.flight:
            await self._land_one()

    async def _land_one(self) -> None:
        """Deliver one record: the first one of some log, whichever call sent it."""
        await self._reach("issued")
        heads = list({id(sent.log): sent for sent in reversed(self.flight)}.values())[::-1]
        if heads:
            sent = heads[self._choose(len(heads))]
            self.flight.remove(sent)
            sent.landed[sent.place] = sent.log.append(sent.key, sent.value, sent.headers)


def _put(records: dict[RecordKey, bytes], key: RecordKey, value: bytes | None) -> None:
    if value is None:
        records.pop(key, None)
    else:
        records[key] = value
