"""Gauges of the last decisions and the last cascade readings, computed at scrape time."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from engines.handlers.effects import CascadeReading
from engines.pipeline.cell_sizing import CellSize
from engines.pipeline.decide import Decision
from engines.pipeline.publish import Published
from streams.monitoring.families import BUDGETS, COMPONENTS, REGIMES
from streams.monitoring.samples import Labels

SECOND_NS = 1_000_000_000
GATE_STATES: Final = {"collecting": 0.0, "open": 1.0, "closed": 2.0}


class Last:
    """The last decisions and cascade readings, from which gauges are computed."""

    def __init__(self) -> None:
        self.decided_ns = 0
        self.decision: Published | None = None
        self.full: Published | None = None
        """The last full decision (not by ratio)."""
        self.signal: tuple[Published, int] | None = None
        """The last decision on a BUY or SELL, and the index of its cell."""
        self.sized: tuple[Published, int] | None = None
        """The same for the last one that reached Kelly."""
        self.readings: dict[tuple[str, int], CascadeReading] = {}

    def gauges(self) -> Iterator[tuple[str, Labels, float]]:
        """Yield (family, labels, value)."""
        if self.readings:
            yield from self._cascade()
        if self.decision is not None:
            yield "allocation_sequence", (), self.decision.sequence
            yield "last_decision_timestamp_seconds", (), self.decided_ns / SECOND_NS
            for level, ratio in zip(BUDGETS, utilization(self.decision.decision), strict=True):
                yield "risk_budget_utilization_ratio", (level,), ratio
        if self.full is not None:
            yield from _of_the_portfolio(orjson.loads(self.full.value))
        if self.signal is not None:
            decision, index = self.signal[0].decision, self.signal[1]
            size = decision.sizes[index]
            yield "final_position_size_usd", (), decision.cents[index] / 100
            yield "drawdown_multiplier", (), 1.0 if size is None else size.drawdown_multiplier
        if self.sized is not None:
            published, index = self.sized
            size = published.decision.sizes[index]
            if size is not None:
                yield from _of_size(size)
                yield from _of_regime(orjson.loads(published.value)["current_regime"], size)

    def weights(self) -> dict[str, float]:
        """Return the strategies' weights in the last full decision."""
        return {} if self.full is None else self.full.decision.strategy_weights

    def _cascade(self) -> Iterator[tuple[str, Labels, float]]:
        readings = list(self.readings.values())
        yield "cascade_risk_score", (), max(reading.score for reading in readings)
        by_component = zip(*(reading.components for reading in readings), strict=True)
        for component, values in zip(COMPONENTS, by_component, strict=True):
            yield (
                "cascade_risk_components",
                (component,),
                max((each for each in values if each is not None), default=0.0),
            )


def utilization(decision: Decision) -> tuple[float, float, float, float]:
    """Return the highest utilization of any cell, symbol and strategy, and of the portfolio: size over cap in force."""
    symbols: dict[str, int] = {}
    strategies: dict[str, int] = {}
    largest = gross = 0
    for (strategy, symbol), signed in zip(decision.holdings.cells, decision.cents, strict=True):
        cents = abs(signed)
        symbols[symbol] = symbols.get(symbol, 0) + cents
        strategies[strategy] = strategies.get(strategy, 0) + cents
        largest, gross = max(largest, cents), gross + cents
    limits, value = decision.limits, 100.0 * decision.book.value_usd
    if value <= 0.0:
        return 0.0, 0.0, 0.0, 0.0
    return (
        largest / (limits.position * value),
        max(symbols.values(), default=0) / (limits.position * value),
        max(strategies.values(), default=0) / (limits.strategy * value),
        gross / (limits.gross * value),
    )


def _of_the_portfolio(fields: Mapping[str, Any]) -> Iterator[tuple[str, Labels, float]]:
    yield "ensemble_strategies", (), len(fields["strategy_weights"])
    yield "ensemble_weight_drift_ratio", (), fields["drift"]["ratio"]
    yield "ensemble_weight_total_usd", (), fields["total_allocated_usd"]
    yield "ensemble_utilization_ratio", (), fields["utilization_pct"]
    yield "correlation_penalty_ratio", (), max(fields["correlation_penalties"].values(), default=0.0)
    if fields["diversification"] is not None:
        yield "diversification_ratio", (), fields["diversification"]["ratio"]
    if fields["rl"] is not None:
        yield "rl_advantage", (), fields["rl"]["gate"]["advantage"]
        yield "rl_gate_state", (), GATE_STATES[fields["rl"]["gate"]["status"]]
        yield "rl_blend_weight", (), _blend_weight(fields["rl"])


def _blend_weight(policy: Mapping[str, Any]) -> float:
    """Return the largest weight of an answer in force; 0 unless the mode is live and the gate open."""
    acts = policy["mode"] == "live" and policy["gate"]["status"] == "open"
    weights = (cell["confidence"] for cell in policy["cells"] if cell["status"] == "counted")
    return max(weights, default=0.0) if acts else 0.0


def _of_size(size: CellSize) -> Iterator[tuple[str, Labels, float]]:
    bet, sentiment = size.bet, size.sentiment
    yield "kelly_position_size_usd", (), size.cents[0] / 100
    yield "risk_score_multiplier", (), size.risk_multiplier
    if bet is not None:
        yield "kelly_fraction", (), bet.kelly.fraction
        yield "bayesian_win_rate", (), bet.kelly.win_rate
        yield "bayesian_edge", (), bet.kelly.edge_sd
        yield "conformal_scale_factor", (), bet.resized / bet.kelly.fraction if bet.kelly.fraction else bet.narrowing
        yield "conformal_samples", (), bet.conformal.samples
    if sentiment is not None:
        yield "sentiment_multiplier", (), sentiment.multiplier


def _of_regime(current: str, size: CellSize) -> Iterator[tuple[str, Labels, float]]:
    for regime in REGIMES:
        yield "current_regime", (regime,), float(regime == current)
    yield "regime_multiplier", (current,), size.regime_multiplier
