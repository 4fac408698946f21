"""Tables for people and their spreadsheets: the strategies' weights and the decisions, as CSV or Parquet.

The fields of a record are the columns. A file is written beside its place and moved there when it is whole.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, get_type_hints

from schemas.errors import ConfigurationException, SizingError
from streams.reports.weight_history import WeightRecord, instant, of_allocation

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet take a text for a formula. Source: OWASP, CSV injection."""
NO_PYARROW: Final = "--parquet needs pyarrow, which the extra 'parquet' brings: pip install 'himari-layer3[parquet]'"

ExportRow = tuple[Any, ...]
Write = Callable[[Sequence[ExportRow]], None]
"""Takes the next rows of a file."""


class DecisionRecord(NamedTuple):
    """One symbol of one decision; a decision that holds nothing is one row without a symbol."""

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
    """Caps that bound, as level:name, parted by semicolons."""
    gross_usd: float
    net_usd: float
    utilization_pct: float
    """Gross over value, a ratio: the allocation's own name for it."""


class ExportTable(NamedTuple):
    """What can be exported."""

    record: type[Any]
    """NamedTuple whose fields are the columns."""
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
    """Write weight records as CSV; return how many rows."""
    rows = list(records)
    with csv_file(Path(path), WeightRecord) as write:
        write(rows)
    return len(rows)


# -- CSV ---------------------------------------------------------------------------------------------------------------
@contextmanager
def csv_file(path: Path, record: type[Any]) -> Iterator[Write]:
    """Open a CSV file with its header; give what writes rows into it."""
    with whole(path) as place, place.open("w", encoding="utf-8", newline="") as file:
        yield csv_text(file, record)


def csv_text(file: IO[str], record: type[Any]) -> Write:
    """Write the header; return what writes rows after it. Texts that a spreadsheet would run are defused."""
    writer = csv.writer(file)  # with CR LF, as RFC 4180 has it: told LF alone, it leaves a CR in a text unquoted
    writer.writerow(record._fields)

    def write(rows: Sequence[ExportRow]) -> None:
        writer.writerows([defused(cell) for cell in row] for row in rows)

    return write


def defused(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs: a text that would be a formula gets an apostrophe before it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


# -- Parquet -----------------------------------------------------------------------------------------------------------
@contextmanager
def parquet_file(path: Path, record: type[Any]) -> Iterator[Write]:
    """Open a Parquet file; give what writes rows into it, one row group a call. Texts stand as they are.

    Raises:
        SizingError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 an optional extra, and slow to load
        from pyarrow import parquet  # noqa: PLC0415 likewise
    except ImportError as error:
        raise SizingError(NO_PYARROW) from error
    schema = pa.schema([(name, _kind(pa, hint)) for name, hint in get_type_hints(record).items()])

    with whole(path) as place, parquet.ParquetWriter(place, schema) as writer:

        def write(rows: Sequence[ExportRow]) -> None:
            if rows:
                named = dict(zip(schema.names, zip(*rows, strict=True), strict=True))
                writer.write_table(pa.table(named, schema=schema))

        yield write


def _kind(pa: Any, hint: Any) -> Any:
    """Return the Parquet type of a column; every column may hold null."""
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    return next(kind for python, kind in kinds.items() if hint in {python, python | None})


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a place beside `path`; move what was written there to `path`, or delete it where writing failed.

    Raises:
        ConfigurationException: no file can be written there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise ConfigurationException(
            str(path), "", f"must be a file that can be written: {error.strerror or error}"
        ) from error
    finally:
        with suppress(OSError):  # where nothing could be written, nothing is to be deleted
            beside.unlink(missing_ok=True)
