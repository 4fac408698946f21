"""The contents of a checkpoint: each record in at most two versions, a digest over all of them, and the offset.

A record of a checkpoint table holds its value at the last acknowledged `progress` and its current value. A reader takes
the newest version of each record that is not above `progress`, so it does not matter which records of an unfinished
checkpoint had been written when the worker died.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from struct import Struct, error
from typing import NamedTuple

import orjson

from streams.processing.ports import Record, RecordKey

_HEAD = Struct("<qi")
"""Header of each version: stamp, and length of the value that follows (-1: deleted)."""
_LENGTHS = Struct("<II")
_MODULUS = 1 << 256


class Version(NamedTuple):
    """A record's value from one entry on."""

    stamp: int
    """Offset of the entry that last touched it."""
    value: bytes | None
    """None: deleted."""


Tables = Mapping[RecordKey, tuple[Version, ...]]
"""The contents of the checkpoint tables of one partition."""

Encode = Callable[[RecordKey], bytes | None]
"""Returns a record's current value; None: deleted."""


def pack(*versions: Version) -> bytes:
    """Return the bytes of a record's versions, oldest first."""
    return b"".join(
        [_HEAD.pack(stamp, -1) if value is None else _HEAD.pack(stamp, len(value)) + value for stamp, value in versions]
    )


def unpack(frame: bytes) -> tuple[Version, ...]:
    """Return the versions of a record; none if it is damaged: the digest reveals that."""
    versions, at, end = [], 0, len(frame)
    try:
        while at < end:
            stamp, length = _HEAD.unpack_from(frame, at)
            at += _HEAD.size
            versions.append(Version(stamp, None if length < 0 else frame[at : at + length]))
            at += max(length, 0)
    except error:
        return ()
    return tuple(versions) if at == end else ()


def newest(versions: Sequence[Version], offset: int) -> Version | None:
    """Return the newest version not above an offset, or None."""
    return next((version for version in reversed(versions) if version.stamp <= offset), None)


def term(key: RecordKey, value: bytes | None) -> int:
    """Return one record's term of the digest: sha256(len(table) ‖ len(key) ‖ table ‖ key ‖ value)."""
    if value is None:
        return 0
    table = key[0].encode()
    return int.from_bytes(hashlib.sha256(_LENGTHS.pack(len(table), len(key[1])) + table + key[1] + value).digest())


def digest(records: Mapping[RecordKey, bytes]) -> int:
    """Return Σ sha256(table ‖ key ‖ value) mod 2²⁵⁶."""
    return sum(term(key, value) for key, value in records.items()) % _MODULUS


def fingerprint(record: Record) -> str:
    """Return the sha256 (hex) of a source record: lengths of key and value, key, value."""
    key, value = record.key or b"", record.value or b""
    return hashlib.sha256(_LENGTHS.pack(len(key), len(value)) + key + value).hexdigest()


