"""Export of strategy weights and decisions as CSV or Parquet.

The fields of a record are the columns. A file is written under a temporary name and renamed when complete.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, get_type_hints

from schemas.errors import ConfigurationException, SizingError
from streams.processing.private_files import fresh_file, replace
from streams.reports.weight_history import WeightRecord, instant, of_allocation

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Prefixes that make a spreadsheet treat a text as a formula. Source: OWASP, CSV injection."""
NO_PYARROW: Final = "--parquet needs pyarrow; install it with: pip install 'himari-layer3[parquet]'"

ExportRow = tuple[Any, ...]
Write = Callable[[Sequence[ExportRow]], None]
"""Writes the next rows of a file."""


class DecisionRecord(NamedTuple):
    """One symbol of one decision; a decision without targets is one row without a symbol."""

    timestamp_ns: int
    timestamp_iso: str
    decision_id: str
    portfolio_id: str
    sequence: int
    symbol: str | None
    notional_usd: float | None
    weight: float | None
    quantity: float | None
    trigger_kind: str
    trigger_id: str
    bound: str
    """Caps that bound, as level:name, separated by semicolons."""
    gross_usd: float
    net_usd: float
    utilization_pct: float
    """Gross over portfolio value, a ratio despite its name, which is the allocation's."""


class ExportTable(NamedTuple):
    """A table that can be exported."""

    record: type[Any]
    """NamedTuple; its fields are the columns."""
    rows: Callable[[Mapping[str, Any]], Sequence[ExportRow]]
    """Returns the rows of an allocation."""


NOTHING: Final = {"notional_usd": None, "weight": None, "quantity": None}


def decisions_of(fields: Mapping[str, Any]) -> list[DecisionRecord]:
    """Return an allocation's rows, by symbol."""
    totals, trigger, targets = fields["totals"], fields["trigger"], fields["targets"]
    return [
        DecisionRecord(
            fields["timestamp_ns"],
            instant(fields["timestamp_ns"]),
            fields["decision_id"],
            fields["portfolio_id"],
            fields["sequence"],
            symbol,
            target["notional_usd"],
            target["weight"],
            target["quantity"],
            trigger["kind"],
            trigger["id"],
            ";".join(fields["bound"]),
            totals["gross_usd"],
            totals["net_usd"],
            totals["utilization_ratio"],
        )
        for symbol, target in sorted(targets.items()) or ((None, NOTHING),)
    ]


WEIGHTS: Final = ExportTable(WeightRecord, of_allocation)
DECISIONS: Final = ExportTable(DecisionRecord, decisions_of)


def export_weight_history(path: str | os.PathLike[str], records: Iterable[WeightRecord]) -> int:
    """Write weight records as CSV; return the number of rows."""
    rows = list(records)
    with csv_file(Path(path), WeightRecord) as write:
        write(rows)
    return len(rows)


# -- CSV ---------------------------------------------------------------------------------------------------------------
@contextmanager
def csv_file(path: Path, record: type[Any]) -> Iterator[Write]:
    """Open a CSV file and write its header; yield a function that writes rows."""
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield csv_text(file, record)


def csv_text(file: IO[str], record: type[Any]) -> Write:
    """Write the header; return a function that writes rows. Texts that look like formulas are escaped."""
    writer = csv.writer(file)  # CR LF, as in RFC 4180: with LF alone, a CR inside a text would stay unquoted
    writer.writerow(record._fields)

    def write(rows: Sequence[ExportRow]) -> None:
        writer.writerows([defused(cell) for cell in row] for row in rows)

    return write


def defused(cell: Any) -> Any:
    """Return a cell that no spreadsheet evaluates: a text that looks like a formula is prefixed by an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


# -- Parquet -----------------------------------------------------------------------------------------------------------
@contextmanager
def parquet_file(path: Path, record: type[Any]) -> Iterator[Write]:
    """Open a Parquet file; yield a function that writes rows, one row group per call. Texts are not escaped.

    Raises:
        SizingError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 optional and slow to import
        from pyarrow import parquet  # noqa: PLC0415 likewise
    except ImportError as error:
        raise SizingError(NO_PYARROW) from error
    schema = pa.schema([(name, _kind(pa, hint)) for name, hint in get_type_hints(record).items()])

    with whole(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:

        def write(rows: Sequence[ExportRow]) -> None:
            if rows:
                named = dict(zip(schema.names, zip(*rows, strict=True), strict=True))
                writer.write_table(pa.table(named, schema=schema))

        yield write


def _kind(pa: Any, hint: Any) -> Any:
    """Return the Parquet type of a column; every column is nullable."""
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    return next(kind for python, kind in kinds.items() if hint in {python, python | None})


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to `path`, for its owner alone; on success rename it, on failure delete it.

    Raises:
        ConfigurationException: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh_file(temporary)
        yield temporary
        replace(temporary, path)
    except OSError as error:
        raise ConfigurationException(str(path), "", f"cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # if the file could not be written, there may be nothing to delete
            temporary.unlink(missing_ok=True)
