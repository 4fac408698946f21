"""Headers whose names are no UTF-8: aiokafka cannot read past such a record, so whoever writes one stops all readers.

Java's clients cannot write one, C's can. When aiokafka fails, the fetched bytes are read again with every byte of such
a name that is not ASCII replaced by `?`; nothing else changes, and records without such a name cost nothing.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, decode_varint

LENGTH: Final = struct.Struct(">qi")
"""What a batch begins with: base offset, and how many bytes follow."""
MAGIC, CRC, ATTRIBUTES, LAST, COUNT, RECORDS = 16, 17, 21, 23, 57, 61
"""Places in a batch of version 2."""
CODECS: Final = 0b111
UNPACK: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}


def tolerate() -> None:
    """Let all consumers of this process read such records; a second call does nothing."""
    if not issubclass(fetcher.MemoryRecords, Remembered):
        fetcher.MemoryRecords = Remembered
        fetcher.PartitionRecords._unpack_records = _tolerant(fetcher.PartitionRecords._unpack_records)  # noqa: SLF001


class Remembered(MemoryRecords):  # type: ignore[misc]
    """Fetched batches, and the bytes that they are made of."""

    def __init__(self, raw: bytes) -> None:
        """Take what was fetched; the base class has taken it already."""
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
    """Return the batches from offset `first` on with all header names legible.

    A batch that changes is stored uncompressed, its CRC made anew. Those before are left out: aiokafka would go back to
    their end, and hand out again what it has handed out of the batch after.
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
    """Yield where each header's name begins and ends."""
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
