"""What a processor asks of the world, so that the same processor runs on Faust and in memory.

A processor owns one partition of one source topic. Its `Fold` is the pure part (state in, records and sends out);
its `Ports` are the effects (checkpoint tables, outputs, the source read again).
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

RecordKey = tuple[str, bytes]
"""(table, key within the partition): one record of a checkpoint."""

Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """One record of the source topic, as consumers hand it over."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> bytes | None:
        """As it was published."""

    @property
    def value(self) -> bytes | None:
        """As it was published."""

    @property
    def headers(self) -> Headers:
        """As they were published."""


class Identity(NamedTuple):
    """What makes an audited output the same one when it comes out again."""

    portfolio_id: str
    sequence: int


class Send(NamedTuple):
    """One record to publish; `topic` is the logical name, `partition` None means murmur2 of the key."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    identity: Identity | None = None


FoldRecord = Callable[[Record], list[Send]]
"""Folds one record of the source; returns what to publish for it, in order."""


class Fold(Protocol):
    """The pure part of a processor: the state of one partition, folded up to one offset."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that hold its records; beside them the mechanism keeps `progress`."""

    @property
    def audited(self) -> str | None:
        """Logical output topic whose records are compared when they come out again, or None.

        It has the source's partitions, and each of its sends carries its identity and this processor's partition.
        """

    @property
    def touched(self) -> dict[RecordKey, int]:
        """Offset of the entry that last touched each record; filled by `fold`, emptied in place by the processor."""

    def fold(self, record: Record) -> list[Send]:
        """Take one record of the source; return what is to be published for it, in order."""

    def encode(self, key: RecordKey) -> bytes | None:
        """Return the record's value now, or None where it is deleted."""

    def meta(self) -> dict[str, object]:
        """Return what `progress` carries beside offset and digest; plain JSON values."""

    def restore(self, meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        """Replace the state; `meta` None with no records is the state before the first entry."""

    def refold(self) -> FoldRecord:
        """Become the state before the first entry; return what folds the source from there."""

    def identify(self, value: bytes) -> tuple[Identity, int]:
        """Return identity and source offset of an audited output. Raises: ValueError where the value is none."""


class Ports(Protocol):
    """The effects of one processor on one partition."""

    async def local(self) -> dict[RecordKey, bytes]:
        """Return what the local store (RocksDB, brought up to its changelog's end) holds, `progress` excepted."""

    async def changelog(self) -> dict[RecordKey, bytes]:
        """Read the tables' changelogs of this partition from their start to their end, `progress` excepted.

        What the local store held before is given up: it holds afterwards what the changelogs hold, nothing else.
        """

    async def progress(self) -> bytes | None:
        """Return the newest `progress` of this partition, read from its changelog, or None."""

    async def write(self, changes: Mapping[RecordKey, bytes | None]) -> None:
        """Write records (None deletes) to the local store, then to the changelogs; return when all are acknowledged."""

    async def write_progress(self, value: bytes) -> None:
        """Write `progress` to its changelog; return when it is acknowledged."""

    async def send(self, sends: Sequence[Send]) -> list[int]:
        """Publish in order; return each record's offset when all are acknowledged."""

    async def outputs(self, topic: str, first: int) -> list[tuple[int, bytes]]:
        """Read this partition's records of an output topic from `first` to its end of this moment: (offset, value)."""

    def source(self, first: int, end: int | None = None) -> AsyncIterator[Record]:
        """Read the source partition again, from `first` to before `end` (None: its end of this moment)."""

    async def source_first(self) -> int:
        """Return the offset of the source partition's first record: above 0 where retention took what was below."""

    async def source_end(self) -> int:
        """Return the source partition's end offset: exactly, never one of before the call."""
