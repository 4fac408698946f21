"""Candle files on the command line: read, combined by symbol, and reported on stderr before anything starts."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from streams.cli.terminal import say
from streams.history import candles
from streams.history.candle_row import SECOND_NS
from streams.history.candles import Candles
from streams.history.file_names import ID

ROWS_NAMED = 50
"""Number of skipped rows that are reported one by one; --json reports all of them."""
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def symbol_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Accept --symbol."""
    text = "Symbol of the candle files: once for all, or once per file in their order. Default: column or file name."
    return click.option("--symbol", "symbols", multiple=True, help=text)(command)


def market(files: tuple[Path, ...], symbols: tuple[str, ...], *, tolerant: bool) -> list[Candles]:
    """Return the candles of files by symbol, and report on stderr what was found, before anything starts.

    Raises:
        SizingError: a file is invalid, or two files of one symbol contradict each other.
    """
    if len(symbols) not in {0, 1, len(files)}:
        raise click.BadOptionUsage("symbol", f"--symbol must be given once, or once per file ({len(files)})")
    for symbol in symbols:
        if not ID.fullmatch(symbol):
            raise click.BadOptionUsage("symbol", f"--symbol must match {ID.pattern}, was {symbol!r}")
    named = symbols * len(files) if len(symbols) == 1 else symbols or (None,) * len(files)
    read = [(path, candles.read(path, symbol, tolerant=tolerant)) for path, symbol in zip(files, named, strict=True)]
    for path, each in read:
        for line in _found(path, each):
            say(f"himari: {line}", err=True)
    joined = candles.joined(read)
    for each in joined:
        paths = [path for path, one in read if one.symbol == each.symbol]
        if len(paths) > 1:
            doubled = f"{each.found.doubled} duplicate rows, {each.found.gaps} gaps"
            say(f"himari: {each.symbol}: {len(paths)} files joined, {each.found.rows} candles, {doubled}", err=True)
    return joined


def _found(path: Path, each: Candles) -> Iterator[str]:
    """Yield a summary of a file, and the rows that were skipped."""
    first, last = (datetime.fromtimestamp(row.open_ns // SECOND_NS, UTC) for row in (each.rows[0], each.rows[-1]))
    span = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    yield f"{each.symbol} from {path}: {each.found.rows} candles of {each.width_s} s, {span}"
    for text in each.skipped[:ROWS_NAMED]:
        yield f"skipped: {text}"
    if each.skipped:
        yield f"{path}: {len(each.skipped)} invalid rows skipped"
