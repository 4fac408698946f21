"""The Parquet files of an archive: records as in their partitions, and checkpoints of state.

Files are written atomically, and compressed with zstd. What is read may come from anybody: a file with other columns,
other rows or more bytes than an archive writes is refused.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple

import orjson

from schemas.errors import SizingError, VerificationMismatch
from streams.audits.refold import Checkpoint
from streams.processing.ports import Headers
from streams.processing.private_files import fresh_file, private_folder, replace

NO_PYARROW: Final = "archives need pyarrow; install it with: pip install 'himari-layer3[parquet]'"
LEVEL: Final = 6
META: Final = b"himari.checkpoint"
BYTES_MAX: Final = 2**31
"""Largest file, unpacked; a segment that is larger needs fewer entries."""
ROWS_AT_ONCE: Final = 256
"""Rows unpacked before the bytes are counted again."""
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
    private_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    fresh_file(temporary)
    with temporary.open("wb") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    replace(temporary, path)
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
    columns = {
        "offset": [each.offset for each in records],
        "timestamp_ms": [each.timestamp for each in records],
        "key": [each.key for each in records],
        "value": [each.value for each in records],
        "headers": [[{"name": name, "value": value} for name, value in each.headers] for each in records],
    }
    return _parquet(pa.table(columns, _records_schema()))


def read_records(path: Path, name: str, rows: int) -> list[ArchivedRecord]:
    """Return the records of a file; its hash must be checked first.

    Raises:
        VerificationMismatch: it is not a file of `rows` records; the text begins with `name`.
    """
    with _readable(name, "records"):
        table = _table(path, _records_schema(), rows)
        columns = [table.column(each).to_pylist() for each in table.column_names]
        return [
            ArchivedRecord(_given(offset), _given(timestamp), key, value, tuple(map(_header, _given(headers))))
            for offset, timestamp, key, value, headers in zip(*columns, strict=True)
        ]


def _header(found: dict[str, Any] | None) -> tuple[str, bytes]:
    return _given(_given(found)["name"]), _given(_given(found)["value"])


def _given(value: Any) -> Any:
    """Return a value that must be there. Raises: ValueError."""
    if value is None:
        msg = "offset, timestamp and headers must not be null"
        raise ValueError(msg)
    return value


# -- checkpoints -------------------------------------------------------------------------------------------------------
def checkpoint_file(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a Parquet file of a checkpoint: one row per record, the rest in the file's metadata."""
    pa, _ = arrow()
    rows = sorted(checkpoint.records.items())
    columns = {
        "table": [table for (table, _), _ in rows],
        "key": [key for (_, key), _ in rows],
        "value": [value for _, value in rows],
    }
    stated = {
        "digest": f"{checkpoint.digest:064x}",
        "entry": checkpoint.entry,
        "meta": checkpoint.meta,
        "offset": checkpoint.offset,
        "outputs": checkpoint.outputs,
    }
    return _parquet(
        pa.table(columns, _checkpoint_schema()).replace_schema_metadata(
            {META: orjson.dumps(stated, option=orjson.OPT_SORT_KEYS)}
        )
    )


def read_checkpoint(path: Path, name: str) -> Checkpoint:
    """Return the checkpoint of a file; its hash must be checked first.

    Raises:
        VerificationMismatch: it is not a file of a checkpoint; the text begins with `name`.
    """
    with _readable(name, "a checkpoint"):
        table = _table(path, _checkpoint_schema())
        stated = orjson.loads((table.schema.metadata or {})[META])
        columns = [table.column(each).to_pylist() for each in table.column_names]
        records = {(_given(name), _given(key)): _given(value) for name, key, value in zip(*columns, strict=True)}
        meta = stated["meta"]
        if not isinstance(meta, dict) or not isinstance(meta["now_ns"], int):
            msg = "its metadata must have now_ns"
            raise TypeError(msg)
        at = (stated["offset"], int(stated["digest"], 16), stated["entry"], stated["outputs"])
        return Checkpoint(*at, meta, records)


# -- Parquet -----------------------------------------------------------------------------------------------------------
def _records_schema() -> Any:
    pa, _ = arrow()
    header = pa.struct([("name", pa.string()), ("value", pa.binary())])
    columns = {"offset": pa.int64(), "timestamp_ms": pa.int64(), "key": pa.binary(), "value": pa.binary()}
    return pa.schema({**columns, "headers": pa.list_(header)})


def _checkpoint_schema() -> Any:
    pa, _ = arrow()
    return pa.schema({"table": pa.string(), "key": pa.binary(), "value": pa.binary()})


@contextmanager
def _readable(name: str, what: str) -> Iterator[None]:
    """Report whatever a foreign file does to its reader as a finding."""
    pa, _ = arrow()
    try:
        yield
    except (pa.ArrowException, AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        msg = f"{name} is not a file of {what}: {why}"
        raise VerificationMismatch(msg) from error


def _table(path: Path, schema: Any, rows: int | None = None) -> Any:
    """Return the rows of a file of a schema. Raises: ValueError if it has other columns, other rows or too many bytes.

    The sizes in a file's metadata may be wrong, so the bytes are counted while they are unpacked.
    """
    pa, parquet = arrow()
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        if not file.schema_arrow.equals(schema):
            msg = f"its columns must be {', '.join(schema.names)}, were {', '.join(file.schema_arrow.names)[:200]}"
            raise ValueError(msg)
        if rows is not None and file.metadata.num_rows != rows:
            msg = f"it must have {rows} rows, has {file.metadata.num_rows}"
            raise ValueError(msg)
        batches, size = [], 0
        for batch in file.iter_batches(ROWS_AT_ONCE):
            batches.append(batch)
            size += batch.nbytes
            if size > BYTES_MAX:
                msg = f"it unpacks to more than {BYTES_MAX:,} bytes"
                raise ValueError(msg)
        return pa.Table.from_batches(batches, file.schema_arrow)


def _parquet(table: Any) -> bytes:
    pa, parquet = arrow()
    if table.nbytes > BYTES_MAX:
        msg = f"a file of an archive must have at most {BYTES_MAX:,} bytes, has {table.nbytes:,}: use smaller --entries"
        raise SizingError(msg)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", compression_level=LEVEL, write_page_checksum=True)
    found: bytes = sink.getvalue().to_pybytes()
    return found
