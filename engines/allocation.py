"""What is published of a decision: one JSON object with sorted keys, and its hash."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from engines.models import policy_gate
from engines.pipeline import aggregation, cache, caps
from engines.pipeline.cell_sizing import CellSize
from engines.pipeline.decide import Decision
from engines.state import policy, strategies
from engines.state.partition import State
from engines.state.records import Forecast, Market
from engines.state.units import cents_of, unit_now
from schemas.vocabulary import RECOMMENDATIONS

DECISION_VERSION = 4
"""Raised when, and only when, a golden byte changes."""

BILLION = 1_000_000_000
REVISING = ("advice", "deadline")


def render(state: State, decision: Decision, offset: int) -> tuple[bytes, str]:
    """Return an allocation's bytes and their sha256 (hex).

    Money is in USD with two decimals (integer cents underneath; a target's are quantity times price to the nearest
    cent, all others are truncated toward zero), waterfalls are in integer cents, weights are truncated to 1e-9,
    quantities are in coins or contracts.
    """
    value = orjson.dumps(fields(state, decision, offset), option=orjson.OPT_SORT_KEYS)
    return value, hashlib.sha256(value).hexdigest()


def fields(state: State, decision: Decision, offset: int) -> dict[str, Any]:
    """Return an allocation's fields."""
    progress = state.progress
    if progress is None:
        msg = "an allocation needs a journal that began with Genesis"
        raise ValueError(msg)
    book = decision.book
    cells, cents = decision.holdings.cells, decision.cents
    nets, gross = caps.nets(cells, cents), sum(map(abs, cents))
    minimum = cache.limits(state).minimum_cents
    managed = {
        symbol: _target(net, minimum, book.value_usd, decision.quantities[symbol]) for symbol, net in nets.items()
    }
    unmanaged = {
        symbol: _left_alone(state, symbol, quantity, book.value_usd) for symbol, quantity in decision.unmanaged.items()
    }
    utilization = _billionths(gross / (100.0 * book.value_usd))
    published: dict[str, Any] = {
        "allocations": {symbol: target["notional_usd"] for symbol, target in managed.items()},
        "basis": decision.holdings.basis,
        "bound": [f"{level}:{name}" for level, name in decision.bound],
        "cells": [
            {"cents": size, "strategy_id": strategy, "symbol": symbol}
            for (strategy, symbol), size in zip(cells, cents, strict=True)
            if size
        ],
        "decision_id": state.decision_id(decision.portfolio_id, offset),
        "decision_version": state.version or DECISION_VERSION,
        "final": not policy.awaits(state, decision.portfolio_id),
        "inputs_hash": progress.inputs_hash,
        "journal": {"offset": offset, "partition": state.partition},
        "kept": decision.kept,
        "portfolio_id": decision.portfolio_id,
        "portfolio_value": _money(int(100.0 * book.value_usd)),
        "portfolio_waterfall": _portfolio_waterfall(decision),
        "previous_hash": book.last_hash,
        "reasons": [{"code": want.code, "symbol": want.symbol, "text": want.text} for want in decision.wants],
        "revises": decision.trigger.id if decision.trigger.kind in REVISING else None,
        "rl": _of_the_policy(state, decision),
        "sequence": book.sequence + 1,
        "settings_hash": state.settings_hash,
        "targets": {**managed, **unmanaged},
        "timestamp_ns": progress.now_ns,
        "total_allocated_usd": _money(gross),
        "totals": {"gross_usd": _money(gross), "net_usd": _money(sum(nets.values())), "utilization_ratio": utilization},
        "trigger": {"id": decision.trigger.id, "kind": decision.trigger.kind},
        "unmanaged": sorted(unmanaged),
        "utilization_pct": utilization,
        "valid_until_ns": _valid_until(state, decision),
    }
    published.update(_of_the_portfolio(state, decision, nets))
    published.update(_of_the_cell(state, decision))
    return published


def _of_the_portfolio(state: State, decision: Decision, nets: Mapping[str, int]) -> dict[str, Any]:
    """Return what several strategies and symbols make of each other."""
    drift = strategies.drift_of(state, decision.portfolio_id)
    diversified = aggregation.diversification(state, nets)
    return {
        "correlation_penalties": decision.penalties,
        "diversification": None if diversified is None else diversified._asdict(),
        "drift": {"alert": drift.alert, "ratio": drift.ratio},
        "drifted_strategies": drift.drifted,
        "max_drift_pct": drift.largest,
        "strategy_weights": decision.strategy_weights,
    }


def _of_the_policy(state: State, decision: Decision) -> dict[str, Any] | None:
    """Return how far the policy may act, what it answered, and how it does; None where it is not asked at all."""
    portfolio = decision.portfolio_id
    if not state.params.rl.enabled:
        return None
    record = state.questions.get((portfolio,))
    compared = policy_gate.comparison(policy.gate_of(state, portfolio), state.params.rl.gate)
    return {
        "cells": [
            {
                "confidence": asked.confidence,
                "model_version": asked.model_version,
                "nudge": asked.nudge,
                "status": asked.status,
                "strategy_id": asked.strategy_id,
                "symbol": asked.symbol,
            }
            for asked in (() if record is None else record.asked)
        ],
        "gate": compared._asdict(),
        "mode": policy.mode_of(state, portfolio),
    }


