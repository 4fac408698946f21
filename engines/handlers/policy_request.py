"""Request: the question to the policy about one cell of a decision.

Source: `schemas.rl.RlRequest`.
"""

from typing import Any

from engines.models import cascade
from engines.pipeline.cell_sizing import CellSize
from engines.pipeline.decide import Decision
from engines.state.partition import State
from engines.state.records import Forecast, PolicyQuestion
from schemas.vocabulary import REGIMES

__all__ = ["FEATURES", "forecast_of", "request"]

FEATURES = (
    "side",
    "confidence",
    "risk_score",
    "expected_return",
    "volatility",
    "horizon_h",
    "base_weight",
    "predicted_return",
    "predictive_variance",
    "inflation",
    "sentiment_multiplier",
    "regime_multiplier",
    "cascade_score",
    "cascade_multiplier",
    "drawdown_multiplier",
    "cap_factor",
    "utilization",
    *(f"regime_{name}" for name in REGIMES),
)
"""Names of the state vector, in its order."""


def request(state: State, decision: Decision, asked: PolicyQuestion) -> dict[str, Any]:
    """Return the fields of a request: `schemas.rl.RlRequest`."""
    portfolio, cell = decision.portfolio_id, (asked.strategy_id, asked.symbol)
    forecast = forecast_of(state, portfolio, cell)
    size = decision.sizes[decision.holdings.cells.index(cell)]
    market = state.markets.get((asked.symbol,))
    regime = state.regimes.get((portfolio, asked.symbol))
    confirmed = "ranging" if regime is None else regime.confirmed
    return {
        "action": "buy" if forecast.side > 0 else "sell",
        "confidence": forecast.confidence,
        "deadline_ns": asked.deadline_ns,
        "decision_id": state.decision_id(portfolio, asked.offset),
        "expected_return": forecast.expected_return,
        "horizon_s": forecast.horizon_s,
        "portfolio_id": portfolio,
        "portfolio_value": decision.book.value_usd,
        "predicted_volatility": forecast.volatility,
        "price": None if market is None or market.bars is None else market.bars.last_price,
        "regime": confirmed,
        "risk_score": forecast.risk_score,
        "state": [] if size is None else _vector(state, decision, asked, forecast, size, confirmed),
        "strategy_id": asked.strategy_id,
        "symbol": asked.symbol,
        "w_base": asked.base_weight,
    }


def _vector(
    state: State, decision: Decision, asked: PolicyQuestion, forecast: Forecast, size: CellSize, confirmed: str
) -> list[float]:
    """Return the state vector: one number for each of `FEATURES`."""
    market = state.markets.get((asked.symbol,))
    latch = None if market is None else (market.long if forecast.side > 0 else market.short)
    bet, sentiment = size.bet, size.sentiment
    return [
        float(forecast.side),
        forecast.confidence,
        forecast.risk_score,
        forecast.expected_return,
        forecast.volatility,
        forecast.horizon_s / 3_600.0,
        asked.base_weight,
        0.0 if bet is None else bet.kelly.mean,
        0.0 if bet is None else bet.kelly.variance,
        1.0 if bet is None else bet.conformal.inflation,
        1.0 if sentiment is None else sentiment.multiplier,
        size.regime_multiplier,
        0.0 if latch is None else latch.score,
        cascade.MULTIPLIER[size.level],
        size.drawdown_multiplier,
        size.cap_factor,
        sum(map(abs, decision.capped)) / (100.0 * decision.book.value_usd),
        *(1.0 if name == confirmed else 0.0 for name in REGIMES),
    ]


def forecast_of(state: State, portfolio: str, cell: tuple[str, str]) -> Forecast:
    """Return the live forecast of a cell that a signal of this decision claimed."""
    known = state.predictions[portfolio, *cell]
    if known.forecast is None:
        msg = f"cell {'/'.join(cell)} of {portfolio} has claimed something without a forecast"
        raise ValueError(msg)
    return known.forecast
