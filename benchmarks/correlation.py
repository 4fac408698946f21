"""What correlations cost: medians in µs, beside a 200 × 200 float64 numpy product as a yardstick.

    python benchmarks/correlation.py

A bar of correlated symbols, all present (and, in brackets, a tenth missing), after 200 bars of warm-up.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from engines import correlation, moments
from engines.moments import Moments
from engines.parameters import CorrelationParams

PARAMS = CorrelationParams()
HOUR_NS = 3_600 * 10**9
WARMUP, BARS, CALLS = 200, 500, 200
BUDGETS_US = {10: 10.0, 50: 15.0, 200: 60.0}
"""Median microseconds that one bar may cost, by symbols."""


def main() -> None:
    product = np.random.RandomState(0).standard_normal((200, 200))
    print(f"200 x 200 product: {_median_us(lambda: product @ product, CALLS):.1f} us\n")
    print("symbols  observe (10 % missing)  budget      raw   shrunk   alerts  stressed  diversif.    parts   bytes")
    for n, budget in BUDGETS_US.items():
        print(_row(n, budget))


def _row(n: int, budget: float) -> str:
    state, full = _observed(n, missing=0.0)
    _, gaps = _observed(n, missing=0.1)
    matrix = correlation.raw(state, PARAMS)
    weights = np.full(n, 1.0 / n)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: correlation.raw(state, PARAMS),
        lambda: correlation.shrunk(state, PARAMS),
        lambda: correlation.alerts(state, matrix, PARAMS),
        lambda: correlation.stressed(matrix, 0.5),
        lambda: correlation.diversification(weights, weights, matrix),
        lambda: moments.to_parts(state),
    )
    times = [_median_us(call, CALLS) for call in calls]
    size = sum(len(part) for part in moments.to_parts(state).values())
    verdict = "" if full < budget else "  over"
    return (
        f"{n:7d} {full:8.1f}        ({gaps:6.1f}) {budget:7.0f} {times[0]:8.1f} {times[1]:8.1f} {times[2]:8.1f}"
        f" {times[3]:9.1f} {times[4]:10.1f} {times[5]:8.1f} {size:7d}{verdict}"
    )


def _observed(n: int, missing: float) -> tuple[Moments, float]:
    """Return moments after all bars and the median cost of one, in µs."""
    chance = np.random.RandomState(n)
    names = [f"COIN{i:03d}-USD" for i in range(n)]
    state, times = moments.begin(), []
    for k in range(WARMUP + BARS):
        row = 0.01 * (0.8 * chance.standard_normal() + 0.6 * chance.standard_normal(n))
        here = chance.uniform(size=n) >= missing
        returns = {name: r for name, r, there in zip(names, row.tolist(), here, strict=True) if there}
        start = perf_counter_ns()
        moments.observe(state, (k + 1) * HOUR_NS, returns, PARAMS)
        times.append(perf_counter_ns() - start)
    return state, median(times[WARMUP:]) / 1e3


def _median_us(call: Callable[[], Any], calls: int) -> float:
    call()
    times = []
    for _ in range(calls):
        start = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - start)
    return median(times) / 1e3


if __name__ == "__main__":
    main()
