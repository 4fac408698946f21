"""`himari backtest`: yesterday's market through today's sizing."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from schemas.errors import ConfigurationException
from streams.audits.pool import calm
from streams.backtest.execute import execute
from streams.backtest.page import number, percent, share, usd
from streams.backtest.request import NEVER_NS, Request
from streams.cli.candle_files import FILE, market, symbol_option
from streams.cli.common import loaded
from streams.cli.progress import progress_bar
from streams.cli.terminal import say, say_all, say_json
from streams.cli.timestamp import INSTANT

OUTPUT = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option("--signals", type=FILE, help="Signals as JSON lines, CSV or Parquet, instead of strategies.")
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    metavar="NAME|MODULE:FUNCTION",
    help="momentum, mean-reversion, or a function on_bar(history) -> signals; repeat it for several. Default: both.",
)
@symbol_option
@click.option("--config", type=click.Path(dir_okay=False), help="Settings file (YAML).")
@click.option("--from", "since", type=INSTANT, default=0, help="First signal: ISO 8601 (UTC); earlier candles warm up.")
@click.option("--to", "until", type=INSTANT, default=NEVER_NS, help="End of the last candle.")
@click.option("--fee", type=float, help="Fee of one side, a ratio (default: position_sizing.costs).")
@click.option("--slippage", type=float, help="How much worse than the open fills are, a ratio (default: likewise).")
@click.option("--delay", type=float, default=0.0, metavar="S", help="Seconds from a decision to the earliest fill.")
@click.option("--funding", type=FILE, help="CSV file of funding rates, which positions pay.")
@click.option("--trials", type=click.IntRange(1), default=1, show_default=True, help="Variants tried, this included.")
@click.option("--ablation", is_flag=True, help="Run once more without each stage, to see what it earned or cost.")
@click.option("--tolerant", is_flag=True, help="Skip invalid rows; each is counted and reported.")
@click.option("--no-check", is_flag=True, help="Do not run the first half again to show that nothing looks ahead.")
@click.option("--report", type=OUTPUT, metavar="FILE.html", help="Write a self-contained page.")
@click.option("--archive", type=click.Path(path_type=Path), metavar="DIR", help="Leave the journal in a new folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def backtest(
    files: tuple[Path, ...],
    signals: Path | None,
    strategies: tuple[str, ...],
    symbols: tuple[str, ...],
    config: str | None,
    since: int,
    until: int,
    fee: float | None,
    slippage: float | None,
    delay: float,
    funding: Path | None,
    trials: int,
    report: Path | None,
    archive: Path | None,
    *,
    ablation: bool,
    tolerant: bool,
    no_check: bool,
    as_json: bool,
) -> None:
    """Size signals on candles of the past as a worker would have, and report what came of it.

    No broker is needed. The journal that --archive leaves is proved by `himari audit verify --archive DIR`.
    """
    settings = loaded(config).settings
    if report is not None and not report.parent.is_dir():
        raise ConfigurationException(str(report), "", "must lie in an existing folder")
    read = market(files, symbols, tolerant=tolerant)
    request = Request(read, settings, signals, strategies, since, until, fee, slippage, delay, funding, tolerant)
    calm()
    with progress_bar("backtest", shown=not as_json) as bar:
        result = execute(
            request,
            archive=archive,
            check=not no_check,
            trials=trials,
            ablation=ablation,
            on_total=bar.start,
            on_progress=bar.advance,
        )
    if report is not None:
        result.write_report(report)
        say(f"himari: report in {report}", err=True)
    if as_json:
        say_json(result.figures)
    else:
        say_all(lines(result.figures))


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the summary for a terminal."""
    period, found, signals = figures["period"], figures["result"], figures["signals"]
    yield (
        f"{period['from'][:16]} to {period['to'][:16]} UTC, {period['bars']} candles, {signals['sent']} signals, "
        f"{figures['journal']['allocations']} allocations, {found['trades']} trades"
    )
    yield f"value {usd(found['initial_usd'])} to {usd(found['final_usd'])} USD, costs {usd(found['costs_usd'])} USD"
    width = max(len(each["name"]) for each in figures["compared"])
    head = f"{'sizing':<{width}}  {'return':>9}  {'drawdown':>8}  {'Sharpe':>7}  {'turnover':>8}"
    yield head
    for each in figures["compared"]:
        yield (
            f"{each['name']:<{width}}  {percent(each['return']):>9}  {share(each['max_drawdown']):>8}  "
            f"{number(each['sharpe_a_year']):>7}  {number(each['turnover'], 1):>8}"
        )
    for each in figures["stages"] or ():
        interval = "" if each["interval"] is None else f", 95 % {_span(each['interval'])}"
        yield f"{each['stage']} added {percent(each['gain'], 2)}{interval}"
    yield f"at twice the costs {percent(found['at_twice_the_costs']['return'])}"
    yield from figures["verdicts"]
    ahead = figures["look_ahead"]
    if ahead["checked"]:
        first = f"the first {ahead['allocations']} allocations"
        yield f"no look-ahead: the candles until {ahead['until'][:16]} alone give {first}, byte for byte"
    for text in figures["remarks"]:
        yield f"note: {text}"
    if figures["journal"]["archive_head"]:
        yield f"archived; head {figures['journal']['archive_head']}"


def _span(interval: list[float]) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}"
