"""Time of one warm in-process decision and of its parts, with json.dumps of the allocation as baseline."""

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import perf_counter_ns
from typing import Any

from benchmarks.rig import START_NS, ratios, spread
from engines import allocation, fold
from engines.handlers import calls
from engines.pipeline import aggregation, caps, cell_sizing, decide, no_trade_band, publish
from streams.journal import entries as journal
from streams.library import phases, session
from streams.library.phases import Layer3Phase1

TARGET = 2.5
PARTS: dict[str, tuple[Any, str]] = {
    "validate": (phases, "plain"),
    "entry": (journal, "internal"),
    "fold": (session, "apply"),
    "fold: price": (calls, "fold_price"),
    "fold: signal": (calls, "fold_signal"),
    "decide": (fold, "decide"),
    "decide: held": (decide, "hold"),
    "decide: stages 2-3": (cell_sizing, "bet"),
    "decide: stage 9": (aggregation, "of_strategies"),
    "decide: stage 10": (aggregation, "of_symbols"),
    "decide: caps": (caps, "caps"),
    "decide: limits": (caps, "limits"),
    "decide: band": (no_trade_band, "settle"),
    "decide: headroom": (decide, "headroom"),
    "decide: quantities": (decide, "_quantities"),
    "claim": (publish, "keep_claims"),
    "render and hash": (publish, "render"),
    "render: fields": (allocation, "fields"),
    "read back": (phases, "PositionSizingDecision"),
}
"""Part → (module it is called from, name). Parts nest: fold contains all below it except the last."""


def _signal(number: int) -> dict[str, Any]:
    return {
        "signal_id": f"s-{number}",
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "action": "buy",
        "confidence": 0.8,
        "risk_score": 0.2,
        "regime": "ranging",
        "timestamp_ns": START_NS + number * 10**9,
        "expected_return": 0.01,
        "predicted_volatility": 0.02,
    }


class Warm:
    """A warmed-up library object."""

    def __init__(self, calls: int) -> None:
        self.layer3 = Layer3Phase1(portfolio_value=100_000, enable_metrics=False)
        self.number = 0
        for _ in range(calls):
            self.call()

    def call(self) -> Any:
        """Make one decision."""
        self.number += 1
        return self.layer3.calculate_position(_signal(self.number), None, 43_500.0)

    def times(self, calls: int) -> tuple[float, float]:
        """Return median µs of a call and of json.dumps of its result, measured alternately."""
        took, dumped = [], []
        for _ in range(calls):
            began = perf_counter_ns()
            decision = self.call()
            took.append(perf_counter_ns() - began)
            fields = decision.to_dict()
            began = perf_counter_ns()
            json.dumps(fields)
            dumped.append(perf_counter_ns() - began)
        return statistics.median(took) / 1e3, statistics.median(dumped) / 1e3

    def part(self, module: Any, name: str, calls: int) -> float:
        """Return the median µs a call spends in a part. Parts are timed one at a time, to avoid mutual overhead."""
        with _timed(module, name) as spent:
            per_call = []
            for _ in range(calls):
                spent.clear()
                self.call()
                per_call.append(sum(spent))
        return statistics.median(per_call) / 1e3


@contextmanager
def _timed(module: Any, name: str) -> Iterator[list[int]]:
    """Record the ns of each call of a module's function while the context is open."""
    plain: Callable[..., Any] = getattr(module, name)
    spent: list[int] = []

    @wraps(plain, updated=())
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = perf_counter_ns()
        try:
            return plain(*args, **kwargs)
        finally:
            spent.append(perf_counter_ns() - began)

    setattr(module, name, timed)
    try:
        yield spent
    finally:
        setattr(module, name, plain)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return µs of a call and of json.dumps, their ratio, and µs of each part of a call."""
    runs, calls = (1, 300) if quick else (7, 1_000)
    warm = Warm(calls)
    call_us, dumps_us = zip(*(warm.times(calls) for _ in range(runs)), strict=True)
    return {
        "call_us": spread(call_us),
        "json_dumps_us": spread(dumps_us),
        "call_over_json_dumps": ratios(call_us, dumps_us),
        "target": TARGET,
        "parts_us": {part: warm.part(*place, calls) for part, place in PARTS.items()},
    }
