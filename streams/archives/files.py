"""The Parquet files of an archive: records as in their partitions, and checkpoints of state.

Files are written atomically, and compressed with zstd.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple

import orjson

from schemas.errors import SizingError, VerificationMismatch
from streams.audits.refold import Checkpoint
from streams.processing.ports import Headers

NO_PYARROW: Final = "archives need pyarrow; install it with: pip install 'himari-layer3[parquet]'"
LEVEL: Final = 6
META: Final = b"himari.checkpoint"
_LONG: Final = Struct("<q")


class ArchivedRecord(NamedTuple):
    """One record of a partition, with everything Kafka stored."""

    offset: int
    timestamp: int
    """ms since 1970, set by the producer or the broker."""
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def arrow() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module. Raises: SizingError if it is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415 optional and slow to import
        from pyarrow import parquet  # noqa: PLC0415 likewise
    except ImportError as error:
        raise SizingError(NO_PYARROW) from error
    return pa, parquet


# -- bytes -------------------------------------------------------------------------------------------------------------
def content(records: Iterable[ArchivedRecord]) -> str:
    """Return the sha256 (hex) of records, independent of the file format; each field is prefixed by its length."""
    found = hashlib.sha256()
    for record in records:
        found.update(_LONG.pack(record.offset) + _LONG.pack(record.timestamp))
        for field in (record.key, record.value):
            found.update(_LONG.pack(-1) if field is None else _LONG.pack(len(field)) + field)
        found.update(_LONG.pack(len(record.headers)))
        for name, value in record.headers:
            found.update(_LONG.pack(len(name.encode())) + name.encode() + _LONG.pack(len(value)) + value)
    return found.hexdigest()


def sha256(path: Path, name: str) -> str:
    """Return the sha256 (hex) of a file. Raises: VerificationMismatch if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        msg = f"{name} cannot be read: {error.strerror}"
        raise VerificationMismatch(msg) from error


def write(path: Path, value: bytes) -> None:
    """Write a file atomically and durably: to a temporary name, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    with suppress(OSError):  # not all file systems support fsync of a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# -- records -----------------------------------------------------------------------------------------------------------
def records_file(records: Sequence[ArchivedRecord]) -> bytes:
    """Return the bytes of a Parquet file of records."""
    pa, _ = arrow()
    header = pa.struct([("name", pa.string()), ("value", pa.binary())])
    columns = {
        "offset": pa.array([each.offset for each in records], pa.int64()),
        "timestamp_ms": pa.array([each.timestamp for each in records], pa.int64()),
        "key": pa.array([each.key for each in records], pa.binary()),
        "value": pa.array([each.value for each in records], pa.binary()),
        "headers": pa.array(
            [[{"name": name, "value": value} for name, value in each.headers] for each in records], pa.list_(header)
        ),
    }
    return _parquet(pa.table(columns))


def read_records(path: Path) -> list[ArchivedRecord]:
    """Return the records of a file; its hash must be checked first."""
    _, parquet = arrow()
    table = parquet.read_table(path)
    columns = [table.column(name).to_pylist() for name in ("offset", "timestamp_ms", "key", "value", "headers")]
    return [
        ArchivedRecord(offset, timestamp, key, value, tuple((each["name"], each["value"]) for each in headers))
        for offset, timestamp, key, value, headers in zip(*columns, strict=True)
    ]


# -- checkpoints -------------------------------------------------------------------------------------------------------
def checkpoint_file(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a Parquet file of a checkpoint: one row per record, the rest in the file's metadata."""
    pa, _ = arrow()
    rows = sorted(checkpoint.records.items())
    columns = {
        "table": pa.array([table for (table, _), _ in rows], pa.string()),
        "key": pa.array([key for (_, key), _ in rows], pa.binary()),
        "value": pa.array([value for _, value in rows], pa.binary()),
    }
    stated = {
        "digest": f"{checkpoint.digest:064x}",
        "entry": checkpoint.entry,
        "meta": checkpoint.meta,
        "offset": checkpoint.offset,
        "outputs": checkpoint.outputs,
    }
    return _parquet(
        pa.table(columns).replace_schema_metadata({META: orjson.dumps(stated, option=orjson.OPT_SORT_KEYS)})
    )


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint of a file; its hash must be checked first."""
    _, parquet = arrow()
    table = parquet.read_table(path)
    stated = orjson.loads(table.schema.metadata[META])
    columns = [table.column(name).to_pylist() for name in ("table", "key", "value")]
    records = {(name, key): value for name, key, value in zip(*columns, strict=True)}
    digest = int(stated["digest"], 16)
    return Checkpoint(stated["offset"], digest, stated["entry"], stated["outputs"], stated["meta"], records)


def _parquet(table: Any) -> bytes:
    pa, parquet = arrow()
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", compression_level=LEVEL, write_page_checksum=True)
    found: bytes = sink.getvalue().to_pybytes()
    return found