def _target(net: int, minimum: int, value_usd: float, quantity: float) -> dict[str, float]:
    shown = 0 if abs(net) < minimum else net
    return {
        "notional_usd": _money(shown),
        "quantity": quantity,
        "weight": _billionths(shown / (100.0 * value_usd)),
    }


def _left_alone(state: State, symbol: str, quantity: float, value_usd: float) -> dict[str, float | None]:
    """Return how a position that is not managed is shown: as reported, at the last price where one is known."""
    unit_usd = unit_now(state, symbol)
    if unit_usd is None:
        return {"notional_usd": None, "quantity": quantity, "weight": None}
    return {**_target(cents_of(quantity, unit_usd), 0, value_usd, quantity)}


def _money(cents: int) -> float:
    return cents / 100


def _billionths(ratio: float) -> float:
    return int(ratio * BILLION) / BILLION


def _portfolio_waterfall(decision: Decision) -> list[dict[str, Any]]:
    waterfall = decision.waterfall
    return [
        {"gross_cents": sum(map(abs, cents)), "net_cents": sum(cents), "stage": name}
        for name, cents in zip(waterfall.names, waterfall.columns, strict=True)
    ]


def _valid_until(state: State, decision: Decision) -> int | None:
    predictions = state.predictions
    ends = [
        cell.forecast.expires_ns
        for (strategy, symbol), size in zip(decision.holdings.cells, decision.cents, strict=True)
        if size
        and (cell := predictions.get((decision.portfolio_id, strategy, symbol))) is not None
        and cell.forecast is not None
    ]
    return min(ends, default=None)


def _of_the_cell(state: State, decision: Decision) -> dict[str, Any]:
    """Return the waterfall of the trigger's cell, and what the mission names for its signal."""
    named = decision.trigger.cell
    if named is None:
        return {"waterfall": []}
    if named not in decision.holdings.cells:
        return {"position_size_usd": 0.0, "strategy_id": named[0], "symbol": named[1], "waterfall": []}
    index = decision.holdings.cells.index(named)
    size = decision.sizes[index]
    cell = state.predictions.get((decision.portfolio_id, *named))
    shown = {
        "position_size_usd": _money(decision.cents[index]),
        "strategy_id": named[0],
        "symbol": named[1],
        "waterfall": _waterfall(decision, index),
    }
    if size is not None and cell is not None and cell.forecast is not None:
        shown.update(_of_the_signal(state, decision, size, cell.forecast, named[1]))
    return shown


def _waterfall(decision: Decision, index: int) -> list[dict[str, Any]]:
    rows = []
    before = 0
    waterfall = decision.waterfall
    for name, cents, reasons in zip(waterfall.names, waterfall.columns, waterfall.reasons, strict=True):
        after = cents[index]
        rows.append({"after_cents": after, "before_cents": before, "reason": reasons.get(index, ""), "stage": name})
        before = after
    return rows


def _of_the_signal(state: State, decision: Decision, size: CellSize, forecast: Forecast, symbol: str) -> dict[str, Any]:
    market = state.markets.get((symbol,))
    regime = state.regimes.get((decision.portfolio_id, symbol))
    latch = None if market is None else (market.long if forecast.side > 0 else market.short)
    stages = size.cents
    return {
        "cascade_adjusted_usd": _money(stages[5]),
        "cascade_recommendation": RECOMMENDATIONS[size.level],
        "cascade_risk_score": 0.0 if latch is None else latch.score,
        "conformal_adjusted_usd": _money(stages[1]),
        "current_regime": "ranging" if regime is None else regime.confirmed,
        "diagnostics": _diagnostics(size, forecast, market),
        "kelly_position_usd": _money(stages[0]),
        "regime_adjusted_usd": _money(stages[4]),
        "sentiment_adjusted_usd": _money(stages[3]),
    }


def _diagnostics(size: CellSize, forecast: Forecast, market: Market | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "cap_factor": size.cap_factor,
        "clipped": _clipped(size, forecast),
        "confidence": forecast.confidence,
        "costs": forecast.costs,
        "drawdown_multiplier": size.drawdown_multiplier,
        "estimated": forecast.estimated,
        "expected_return": forecast.expected_return,
        "price": None if market is None or market.bars is None else market.bars.last_price,
        "regime_multiplier": size.regime_multiplier,
        "risk_multiplier": size.risk_multiplier,
        "side": forecast.side,
        "volatility": forecast.volatility,
    }
    if size.bet is not None and size.sentiment is not None:
        shown["kelly"] = size.bet.kelly._asdict()
        shown["conformal"] = size.bet.conformal._asdict()
        shown["sentiment"] = size.sentiment._asdict()
    return shown


def _clipped(size: CellSize, forecast: Forecast) -> list[dict[str, Any]]:
    """Return the claims that count for less, or for more, than was claimed."""
    rows = []
    if size.bet is not None and forecast.confidence > 0.0:
        believed = size.bet.kelly.claim * forecast.volatility / forecast.confidence
        if size.bet.kelly.claim < forecast.confidence * forecast.expected_return / forecast.volatility:
            rows.append({"claimed": forecast.expected_return, "field": "expected_return", "used": believed})
    if forecast.claimed_volatility:
        used = forecast.volatility
        rows.append({"claimed": forecast.claimed_volatility, "field": "predicted_volatility", "used": used})
    return rows
