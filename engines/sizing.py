"""Stages 1 to 8 of the pipeline: from one cell's live forecast to its signed size in cents.

Source: the pipeline specification, stages 1-8; methods 1-5.
"""

from typing import NamedTuple

from engines import cascade, conformal, drawdown, kelly, regime, sentiment
from engines.conformal import ConformalScale
from engines.kelly import KellySize
from engines.parameters import DecisionParams
from engines.records import Bars, Book, Forecast, Learned, Market, RegimeState, Scores
from engines.sentiment import SentimentScale

SECOND_NS = 1_000_000_000

STAGES = ("kelly", "conformal", "risk_score", "sentiment", "regime", "cascade", "drawdown")


class Surroundings(NamedTuple):
    """What a cell is sized in, beside its own forecast."""

    now_ns: int
    book: Book
    market: Market | None
    whole_market: Market | None
    learned: Learned | None
    scores: Scores | None
    regime: RegimeState | None
    halted: bool


class CellSize(NamedTuple):
    """One cell through stages 1-8."""

    cents: tuple[int, ...]
    """Signed size after each of `STAGES`."""
    reason: str
    """Why stage 2 gives zero, or ""."""
    cut: float
    """c: cascade multiplier times drawdown multiplier."""
    cap_factor: float
    """c_ji of stage 11: what every cut left of the cell's cap."""
    level: int
    """Cascade level in force for the cell's side, 0-3."""
    kelly: KellySize | None
    conformal: ConformalScale | None
    sentiment: SentimentScale | None
    risk_multiplier: float
    regime_multiplier: float
    drawdown_multiplier: float


NOTHING = (0,) * len(STAGES)


def scaled(cents: int, factor: float) -> int:
    """Return cents times a factor, truncated toward zero."""
    return int(cents * factor)


def level_of(market: Market | None, whole_market: Market | None, side: int) -> int:
    """Return the cascade level in force for a side: the worse of the symbol's and the market's."""
    level = 0
    for each in (market, whole_market):
        latch = None if each is None else (each.long if side > 0 else each.short)
        if latch is not None and latch.level > level:
            level = latch.level
    return level


def price_problem(bars: Bars | None, now_ns: int, params: DecisionParams) -> str:
    """Return why a symbol cannot be priced now, or ""."""
    if bars is None:
        return "no price"
    if now_ns - bars.last_ns > params.validation_criteria.max_price_age_s * SECOND_NS:
        return "stale price"
    return ""


def why_not(forecast: Forecast, around: Surroundings, params: DecisionParams) -> str:
    """Stage 1: return why the cell is not live, or ""."""
    if around.halted:
        return "halted"
    if forecast.expires_ns <= around.now_ns:
        return "forecast expired"
    if forecast.side < 0 and not params.risk_management.allow_short:
        return "shorts are off"
    return price_problem(None if around.market is None else around.market.bars, around.now_ns, params)


def size(forecast: Forecast, around: Surroundings, params: DecisionParams) -> CellSize:
    """Stages 1-8: return the cell's size after each stage.

    Every multiplier is taken once; sizes are truncated toward zero at each stage, so a stage's step is exact.
    """
    side = forecast.side
    book = around.book
    sizing = params.position_sizing
    level = level_of(around.market, around.whole_market, side)
    fall = drawdown.multiplier(book.peak_usd, book.value_usd, params.risk_management.max_drawdown_pct)
    cut = cascade.MULTIPLIER[level] * fall
    problem = why_not(forecast, around, params)
    if problem:
        return CellSize(NOTHING, problem, cut, 0.0, level, None, None, None, 1.0, 1.0, fall)

    wanted = _kelly(forecast, around.learned, params)
    widened = conformal.decide(around.scores, wanted.variance, forecast.volatility, sizing.conformal_prediction)
    resized = min(wanted.fraction, _fraction(wanted, widened.variance, params))
    mood = _sentiment(forecast, around.now_ns, params)
    confirmed = "ranging" if around.regime is None else around.regime.confirmed
    weather = regime.multiplier(confirmed, side, sizing.regime_adjustment)
    risk = 1.0 - sizing.risk_score_weight * forecast.risk_score

    stakes = 100.0 * book.value_usd * side
    first = int(stakes * wanted.fraction)
    second = int(stakes * resized)
    third = scaled(second, risk)
    fourth = scaled(third, mood.multiplier)
    fifth = scaled(fourth, weather)
    sixth = scaled(fifth, cascade.MULTIPLIER[level])
    seventh = scaled(sixth, fall)

    square = wanted.mean * wanted.mean
    narrowing = (wanted.variance + square) / (widened.variance + square)
    cap_factor = narrowing * risk * min(1.0, mood.multiplier) * min(1.0, weather) * cut
    return CellSize(
        (first, second, third, fourth, fifth, sixth, seventh),
        wanted.reason,
        cut,
        cap_factor,
        level,
        wanted,
        widened,
        mood,
        risk,
        weather,
        fall,
    )


def claim_of(forecast: Forecast) -> float:
    """Return x = conf·e/s: the claim in claimed standard deviations."""
    return forecast.confidence * forecast.expected_return / forecast.volatility


def _kelly(forecast: Forecast, learned: Learned | None, params: DecisionParams) -> KellySize:
    return kelly.decide(
        None if learned is None else learned.posterior,
        claim_of(forecast),
        forecast.confidence * forecast.expected_return,
        forecast.volatility,
        forecast.costs,
        params.position_sizing.bayesian_kelly,
        params.position_sizing.stop_loss_ratio,
        params.position_sizing.drawdown_bound,
    )


def _fraction(wanted: KellySize, variance: float, params: DecisionParams) -> float:
    if wanted.fraction <= 0.0:
        return 0.0
    return kelly.resize(
        wanted,
        variance,
        params.position_sizing.bayesian_kelly,
        params.position_sizing.stop_loss_ratio,
        params.position_sizing.drawdown_bound,
    )


def _sentiment(forecast: Forecast, now_ns: int, params: DecisionParams) -> SentimentScale:
    age_s = max(0, now_ns - forecast.sentiment_ns) / SECOND_NS
    return sentiment.multiplier(
        forecast.side, forecast.sentiment_score, forecast.sentiment_confidence, age_s, params.sentiment
    )
