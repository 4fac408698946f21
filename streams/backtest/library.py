"""`himari.backtest`: a backtest in one call."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.load import load
from streams.backtest.execute import execute
from streams.backtest.request import NEVER_NS, Request
from streams.backtest.result import Result
from streams.backtest.sources import OnBar
from streams.history import candles
from streams.history.candles import Candles

FilePath = str | Path


def backtest(
    files: FilePath | Sequence[FilePath],
    *,
    signals: FilePath | Iterable[Mapping[str, Any]] | None = None,
    strategy: str | OnBar | Sequence[str | OnBar] = (),
    config: FilePath | None = None,
    settings: Mapping[str, Any] | None = None,
    since: str | int = 0,
    until: str | int = NEVER_NS,
    fee: float | None = None,
    slippage: float | None = None,
    delay_s: float = 0.0,
    funding: FilePath | None = None,
    archive: FilePath | None = None,
    symbol: str | None = None,
    tolerant: bool = False,
    check: bool = True,
    trials: int = 1,
    ablation: bool = False,
) -> Result:
    """Play candles and signals through the sizing of a worker; return what it would have held and earned.

    Args:
        files: candle files, one or more for each symbol.
        signals: a file of signals (JSON lines, CSV, Parquet), or mappings with their fields.
        strategy: instead of `signals`: names of built-in strategies, "package.module:function", or a function
            `on_bar(history) -> signals`. Neither: all built-in strategies.
        config: settings file.
        settings: settings by dotted key, which win over the file.
        since: time of the first signal, ISO 8601 (UTC) or ns since 1970; earlier candles warm up.
        until: end of the last candle.
        fee: what the broker takes of a side, as a ratio; None: what the settings assume.
        slippage: by how much fills are worse than the open, likewise.
        delay_s: seconds from a decision to the earliest fill.
        funding: CSV file of funding rates.
        archive: new or empty folder for the journal, which `himari audit verify --archive` proves.
        symbol: symbol of all files; None: from the files.
        tolerant: skip invalid rows of candles and signals instead of refusing the file.
        check: run the first half once more alone, to show that nothing looks ahead.
        trials: variants that were tried, this one included.
        ablation: run once more without each stage of sizing, to see what it earned or cost.

    Raises:
        InvalidSignalException, InvalidPriceException, ConfigurationException: place, rule and value.
    """
    request = Request(
        _market(files, symbol, tolerant=tolerant),
        load(config, None, settings).settings,
        Path(signals) if isinstance(signals, str | Path) else signals,
        [strategy] if isinstance(strategy, str) or callable(strategy) else list(strategy),
        _time_ns(since),
        _time_ns(until),
        fee,
        slippage,
        delay_s,
        None if funding is None else Path(funding),
        tolerant,
    )
    folder = None if archive is None else Path(archive)
    return execute(request, archive=folder, check=check, trials=trials, ablation=ablation)


def _market(files: FilePath | Sequence[FilePath], symbol: str | None, *, tolerant: bool) -> list[Candles]:
    paths = [files] if isinstance(files, str | Path) else list(files)
    return candles.joined([(path, candles.read(path, symbol, tolerant=tolerant)) for path in paths])


def _time_ns(at: str | int) -> int:
    """Return a time in ns since 1970."""
    if isinstance(at, int):
        return at
    moment = datetime.fromisoformat(at)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
