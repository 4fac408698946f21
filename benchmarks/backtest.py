"""Backtests on real candles: how fast, and what sizing is worth where an edge is planted: `-m benchmarks.backtest`

    python -m benchmarks.backtest --speed                   # four coins, two strategies each: time and memory
    python -m benchmarks.backtest --minutes 525600          # one coin in minutes, without signals
    python -m benchmarks.backtest --planted --seeds 10      # a real, no and a harmful edge on each of four coins

The claims are those of the value test (`value_course.py`): one each 12 hours, for the next 12, of .12 volatilities. The
candles lie in `../shared/data` beside the project; without them only --minutes runs.
"""

import argparse
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any

import numpy as np

from benchmarks.value_course import CLAIM, CONFIDENCE, PERIOD
from benchmarks.value_course import candles as read_course
from benchmarks.value_course import claims as made_claims
from config.settings import Settings
from streams.audits.pool import calm
from streams.backtest.execute import execute
from streams.backtest.request import Request
from streams.history import candles
from streams.history.candles import Candle, CandleFile, Candles

DATA = Path(__file__).parents[2] / "shared" / "data"
COINS = ("BTC", "ETH", "BNB", "ADA")
EDGES = ("honest", "noise", "harmful")
START_NS = 1_600_000_000_000_000_000
MINUTE_NS = 60_000_000_000

Figures = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backtest", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--speed", action="store_true", help="four coins, hourly, two strategies each")
    parser.add_argument("--minutes", type=int, metavar="N", help="one coin, N minute candles, no signals")
    parser.add_argument("--planted", action="store_true", help="planted edges against three simple sizings")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of --planted (default: 10)")
    parser.add_argument("--coins", nargs="+", choices=COINS, default=COINS, help="coins of --planted")
    parser.add_argument("--hours", type=int, default=0, help="only the first so many hours (default: all)")
    asked = parser.parse_args(arguments)
    if asked.minutes:
        print(timed([walk(asked.minutes)], [still(asked.minutes)]))
    if (asked.speed or asked.planted) and not DATA.is_dir():
        raise SystemExit("SKIPPED, nothing was measured: no candles in ../shared/data beside the project")
    if asked.speed:
        print(timed([real(coin, asked.hours) for coin in COINS]))
    if asked.planted:
        print(planted_table(asked.coins, asked.seeds, asked.hours))


def real(coin: str, hours: int = 0) -> Candles:
    """Return a coin's candles, all or the first so many."""
    found = candles.read(DATA / f"{coin}USDT_1h_2020-08_2022-06.csv.gz")
    return found._replace(rows=found.rows[: hours or None])


# -- speed -------------------------------------------------------------------------------------------------------------
def timed(market: list[Candles], signals: list[dict[str, Any]] | None = None) -> str:
    """Return what a backtest took, in a process that has done nothing else."""
    calm()
    began = process_time()
    figures = execute(Request(market, Settings(), signals=signals), check=False).figures
    took = process_time() - began
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)
    bars, signal_count = figures["period"]["bars"], figures["signals"]["sent"]
    return f"{len(market)} symbols, {bars} candles, {signal_count} signals: {took:.1f} s of processor, {peak_mb:.0f} MB"


def walk(minutes: int) -> Candles:
    """Return a random walk in minutes."""
    closes = 100.0 * np.exp(np.cumsum(np.random.default_rng(1).normal(0.0, 0.001, minutes + 1)))
    pairs = zip(closes[:-1].tolist(), closes[1:].tolist(), strict=True)
    rows = [Candle(START_NS + n * MINUTE_NS, a, max(a, b), min(a, b), b, 10.0) for n, (a, b) in enumerate(pairs)]
    return Candles("BTC-USD", 60, rows, CandleFile(len(rows), 0, 0))


def still(minutes: int) -> dict[str, Any]:
    """Return the one signal that a backtest must have: a HOLD."""
    return {
        "strategy_id": "still",
        "symbol": "BTC-USD",
        "action": "hold",
        "confidence": 0.0,
        "risk_score": 0.0,
        "regime": "ranging",
        "timestamp_ns": START_NS + minutes // 2 * MINUTE_NS,
    }


# -- planted edges -----------------------------------------------------------------------------------------------------
def signals_of(coin: str, name: str, seed: int, symbol: str, last_ns: int) -> list[dict[str, Any]]:
    """Return the claims of a strategy of the value test as signals."""
    of = read_course(DATA, coin)
    made = made_claims(of, name, seed, np.random.default_rng([seed, EDGES.index(name), *coin.encode()]))
    return [
        {
            "strategy_id": name,
            "symbol": symbol,
            "action": "buy" if side > 0 else "sell",
            "confidence": CONFIDENCE,
            "risk_score": 0.0,
            "regime": "ranging",
            "timestamp_ns": int(of.end_ns[hour]),
            "horizon_s": PERIOD * 3600.0,
            "expected_return": CLAIM * volatility / CONFIDENCE,
            "predicted_volatility": volatility,
        }
        for hour, side, volatility in zip(made.hour.tolist(), made.side.tolist(), made.volatility.tolist(), strict=True)
        if of.end_ns[hour] <= last_ns
    ]


def one(job: tuple[str, str, int, int]) -> list[Figures]:
    """Return the compared sizings of one coin, edge and seed."""
    coin, name, seed, hours = job
    market = real(coin, hours)
    signals = signals_of(coin, name, seed, market.symbol, market.end_ns(market.rows[-1]))
    found: list[Figures] = execute(Request([market], Settings(), signals=signals), check=False).figures["compared"]
    return found


def planted_table(coins: Sequence[str], seeds: int, hours: int) -> str:
    """Return return (sd) / drawdown in % · turnover by coin and edge, for each sizing."""
    jobs = [(coin, name, seed, hours) for coin in coins for name in EDGES for seed in range(seeds)]
    with ProcessPoolExecutor(2) as pool:
        results = dict(zip(jobs, pool.map(one, jobs), strict=True))
    names = [each["name"] for each in next(iter(results.values()))]
    lines = [["coin, edge", *names], ["---"] * (1 + len(names))]
    for coin in coins:
        for name in EDGES:
            runs = [results[coin, name, seed, hours] for seed in range(seeds)]
            lines.append([f"{coin} {name}", *(_cell([run[place] for run in runs]) for place in range(len(names)))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(runs: Sequence[Figures]) -> str:
    gains = [100 * each["return"] for each in runs]
    spread = f" ({stdev(gains):.1f})" if len(gains) > 1 else ""
    fall, turned = 100 * mean(each["max_drawdown"] for each in runs), mean(each["turnover"] for each in runs)
    return f"{mean(gains):+.1f}{spread} / {fall:.1f} · {turned:.0f}"


if __name__ == "__main__":
    main()
