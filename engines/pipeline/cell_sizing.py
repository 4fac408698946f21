"""Stages 1 to 8: from one cell's live forecast to its signed size in cents.

Source: docs/pipeline.md, stages 1-8; docs/methods.md, sections 1 to 5.
"""

from typing import NamedTuple

from engines.models import cascade, conformal, ensemble, kelly, regime, sentiment
from engines.models.conformal import ConformalScale
from engines.models.kelly import KellySize, Standing
from engines.models.sentiment import SentimentScale
from engines.parameters import DecisionParams
from engines.pipeline import portfolio_sizing
from engines.state.records import Bars, CellPosterior, CellRecord, CellTarget, Forecast, Market, Pool, Scores
from schemas.vocabulary import Regime

SECOND_NS = 1_000_000_000

STAGES = ("kelly", "conformal", "risk_score", "sentiment", "regime", "cascade", "drawdown")


class Bet(NamedTuple):
    """Result of stages 2 and 3: the bet on a forecast, given the cell's outcomes and independent of time.

    It depends only on the fields that it is made from, so it is cached between decisions while they are unchanged.
    """

    forecast: Forecast
    learned: CellPosterior | None
    scores: Scores | None
    pool: Pool | None
    standing: Standing
    kelly: KellySize
    conformal: ConformalScale
    resized: float
    """The bet after stage 3, as a share of the value."""
    narrowing: float
    """(S + m²)/(S_eff + m²)."""
    moment: float
    """(S_eff + m²)/H, the second moment per hour from which stage 10 computes the symbol's variance."""
    forecast_ratio: float
    """f = side·m/s, from which stage 9 computes the correlation of strategies."""


class CellSize(NamedTuple):
    """One cell after each of the stages 1-8."""

    cents: tuple[int, ...]
    """Signed size after each of `STAGES`."""
    reason: str
    """Why stage 1 or 2 gives zero, or ""."""
    cut: float
    """c: cascade multiplier times drawdown multiplier."""
    cap_factor: float
    """c_ji of stage 11: the product of all cuts, which scales the cell's cap."""
    level: int
    """Cascade level in force for the cell's side, 0-3."""
    bet: Bet | None
    sentiment: SentimentScale | None
    risk_multiplier: float
    regime_multiplier: float
    drawdown_multiplier: float


NOTHING = (0,) * len(STAGES)


NO_PRICE, STALE_PRICE = "no price", "stale price"
WANTING_A_PRICE = (NO_PRICE, STALE_PRICE)
"""Reasons of stage 1 for cells that cannot be sized because their price is unknown."""


def level_of(market: Market | None, whole_market: Market | None, side: int) -> int:
    """Return the cascade level in force for a side: the higher of the symbol's and the market's."""
    level = 0
    for each in (market, whole_market):
        latch = None if each is None else (each.long if side > 0 else each.short)
        if latch is not None and latch.level > level:
            level = latch.level
    return level


def why_not(forecast: Forecast, market: Market | None, halted: bool, now_ns: int, params: DecisionParams) -> str:  # noqa: FBT001
    """Return why a cell is not live (stage 1), or ""."""
    if halted:
        return "halted"
    if forecast.expires_ns <= now_ns:
        return "forecast expired"
    if forecast.side < 0 and not params.risk_management.allow_short:
        return "shorts are off"
    if market is None or market.bars is None:
        return NO_PRICE
    return STALE_PRICE if is_stale(market.bars, now_ns, params) else ""


def is_stale(bars: Bars, now_ns: int, params: DecisionParams) -> bool:
    """Return whether a symbol's last price is too old to size with."""
    return now_ns - bars.last_ns > params.validation_criteria.max_price_age_s * SECOND_NS


def nothing(reason: str, level: int, drawdown_factor: float) -> CellSize:
    """Return the zero size of a cell that is not live."""
    return CellSize(
        NOTHING, reason, cascade.MULTIPLIER[level] * drawdown_factor, 0.0, level, None, None, 1.0, 1.0, drawdown_factor
    )


