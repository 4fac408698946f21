"""`himari export`: weights and decisions as tables."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import orjson

from schemas.errors import NotFound
from streams.cli.common import common, connection, loaded, names
from streams.cli.timestamp import INSTANT
from streams.kafka.allocations import Stream, allocations
from streams.reports.export import DECISIONS, WEIGHTS, ExportRow, ExportTable, Write, csv_file, csv_text, parquet_file

TABLES = {"weights": WEIGHTS, "decisions": DECISIONS}
BATCH_ROWS = 10_000
STDOUT = "-"
NEVER_NS = 2**63


class Wanted(NamedTuple):
    """What is to be exported."""

    table: ExportTable
    portfolio: str | None
    since_ns: int
    """The first instant that counts."""
    until_ns: int
    """The first one that does not."""


class Exported(NamedTuple):
    """What was."""

    rows: int
    allocations: int
    without_rows: int
    """Allocations that gave none: for weights, those decided by ratio, or before there were weights."""


@click.command()
@click.argument("what", type=click.Choice(sorted(TABLES)))
@click.option("--csv", "csv_path", metavar="FILE", help="Write CSV; - is stdout, which is also the default.")
@click.option("--parquet", "parquet_path", metavar="FILE", help="Write Parquet (needs the extra 'parquet').")
@click.option("--portfolio", help="Only this portfolio.")
@click.option("--from", "since", type=INSTANT, default=0, help="From this time on: ISO 8601 (UTC), or ns since 1970.")
@click.option("--to", "until", type=INSTANT, default=NEVER_NS, help="Before this time.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object on stdout; needs a file.")
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
    """Write the strategies' weights, or the decisions, as a table: one row a cell, or a symbol, of each allocation."""
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
        sys.stdout.write(orjson.dumps({**found._asdict(), "file": path}).decode() + "\n")
    else:
        click.echo(_told(found, what, path), err=True)


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
    """Write the rows of the allocations that are wanted, in batches.

    Raises:
        NotFound: the portfolio that was named has no allocation at all.
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


def _told(found: Exported, what: str, path: str) -> str:
    line = f"{found.rows} rows of {found.allocations} allocations"
    if path != STDOUT:
        line = f"{line} in {path}"
    if found.without_rows:
        line = f"{line}; {found.without_rows} have no {what}: nothing held, decided by ratio, or of decision version 1"
    return line
