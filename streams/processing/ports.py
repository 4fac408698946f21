"""The interfaces of a processor, so that the same processor runs on Faust and in memory.

A processor owns one partition of one source topic. Its `Fold` is the pure part (state in, records and sends out);
its `Ports` are the effects (checkpoint tables, outputs, re-reads of the source).
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

RecordKey = tuple[str, bytes]
"""(table, key within the partition): one record of a checkpoint."""

Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """One record of the source topic, as a consumer returns it."""

    @property
    def offset(self) -> int:
        """Its offset in the partition."""

    @property
    def key(self) -> bytes | None:
        """As published."""

    @property
    def value(self) -> bytes | None:
        """As published."""

    @property
    def headers(self) -> Headers:
        """As published."""


class Identity(NamedTuple):
    """Identifies an audited output when the fold reproduces it."""

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
        """Tables that hold its records; the processor keeps `progress` in addition to them."""

    @property
    def audited(self) -> str | None:
        """Logical output topic whose records are compared when the fold reproduces them, or None.

        It has as many partitions as the source; each send to it carries an identity and this processor's partition.
        """

    @property
    def touched(self) -> dict[RecordKey, int]:
        """Offset of the entry that last touched each record; filled by `fold`, emptied in place by the processor."""

    def fold(self, record: Record) -> list[Send]:
        """Fold one record of the source; return what to publish for it, in order."""

    def encode(self, key: RecordKey) -> bytes | None:
        """Return the record's current value, or None if it is deleted."""

    def meta(self) -> dict[str, object]:
        """Return what `progress` carries in addition to offset and digest; plain JSON values."""

    def restore(self, meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        """Replace the state; `meta` None with no records is the state before the first entry."""

    def refold(self) -> FoldRecord:
        """Become the state before the first entry; return what folds the source from there."""

    def identify(self, value: bytes) -> tuple[Identity, int]:
        """Return identity and source offset of an audited output. Raises: ValueError if the value is not one."""


class Ports(Protocol):
    """The effects of one processor on one partition."""

    async def local(self) -> dict[RecordKey, bytes]:
        """Return the local store (RocksDB, caught up with its changelog) without `progress`."""

    async def changelog(self) -> dict[RecordKey, bytes]:
        """Read the tables' changelogs of this partition from start to end, without `progress`.

        The local store is replaced: afterwards it holds exactly what the changelogs hold.
        """

    async def progress(self) -> bytes | None:
        """Return the newest `progress` in the changelog of this partition, or None."""

    async def write(self, changes: Mapping[RecordKey, bytes | None]) -> None:
        """Write records (None deletes) to the local store, then to the changelogs; return when all are acknowledged."""

    async def write_progress(self, value: bytes) -> None:
        """Write `progress` to its changelog; return when it is acknowledged."""

    async def send(self, sends: Sequence[Send]) -> list[int]:
        """Publish in order; return each record's offset when all are acknowledged."""

    async def outputs(self, topic: str, first: int) -> list[tuple[int, bytes]]:
        """Return (offset, value) of this partition's records of an output topic, from `first` to the current end."""

    def source(self, first: int, end: int | None = None) -> AsyncIterator[Record]:
        """Re-read the source partition from `first` up to, not including, `end` (None: the current end)."""

    async def source_first(self) -> int:
        """Return the offset of the source partition's first record: above 0 if retention deleted older ones."""

    async def source_end(self) -> int:
        """Return the source partition's exact end offset, never an older one from before the call."""