def standing(cell: CellRecord, forecast: Forecast, target: CellTarget | None) -> Standing:
    """Return what a cell holds on its forecast's side, and how likely its signals are to renew it."""
    held = 0.0 if target is None else max(0.0, target.bet * forecast.side)
    return Standing(held, max(0.0, 1.0 - cell.turns / cell.horizons))


def bet(
    forecast: Forecast,
    learned: CellPosterior | None,
    scores: Scores | None,
    params: DecisionParams,
    pool: Pool | None,
    standing: Standing,
) -> Bet:
    """Return the bet on a forecast, given what is held and what outcomes taught (stages 2 and 3)."""
    sizing = params.position_sizing
    edge = forecast.confidence * forecast.expected_return
    wanted = kelly.decide(
        None if learned is None else learned.posterior,
        edge / forecast.volatility,
        edge,
        forecast.volatility,
        forecast.costs,
        sizing.bayesian_kelly,
        sizing.stop_loss_ratio,
        sizing.drawdown_bound,
        pool,
        forecast.trading_costs,
        standing,
    )
    widened = conformal.decide(scores, wanted.variance, forecast.volatility, sizing.conformal_prediction)
    resized = kelly.resize(
        wanted, widened.variance, sizing.bayesian_kelly, sizing.stop_loss_ratio, sizing.drawdown_bound
    )
    square = wanted.mean * wanted.mean
    narrowing = (wanted.variance + square) / (widened.variance + square)
    return Bet(
        forecast,
        learned,
        scores,
        pool,
        standing,
        wanted,
        widened,
        resized,
        narrowing,
        portfolio_sizing.second_moment(widened.variance, wanted.mean, forecast.horizon_s),
        ensemble.forecast(forecast.side, wanted.mean, forecast.volatility),
    )


def size(
    bet: Bet,
    level: int,
    drawdown_factor: float,
    confirmed: Regime,
    value_usd: float,
    now_ns: int,
    params: DecisionParams,
) -> CellSize:
    """Return a live cell's size after each stage (2-8).

    Every multiplier is applied once; sizes are truncated toward zero after each stage, so the steps are exact.

    Args:
        bet: result of stages 2 and 3 for the cell's forecast.
        level: cascade level in force for its side, 0-3.
        drawdown_factor: the drawdown multiplier.
        confirmed: regime of the symbol in this portfolio.
        value_usd: V.
        now_ns: journal time.
        params: the settings in force.
    """
    forecast = bet.forecast
    side = forecast.side
    sentiment_age_s = max(0, now_ns - forecast.sentiment_ns) / SECOND_NS
    sentiment_scale = sentiment.multiplier(
        side, forecast.sentiment_score, forecast.sentiment_confidence, sentiment_age_s, params.sentiment
    )
    regime_factor = regime.multiplier(confirmed, side, params.position_sizing.regime_adjustment)
    risk = 1.0 - params.position_sizing.risk_score_weight * forecast.risk_score
    cascade_factor = cascade.MULTIPLIER[level]

    signed_value_cents = 100.0 * value_usd * side
    after_conformal = int(signed_value_cents * bet.resized)
    after_risk_score = int(after_conformal * risk)
    after_sentiment = int(after_risk_score * sentiment_scale.multiplier)
    after_regime = int(after_sentiment * regime_factor)
    after_cascade = int(after_regime * cascade_factor)
    cut = cascade_factor * drawdown_factor
    return CellSize(
        (
            int(signed_value_cents * bet.kelly.fraction),
            after_conformal,
            after_risk_score,
            after_sentiment,
            after_regime,
            after_cascade,
            int(after_cascade * drawdown_factor),
        ),
        bet.kelly.reason,
        cut,
        bet.narrowing * risk * min(1.0, sentiment_scale.multiplier) * min(1.0, regime_factor) * cut,
        level,
        bet,
        sentiment_scale,
        risk,
        regime_factor,
        drawdown_factor,
    )
