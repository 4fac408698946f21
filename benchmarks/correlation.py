"""Cost of correlations: medians in µs, with a 200 × 200 float64 numpy product as yardstick.

A bar of correlated symbols, all present or a tenth missing, after 200 bars of warm-up.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

from engines.models import correlation, moments
from engines.models.moments import Moments
from engines.parameters import CorrelationParams

PARAMS = CorrelationParams()
HOUR_NS = 3_600 * 10**9
WARMUP, BARS, CALLS = 200, 500, 200
BUDGETS_US = {10: 10.0, 50: 15.0, 200: 60.0}
"""Number of symbols → allowed median µs per bar."""


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return medians in µs by number of symbols, with targets and the yardstick."""
    product = np.random.RandomState(0).standard_normal((200, 200))
    report: dict[str, Any] = {"product_200_us": _median_us(lambda: product @ product, CALLS)}
    for n, budget in list(BUDGETS_US.items())[: 1 if quick else None]:
        report[f"{n} symbols"] = _costs(n, budget)
    return report


def _costs(n: int, budget: float) -> dict[str, float]:
    state, full = _observed(n, missing=0.0)
    _, gaps = _observed(n, missing=0.1)
    matrix = correlation.raw(state, PARAMS)
    weights = np.full(n, 1.0 / n)
    calls: dict[str, Callable[[], Any]] = {
        "raw_us": lambda: correlation.raw(state, PARAMS),
        "shrunk_us": lambda: correlation.shrunk(state, PARAMS),
        "alerts_us": lambda: correlation.alerts(state, matrix, PARAMS),
        "stressed_us": lambda: correlation.stressed(matrix, 0.5),
        "diversification_us": lambda: correlation.diversification(weights, weights, matrix),
        "parts_us": lambda: moments.to_parts(state),
    }
    times = {name: _median_us(call, CALLS) for name, call in calls.items()}
    size = float(sum(len(part) for part in moments.to_parts(state).values()))
    return {"bar_us": full, "target_us": budget, "bar_with_gaps_us": gaps, **times, "checkpoint_bytes": size}


def _observed(n: int, missing: float) -> tuple[Moments, float]:
    """Return the moments after all bars, and the median µs per bar."""
    rng = np.random.RandomState(n)
    names = [f"COIN{i:03d}-USD" for i in range(n)]
    state, times = moments.begin(), []
    for k in range(WARMUP + BARS):
        row = 0.01 * (0.8 * rng.standard_normal() + 0.6 * rng.standard_normal(n))
        here = rng.uniform(size=n) >= missing
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