class Progress(NamedTuple):
    """The offset of a checkpoint, and what recovery checks there."""

    offset: int
    """The last entry folded."""
    digest: int
    """Of all records at `offset`."""
    entry: str
    """Fingerprint of the entry at `offset`."""
    outputs: int
    """Offset in the audited topic: all known outputs of entries above `offset` are at or after it."""
    meta: Mapping[str, object] | None
    """The fold's own values."""

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps({**self._asdict(), "digest": f"{self.digest:064x}"}, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_bytes(cls, value: bytes) -> "Progress":
        """Return it from JSON. Raises: ValueError, KeyError or TypeError if it is not one."""
        tree = orjson.loads(value)
        return cls(tree["offset"], int(tree["digest"], 16), tree["entry"], tree["outputs"], tree["meta"])


BEGINNING = Progress(-1, 0, "", 0, None)
"""Before the first entry."""


class Batch(NamedTuple):
    """One checkpoint to be written to the tables."""

    changes: dict[RecordKey, bytes | None]
    """Records to write: frames, and None for tombstones."""
    versions: dict[RecordKey, Version]
    """The current version of each record in it, without tombstones."""
    offset: int
    digest: int
    """Over all records after the write."""


class Ledger:
    """One partition's records at the last acknowledged `progress`, and where the tables differ from them.

    `base`: each record's version at `progress` (none: deleted). `offset`: that of `progress`. `digest`: over `base`.
    """

    def __init__(self, base: dict[RecordKey, Version], offset: int) -> None:
        self.base, self.offset = base, offset
        self.digest = digest(self.records())
        self._above: list[RecordKey] = []
        """Records with a version above `progress`: the next checkpoint writes them, touched or not."""
        self._deleted: list[RecordKey] = []
        """Records whose newest version is a deletion: the next checkpoint writes their tombstones."""

    @classmethod
    def read(cls, stored: Tables, offset: int) -> "Ledger":
        """Return the ledger at an offset: the newest version of each record that is not above it."""
        at = {key: newest(versions, offset) for key, versions in stored.items()}
        ledger = cls({key: v for key, v in at.items() if v is not None and v.value is not None}, offset)
        ledger.mark_stale(stored)
        return ledger

    @classmethod
    def of(cls, touched: Mapping[RecordKey, int], encode: Encode, offset: int) -> "Ledger":
        """Return the ledger at an offset for a state of which every record was touched since the beginning."""
        now = {key: Version(stamp, encode(key)) for key, stamp in touched.items()}
        return cls({key: version for key, version in now.items() if version.value is not None}, offset)

    def mark_stale(self, stored: Tables) -> None:
        """Record which of the tables' records, which read as `base`, hold a version above `progress` or a deletion."""
        self._above, self._deleted = [], []
        for key, versions in stored.items():
            if not versions or versions[-1].stamp > self.offset:
                self._above.append(key)
            elif key not in self.base:
                self._deleted.append(key)

    def repair(self, stored: Tables) -> dict[RecordKey, bytes | None]:
        """Return the changes that make tables read as `base`; None: the tombstone of a record that `base` lacks."""
        base, changes = self.base, {}
        for key in {**stored, **base}:
            found, right = newest(stored.get(key, ()), self.offset), base.get(key)
            if (found and found.value) != (right and right.value):
                changes[key] = right and pack(right)
        return changes

    def records(self) -> dict[RecordKey, bytes]:
        """Return the records' values."""
        return {key: version.value for key, version in self.base.items() if version.value is not None}

    def batch(self, touched: Mapping[RecordKey, int], encode: Encode, offset: int) -> Batch:
        """Return the checkpoint at an offset: every touched record, and every one with a version above `progress`.

        A touched record is written even if its value is unchanged: a worker that has lost the partition may have
        written another value. A stamp at or below `progress` (time passed, no entry came) counts as above it.
        """
        base, total, first = self.base, self.digest, self.offset + 1
        changes: dict[RecordKey, bytes | None] = {}
        versions: dict[RecordKey, Version] = {}
        for key, stamp in touched.items():
            now, old = Version(max(stamp, first), encode(key)), base.get(key)
            versions[key] = now
            changes[key] = pack(now) if old is None else pack(old, now)
            if old is None:
                total += term(key, now.value)
            elif old.value != now.value:
                total += term(key, now.value) - term(key, old.value)
        for key in self._above:
            if key not in touched:
                versions[key] = base.get(key) or Version(offset, None)
                changes[key] = pack(versions[key])
        changes.update((key, None) for key in self._deleted if key not in versions)
        return Batch(changes, versions, offset, total % _MODULUS)

    def settle(self, batch: Batch) -> None:
        """Update to an acknowledged checkpoint, which the tables now hold."""
        self.offset, self.digest = batch.offset, batch.digest
        self._above = []
        self._deleted = [key for key, version in batch.versions.items() if version.value is None]
        self.base.update(batch.versions)
        for key in self._deleted:
            del self.base[key]
