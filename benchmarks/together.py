"""Decisions of many strategies on many symbols, warm, and the fold of 1,000 portfolios with 50 symbols each."""

import statistics
import tracemalloc
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rig import START_NS, prices, ratios, spread
from engines.parameters import DecisionParams
from engines.pipeline.decide import Trigger, decide
from streams.journal import entries as journal
from streams.journal.genesis import genesis, new_journal_id
from streams.library.phases import Layer3Phase2Portfolio
from streams.processing.memory_cluster import Stored
from streams.stages.sizing import SizingFold

SECOND_NS, HOUR_NS = 10**9, 3_600 * 10**9
WARM_BARS = 60


class Size(NamedTuple):
    """Size of a decision, and its target."""

    strategies: int
    symbols: int
    signals: int
    target_us: float


SIZES = (Size(2, 2, 3, 80.0), Size(20, 10, 50, 400.0), Size(1, 200, 200, 4_000.0))


class Book:
    """A library portfolio with warmed-up correlations."""

    def __init__(self, size: Size) -> None:
        self.rng = np.random.default_rng(1)
        cells = [(j, i) for j in range(size.strategies) for i in range(size.symbols)]
        chosen = self.rng.permutation(len(cells))[: size.signals]
        self.cells = [(f"s{cells[k][0]:02d}", f"C{cells[k][1]:03d}-USD") for k in chosen.tolist()]
        self.prices = {f"C{i:03d}-USD": 100.0 + i for i in range(size.symbols)}
        self.layer3 = Layer3Phase2Portfolio(portfolio_value=1_000_000, enable_metrics=False)
        self.now_ns = START_NS
        for _ in range(WARM_BARS):
            self.now_ns += HOUR_NS
            shared = self.rng.normal(0.0, 0.01)
            own = self.rng.normal(0.0, 0.01, size.symbols).tolist()
            returns = {symbol: shared + each for symbol, each in zip(self.prices, own, strict=True)}
            self.layer3.update_correlations(returns, self.now_ns)
        self.call()

    def signals(self) -> list[dict[str, Any]]:
        """Return one signal of each cell, a third of them short."""
        self.now_ns += SECOND_NS
        return [
            {
                "strategy_id": strategy,
                "symbol": symbol,
                "action": "buy" if number % 3 else "sell",
                "confidence": 0.6,
                "risk_score": 0.2,
                "regime": "ranging",
                "timestamp_ns": self.now_ns,
                "expected_return": 0.012 if number % 3 else -0.012,
                "predicted_volatility": 0.02,
            }
            for number, (strategy, symbol) in enumerate(self.cells)
        ]

    def call(self) -> int:
        """Size all signals in one call; return ns."""
        signals = self.signals()
        began = perf_counter_ns()
        self.layer3.process_multi_strategy_signals(signals, None, self.prices)
        return perf_counter_ns() - began

    def decision(self) -> int:
        """Run stages 1 to 14 on the current state; return ns."""
        state = self.layer3._core.state  # noqa: SLF001 (what is timed is inside)
        trigger = Trigger("signal", "bench", mode="full", cell=self.cells[0])
        began = perf_counter_ns()
        decide(state, "main", trigger)
        return perf_counter_ns() - began


def product_us(repeats: int = 101) -> float:
    """Return median µs of the yardstick, a 200 × 200 product."""
    one = np.random.default_rng(0).normal(size=(200, 200))
    return median_us(lambda: _timed(lambda: one @ one), repeats)


def portfolios(number: int, symbols: int, count: int) -> dict[str, float]:
    """Return folds/s over `number` portfolios with a cell on each symbol, and the memory per portfolio."""
    fold = SizingFold(0)
    fold.fold(Stored(0, None, genesis(new_journal_id(1), 1, DecisionParams(), START_NS)))
    names = [f"C{i:03d}-USD" for i in range(symbols)]
    fold.fold(Stored(1, None, prices(START_NS, names)))
    tracemalloc.start()
    offset = 2
    for value in _entries(number, names, 0, number * symbols):
        fold.fold(Stored(offset, None, value))
        offset += 1
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    values = list(_entries(number, names, number * symbols, count))
    began = perf_counter_ns()
    for value in values:
        fold.fold(Stored(offset, None, value))
        offset += 1
    seconds = (perf_counter_ns() - began) / SECOND_NS
    return {"folds_per_second": count / seconds, "kilobytes_a_portfolio": held / number / 1_000}


def _entries(portfolios: int, symbols: list[str], first: int, count: int) -> Iterator[bytes]:
    for number in range(first, first + count):
        symbol = symbols[number // portfolios % len(symbols)]
        value = {
            "signal_id": f"s-{number}",
            "portfolio_id": f"p{number % portfolios}",
            "strategy_id": "momentum",
            "symbol": symbol,
            "action": "buy" if number % 3 else "sell",
            "confidence": 0.6,
            "risk_score": 0.2,
            "regime": "ranging",
            "timestamp_ns": START_NS + number,
            "expected_return": 0.012 if number % 3 else -0.012,
            "predicted_volatility": 0.02,
            "valid_for_s": 86_400,
        }
        yield journal.internal("signal", value, START_NS + number)


def _timed(call: Callable[[], Any]) -> int:
    began = perf_counter_ns()
    call()
    return perf_counter_ns() - began


def median_us(once: Callable[[], int], repeats: int) -> float:
    return statistics.median(once() for _ in range(repeats)) / 1e3


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return µs per decision and per call by size, ratios to the yardstick, and the cost of many portfolios."""
    runs, repeats = (1, 5) if quick else (5, 61)
    report: dict[str, Any] = {}
    books = {size: Book(size) for size in SIZES}
    yardstick = [product_us() for _ in range(runs)]
    report["product_200_us"] = spread(yardstick)
    for size, book in books.items():
        decisions = [median_us(book.decision, repeats) for _ in range(runs)]
        calls = [median_us(book.call, repeats) for _ in range(runs)]
        report[f"{size.signals} signals on {size.symbols} symbols"] = {
            "decision_us": spread(decisions),
            "target_us": size.target_us,
            "decision_over_product": ratios(decisions, yardstick),
            "call_us": spread(calls),
        }
    few, many = ((50, 5, 500), (50, 5, 500)) if quick else ((1_000, 1, 5_000), (1_000, 50, 5_000))
    report["1,000 portfolios"] = {"1 symbol": portfolios(*few), "50 symbols": portfolios(*many)}
    return report
