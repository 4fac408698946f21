"""`himari export`: write strategy weights or decisions as a table."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import NamedTuple

import click

from schemas.errors import NotFound
from streams.cli.common import common, connection, loaded, names
from streams.cli.terminal import say, say_json
from streams.cli.timestamp import INSTANT
from streams.kafka.allocations import Stream, allocations
from streams.reports.export import DECISIONS, WEIGHTS, ExportRow, ExportTable, Write, csv_file, csv_text, parquet_file

TABLES = {"weights": WEIGHTS, "decisions": DECISIONS}
BATCH_ROWS = 10_000
STDOUT = "-"
NEVER_NS = 2**63


class Wanted(NamedTuple):
    """The selection to export."""

    table: ExportTable
    portfolio: str | None
    since_ns: int
    """Inclusive."""
    until_ns: int
    """Exclusive."""


class Exported(NamedTuple):
    """Counts of a finished export."""

    rows: int
    allocations: int
    without_rows: int
    """Allocations without rows. For weights: those scaled by ratio, or decided before weights existed."""


@click.command()
@click.argument("what", type=click.Choice(sorted(TABLES)))
@click.option("--csv", "csv_path", metavar="FILE", help="Write CSV; - is stdout (default).")
@click.option("--parquet", "parquet_path", metavar="FILE", help="Write Parquet (needs the extra 'parquet').")
@click.option("--portfolio", help="Export only this portfolio.")
@click.option(
    "--from", "since", type=INSTANT, default=0, help="Start time, inclusive: ISO 8601 (UTC), or ns since 1970."
)
@click.option("--to", "until", type=INSTANT, default=NEVER_NS, help="End time, exclusive.")
@click.option("--json", "as_json", is_flag=True, help="Print a report as one JSON object on stdout; needs a file.")
@common
def export(
    what: str,
    csv_path: str | None,
    parquet_path: str | None,
    portfolio: str | None,
    since: int,
    until: int,
    config: str | None,
    bootstrap: str | None,
    *,
    as_json: bool,
) -> None:
    """Export strategy weights (one row per strategy and symbol) or decisions (one row per symbol) as a table."""
    if csv_path and parquet_path:
        raise click.UsageError("--csv and --parquet exclude each other")
    path = parquet_path or csv_path or STDOUT
    if as_json and path == STDOUT:
        raise click.UsageError("--json reports on stdout, so the table needs a file: --csv FILE or --parquet FILE")
    settings = loaded(config, bootstrap).settings
    wanted = Wanted(TABLES[what], portfolio, since, until)
    with _opened(path, wanted.table, parquet=parquet_path is not None) as write:
        stream = allocations(connection(settings), names(settings), portfolio, since)
        found = asyncio.run(_export(stream, wanted, write))
    if as_json:
        say_json({**found._asdict(), "file": path})
    else:
        say(_summary(found, what, path), err=True)


@contextmanager
def _opened(path: str, table: ExportTable, *, parquet: bool) -> Iterator[Write]:
    if parquet:
        with parquet_file(Path(path), table.record) as write:
            yield write
    elif path == STDOUT:
        yield csv_text(sys.stdout, table.record)
    else:
        with csv_file(Path(path), table.record) as write:
            yield write


async def _export(found: Stream, wanted: Wanted, write: Write) -> Exported:
    """Write the rows of the selected allocations in batches.

    Raises:
        NotFound: the named portfolio has no allocation.
    """
    rows: list[ExportRow] = []
    seen = count = written = empty = 0
    async with aclosing(found):
        async for fields in found:
            seen += 1
            if not wanted.since_ns <= fields["timestamp_ns"] < wanted.until_ns:
                continue
            own = wanted.table.rows(fields)
            count, empty = count + 1, empty + (not own)
            rows += own
            if len(rows) >= BATCH_ROWS:
                write(rows)
                written, rows = written + len(rows), []
    if wanted.portfolio is not None and not seen and not wanted.since_ns:
        msg = f"portfolio {wanted.portfolio} has no allocation"
        raise NotFound(msg)
    write(rows)
    return Exported(written + len(rows), count, empty)


def _summary(found: Exported, what: str, path: str) -> str:
    line = f"{found.rows} rows of {found.allocations} allocations"
    if path != STDOUT:
        line = f"{line} in {path}"
    if found.without_rows:
        line = f"{line}; {found.without_rows} have no {what}: nothing held, scaled by ratio, or of decision version 1"
    return line
