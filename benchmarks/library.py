"""One decision in process, warm, and where its time goes; beside json.dumps of the allocation in the same run."""

import cProfile
import json
import pstats
import statistics
from time import perf_counter_ns
from typing import Any

from benchmarks.rig import START_NS
from streams.library import Layer3Phase1

TARGET = 2.5
PARTS = {
    "validate": "model_validate",
    "fold": "apply",
    "decide": "decide",
    "size": "_afresh",
    "render": "render",
    "market": "fold_price",
}
"""Part → function whose cumulative time it is; they nest: validate | fold > (market, decide > size, render)."""


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


def run(calls: int = 4_000) -> dict[str, Any]:
    """Return µs a call, µs of json.dumps, their ratio, and shares of the time by part."""
    layer3 = Layer3Phase1(portfolio_value=100_000, enable_metrics=False)
    took, dumped = [], []
    for number in range(calls):
        began = perf_counter_ns()
        decision = layer3.calculate_position(_signal(number), None, 43_500.0)
        ended = perf_counter_ns()
        fields = decision.to_dict()
        again = perf_counter_ns()
        json.dumps(fields)
        dumped.append(perf_counter_ns() - again)
        took.append(ended - began)
    warm = calls // 4
    call_us, dump_us = (statistics.median(each[warm:]) / 1e3 for each in (took, dumped))
    return {
        "call_us": call_us,
        "json_dumps_us": dump_us,
        "call_over_json_dumps": call_us / dump_us,
        "target": TARGET,
        "share_of_call": _shares(layer3, calls),
    }


def _shares(layer3: Layer3Phase1, first: int) -> dict[str, float]:
    profile = cProfile.Profile()
    profile.enable()
    for number in range(first, first + 1_000):
        layer3.calculate_position(_signal(number), None, 43_500.0)
    profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    by_name: dict[str, float] = {}
    for (_, _, name), (_, _, _, cumulative, _) in stats.items():
        by_name[name] = max(by_name.get(name, 0.0), cumulative)
    whole = by_name["calculate_position"]
    return {part: round(by_name.get(name, 0.0) / whole, 3) for part, name in PARTS.items()}
