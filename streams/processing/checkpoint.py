"""What a checkpoint holds: each record as at most two versions, one digest over all, and the place it was taken at.

A record of a checkpoint table is its value at the last acknowledged `progress` and its value now. Whoever reads the
tables back takes of each record the newest version that is not above `progress`: thus it does not matter which of
a checkpoint's records had landed when the worker died.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from struct import Struct, error
from typing import NamedTuple

import orjson

from streams.processing.ports import Record, RecordKey

_HEAD = Struct("<qi")
"""Of each version: stamp, and length of the value that follows (-1: deleted)."""
_LENGTHS = Struct("<II")
_MODULUS = 1 << 256


class Version(NamedTuple):
    """A record's value from one entry on."""

    stamp: int
    """Offset of the entry that last touched it."""
    value: bytes | None
    """None: deleted."""


Tables = Mapping[RecordKey, tuple[Version, ...]]
"""What the checkpoint tables of one partition hold."""

Encode = Callable[[RecordKey], bytes | None]
"""A record's value now; None: deleted."""


def pack(*versions: Version) -> bytes:
    """Return the bytes of a record's versions, oldest first."""
    return b"".join(
        [_HEAD.pack(stamp, -1) if value is None else _HEAD.pack(stamp, len(value)) + value for stamp, value in versions]
    )


def unpack(frame: bytes) -> tuple[Version, ...]:
    """Return the versions of a record; a damaged one has none (the digest, or the next checkpoint, makes it good)."""
    versions, place, end = [], 0, len(frame)
    try:
        while place < end:
            stamp, length = _HEAD.unpack_from(frame, place)
            place += _HEAD.size
            versions.append(Version(stamp, None if length < 0 else frame[place : place + length]))
            place += max(length, 0)
    except error:
        return ()
    return tuple(versions) if place == end else ()


def newest(versions: Sequence[Version], offset: int) -> Version | None:
    """Return the newest version not above an offset, None where there is none."""
    return next((version for version in reversed(versions) if version.stamp <= offset), None)


def term(key: RecordKey, value: bytes | None) -> int:
    """Return what one record adds to the digest: sha256(table ‖ key ‖ value), the lengths of the first two before."""
    if value is None:
        return 0
    table = key[0].encode()
    return int.from_bytes(hashlib.sha256(_LENGTHS.pack(len(table), len(key[1])) + table + key[1] + value).digest())


def digest(records: Mapping[RecordKey, bytes]) -> int:
    """Return Σ sha256(table ‖ key ‖ value) mod 2²⁵⁶."""
    return sum(term(key, value) for key, value in records.items()) % _MODULUS


def fingerprint(record: Record) -> str:
    """Return the sha256 (hex) of a source record: its key's length, key and value."""
    key, value = record.key or b"", record.value or b""
    return hashlib.sha256(_LENGTHS.pack(len(key), len(value)) + key + value).hexdigest()


class Progress(NamedTuple):
    """Where a checkpoint was taken, and what must be true there."""

    offset: int
    """The last entry that is folded in."""
    digest: int
    """Of all records at `offset`."""
    entry: str
    """Fingerprint of the entry at `offset`."""
    outputs: int
    """Place in the audited topic: no output of an entry above `offset` that was known lies before it."""
    meta: Mapping[str, object] | None
    """What the fold adds."""

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps({**self._asdict(), "digest": f"{self.digest:064x}"}, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_bytes(cls, value: bytes) -> "Progress":
        """Return it from JSON. Raises: ValueError, KeyError or TypeError where it is none."""
        tree = orjson.loads(value)
        return cls(tree["offset"], int(tree["digest"], 16), tree["entry"], tree["outputs"], tree["meta"])


BEGINNING = Progress(-1, 0, "", 0, None)
"""Before the first entry."""


class Batch(NamedTuple):
    """One checkpoint on its way to the tables."""

    changes: dict[RecordKey, bytes | None]
    """What to write: frames, and None for tombstones."""
    versions: dict[RecordKey, Version]
    """The version of now of each record in it, tombstones excepted."""
    offset: int
    digest: int
    """Of all records as they will be."""


class Ledger:
    """One partition's records as of the last acknowledged `progress`, and where the tables hold something else.

    `base`: each record's version at `progress` (none: deleted). `offset`: that of `progress`. `digest`: over `base`.
    """

    def __init__(self, base: dict[RecordKey, Version], offset: int) -> None:
        self.base, self.offset = base, offset
        self.digest = digest(self.records())
        self._above: list[RecordKey] = []
        """Records with a version above `progress`: the next checkpoint writes them, touched again or not."""
        self._deleted: list[RecordKey] = []
        """Records whose newest version is a deletion: the next checkpoint writes their tombstones."""

    @classmethod
    def read(cls, stored: Tables, offset: int) -> "Ledger":
        """Return the ledger at an offset, of each record the newest version not above it."""
        at = {key: newest(versions, offset) for key, versions in stored.items()}
        ledger = cls({key: v for key, v in at.items() if v is not None and v.value is not None}, offset)
        ledger.mark_stale(stored)
        return ledger

    @classmethod
    def of(cls, touched: Mapping[RecordKey, int], encode: Encode, offset: int) -> "Ledger":
        """Return the ledger at an offset of a state whose every record was touched on the way there."""
        now = {key: Version(stamp, encode(key)) for key, stamp in touched.items()}
        return cls({key: version for key, version in now.items() if version.value is not None}, offset)

    def mark_stale(self, stored: Tables) -> None:
        """Note where the tables, which read as `base`, hold what is above `progress` or deleted."""
        self._above, self._deleted = [], []
        for key, versions in stored.items():
            if not versions or versions[-1].stamp > self.offset:
                self._above.append(key)
            elif key not in self.base:
                self._deleted.append(key)

    def repair(self, stored: Tables) -> dict[RecordKey, bytes | None]:
        """Return what makes tables read as `base`; None: a stray's tombstone."""
        base, changes = self.base, {}
        for key in {**stored, **base}:
            there, right = newest(stored.get(key, ()), self.offset), base.get(key)
            if (there and there.value) != (right and right.value):
                changes[key] = right and pack(right)
        return changes

    def records(self) -> dict[RecordKey, bytes]:
        """Return the records' values."""
        return {key: version.value for key, version in self.base.items() if version.value is not None}

    def batch(self, touched: Mapping[RecordKey, int], encode: Encode, offset: int) -> Batch:
        """Return the checkpoint at an offset: all that was touched, and all that the tables hold above `progress`.

        What was touched is written even where its value is the same again: a worker that was overtaken may have
        written another one. A stamp at or below `progress` (time passed, no entry came) counts as above it.
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
        """Take an acknowledged checkpoint as what the tables hold."""
        self.offset, self.digest = batch.offset, batch.digest
        self._above = []
        self._deleted = [key for key, version in batch.versions.items() if version.value is None]
        self.base.update(batch.versions)
        for key in self._deleted:
            del self.base[key]
