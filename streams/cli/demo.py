"""`himari demo`: the whole pipeline on a simulated or historical market."""

import os
import sys
import webbrowser
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import uvloop

from schemas.errors import SizingError
from streams.audits.verify import Verdict
from streams.cli.audit import verdict_lines
from streams.cli.candle_files import FILE, symbol_option
from streams.cli.candle_files import market as candle_market
from streams.cli.common import policy_url
from streams.cli.terminal import say, say_all, say_json
from streams.demo.runner import Options, run
from streams.history.candles import Candles
from streams.worker.run import leave

DAYS = ("week_before", "on_the_day")


@click.command()
@click.option(
    "--seconds", type=click.IntRange(5, 3600), default=40, show_default=True, help="Length of the live run, in seconds."
)
@click.option(
    "--data",
    type=FILE,
    multiple=True,
    help="Candle file (.csv, .csv.gz, .json) to run instead of the simulated market; repeat it for several files.",
)
@symbol_option
@click.option("--tolerant", is_flag=True, help="Skip invalid rows of the candle files; each is counted and reported.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Seed of the simulated market.")
@click.option("--kafka", is_flag=True, help="Use Apache Kafka (needs Java 17) and run the worker as its own process.")
@click.option(
    "--rl",
    metavar="mock|URL",
    help="Ask a policy about each signal. A URL that ends in /predict gets plain JSON, any other one OIP v2.",
)
@click.option("--no-open", is_flag=True, help="Do not open the page in a browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.argument("more", nargs=-1, type=FILE)
def demo(
    seconds: int,
    data: tuple[Path, ...],
    symbols: tuple[str, ...],
    seed: int,
    more: tuple[Path, ...],
    *,
    tolerant: bool,
    kafka: bool,
    rl: str | None,
    no_open: bool,
    as_json: bool,
) -> None:
    """Run broker, worker and a market with signals in one command, then verify every allocation.

    Without --data the market is simulated. Further candle files may follow as arguments.
    """
    files = (*data, *more)
    if rl is not None and files:
        msg = "history is replayed faster than a policy can answer"
        raise click.BadOptionUsage("rl", f"--rl requires the simulated market: {msg}")
    if rl is not None and rl != "mock" and not rl.startswith(("http://", "https://")):
        raise click.BadOptionUsage("rl", f"--rl must be mock or a URL, was {rl!r}")
    if rl != "mock":
        policy_url("rl", rl)
    market = candle_market(files, symbols, tolerant=tolerant)
    options = Options(seconds, files, seed, kafka, as_json, rl, partial(_page, no_open=no_open or as_json))
    summary = uvloop.run(_run(options, market))
    if as_json:
        say_json(summary)
    else:
        _print(summary)
    audit = summary["audit"]
    if audit["mismatched"] or audit["chain_broken"]:
        click.get_current_context().exit(4)


def _page(url: str, *, no_open: bool) -> None:
    """Print the address of the page, and open it if somebody sits at the terminal."""
    say(f"himari: page {url}", err=True)
    if not no_open and sys.stderr.isatty() and _has_browser():
        webbrowser.open(url)


def _has_browser() -> bool:
    """Return whether a browser can have a window here; a text browser would take over the terminal."""
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


async def _run(options: Options, market: list[Candles]) -> dict[str, Any]:
    """Run the demo. On an error exit at once: threads of a failed worker would keep the process alive."""
    try:
        return await run(options, market)
    except SizingError as error:
        say(f"himari: {error}", err=True)
        leave(error.exit_code)


def _print(summary: dict[str, Any]) -> None:
    latency = summary["latency_ms"]
    say(f"{summary['signals']} signals on {', '.join(summary['symbols'])}; {summary['allocations']} allocations")
    if latency["p50"] is not None:
        quantiles = f"{latency['p50']} ms median, {latency['p99']} ms at the 99th percentile"
        say(f"signal to allocation: {quantiles} of {latency['count']} live signals")
    say(f"{summary['dead_letters']} dead letters, {summary['sequence_gaps']} sequence gaps")
    data = summary["data"]
    if data["rows"]:
        say(f"{data['rows']} candles, {data['gaps']} gaps, {data['doubled']} duplicate rows")
    if data["skipped"]:
        say(f"{data['skipped']} invalid rows skipped")
    for each in _worst(summary["cascade"]["levels"]):
        say(f"worst cascade of {each['symbol']}: {each['level']}, score {each['score']}, {each['time']}")
    ratio = summary["cascade"]["hours_above_monitor_ratio"]
    if ratio is not None and data["rows"]:
        say(f"{ratio:.2%} of hours above MONITOR")
    for line in _portfolio(summary["portfolio"], summary["correlation"]):
        say(line)
    if summary["policy"] is not None:
        say(_policy(summary["policy"]))
    say_all(verdict_lines(Verdict(**summary["audit"])))


def _portfolio(portfolio: dict[str, Any], correlation: dict[str, Any] | None) -> Iterator[str]:
    """Yield the lines about the portfolio, and about the day of the cascade."""
    yield f"strategies {', '.join(portfolio['strategies'])}; at most {portfolio['largest_gross_ratio']:.1%} in use"
    if portfolio["bound"]:
        levels = ", ".join(f"{level} {count}" for level, count in portfolio["bound"].items())
        yield f"allocations limited by a cap: {levels}; most often {portfolio['most_often']}"
    if portfolio["mean_diversification"] is not None:
        yield (
            f"mean diversification ratio {portfolio['mean_diversification']:.2f}; "
            f"the portfolio stage cut a symbol's size by at most {portfolio['largest_penalty']:.0%}"
        )
    if correlation is not None:
        before, on_the_day = ("unknown" if correlation[name] is None else f"{correlation[name]:.2f}" for name in DAYS)
        yield f"mean correlation on {correlation['day']}: {on_the_day}, in the week before: {before}"


def _policy(policy: dict[str, Any]) -> str:
    """Return how the questions were answered, and the mean advantage of the answers."""
    answers = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in policy["answers"].items())
    worth = "" if policy["advantage"] is None else f", {1e4 * policy['advantage']:+.2f} bp per decision"
    return (
        f"policy asked {policy['asked']} times: {answers}; mode {policy['mode']}, gate {policy['gate']}, "
        f"breaker {policy['breaker']}, {policy['scored']} scored{worth}"
    )


def _worst(levels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the highest-scored reading of each symbol."""
    worst: dict[str, dict[str, Any]] = {}
    for each in levels:
        if each["score"] > worst.get(each["symbol"], {"score": 0.0})["score"]:
            worst[each["symbol"]] = each
    return [worst[symbol] for symbol in sorted(worst)]
