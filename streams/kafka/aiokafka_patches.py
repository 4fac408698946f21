"""Reads records with header names that are not UTF-8, at which aiokafka would stop: one would block every consumer.

Java's clients cannot write such a record, C's can. When aiokafka fails, the fetched bytes are decoded again with each
non-ASCII byte of such a name replaced by `?`; nothing else changes, and other records cost nothing.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, decode_varint

LENGTH: Final = struct.Struct(">qi")
"""Start of a batch: base offset, and number of bytes that follow."""
MAGIC, CRC, ATTRIBUTES, LAST, COUNT, RECORDS = 16, 17, 21, 23, 57, 61
"""Byte positions in a batch of version 2."""
CODECS: Final = 0b111
UNPACK: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}


def tolerate() -> None:
    """Patch all consumers of this process; a second call does nothing."""
    if not issubclass(fetcher.MemoryRecords, Remembered):
        fetcher.MemoryRecords = Remembered
        fetcher.PartitionRecords._unpack_records = _tolerant(fetcher.PartitionRecords._unpack_records)  # noqa: SLF001


class Remembered(MemoryRecords):  # type: ignore[misc]
    """Fetched batches with their raw bytes."""

    def __init__(self, raw: bytes) -> None:
        """Keep the raw bytes; an extension base class has read them in `__new__`."""
        if MemoryRecords.__init__ is not object.__init__:
            super().__init__(raw)
        self.raw = raw


def _tolerant(unpack: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    def unpack_tolerantly(self: Any) -> Iterator[Any]:
        try:
            yield from unpack(self)
        except UnicodeDecodeError:
            self._records = MemoryRecords(legible(bytes(self._records.raw), self.next_fetch_offset))
            yield from unpack(self)

    return unpack_tolerantly


def legible(raw: bytes, first: int = 0) -> bytes:
    """Return the batches from offset `first` on, with all header names valid UTF-8.

    A changed batch is stored uncompressed with a new CRC. Earlier batches are left out: aiokafka would return to their
    end, and deliver records of the next batch twice.
    """
    batches = []
    at = 0
    while at + RECORDS <= len(raw):
        base, length = LENGTH.unpack_from(raw, at)
        (delta,) = struct.unpack_from(">i", raw, at + LAST)
        end = at + LENGTH.size + length
        if base + delta >= first:
            batches.append(_legible(raw[at:end]) if end <= len(raw) and raw[at + MAGIC] == 2 else raw[at:end])
        at = end
    return b"".join([*batches, raw[at:]])


def _legible(batch: bytes) -> bytes:
    (attributes,) = struct.unpack_from(">h", batch, ATTRIBUTES)
    (count,) = struct.unpack_from(">i", batch, COUNT)
    unpack = UNPACK.get(attributes & CODECS)
    before = batch[RECORDS:] if unpack is None else bytes(unpack(batch[RECORDS:]))
    records = bytearray(before)
    for start, end in _names(records, count):
        name = bytes(records[start:end])
        try:
            name.decode()
        except UnicodeDecodeError:
            records[start:end] = bytes(byte if byte < 0x80 else ord("?") for byte in name)
    if records == before:
        return batch
    after = bytearray(batch[:RECORDS]) + records
    struct.pack_into(">h", after, ATTRIBUTES, attributes & ~CODECS)
    LENGTH.pack_into(after, 0, LENGTH.unpack_from(batch)[0], len(after) - LENGTH.size)
    struct.pack_into(">I", after, CRC, calc_crc32c(bytes(after[ATTRIBUTES:])))
    return bytes(after)


def _names(records: bytearray, count: int) -> Iterator[tuple[int, int]]:
    """Yield start and end position of each header's name."""
    at = 0
    for _ in range(count):
        length, at = decode_varint(records, at)
        end = at + length
        at += 1  # attributes
        for _delta in ("timestamp", "offset"):
            _, at = decode_varint(records, at)
        for _part in ("key", "value"):
            size, at = decode_varint(records, at)
            at += max(size, 0)
        headers, at = decode_varint(records, at)
        for _header in range(headers):
            size, at = decode_varint(records, at)
            yield at, at + size
            size, at = decode_varint(records, at + size)
            at += max(size, 0)
        at = end
