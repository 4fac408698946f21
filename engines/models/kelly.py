"""Bayesian Kelly: the bet on a claim, given how much of such claims has come true (`engines.models.calibration`).

Because of costs there is a region in which no trade pays: a position inside it stays as it is.

    >>> params = KellyParams()
    >>> claim = {"x": 0.4, "edge": 0.008, "volatility": 0.02, "costs": 0.001, "trading": 0.001, "params": params}
    >>> round(decide(None, **claim).fraction, 4)  # share of the value, for a new strategy
    0.0428
    >>> round(decide(None, **claim, standing=Standing(0.1, renewal=0.5)).fraction, 4)  # if 10 % are held
    0.0875

Source: docs/methods.md, section 1; Kelly 1956; Browne and Whitt 1996 (Bayesian Kelly); Baker and McHale 2013 (shrink);
Busseti, Ryu and Boyd 2016 (drawdown bound); Davis and Norman 1990 (no-trade region).
"""

from math import sqrt
from typing import Final, NamedTuple

from engines.models import calibration
from engines.models.calibration import Pool, Posterior
from engines.numerics.exact import ln
from engines.parameters import DrawdownBound, KellyParams

__all__ = ["NOTHING_STANDS", "KellySize", "Standing", "decide", "drawdown_limit", "fraction", "resize", "shrink"]

SMALLEST_VARIANCE: Final = 2.0**-1000


class Standing(NamedTuple):
    """The position that a cell already holds on the side of a claim, and how likely it is to be kept."""

    fraction: float = 0.0
    """u: the fraction of the last bet on this side; 0 if nothing is held."""
    renewal: float = 0.0
    """q: probability that a unit held at the end of the horizon is kept, in [0, 1]."""


NOTHING_STANDS: Final = Standing()


class KellySize(NamedTuple):
    """A bet as a share of the portfolio's value, and the numbers behind it."""

    mean: float
    """m: predicted return over the horizon, net of costs, in the direction of the claim."""
    variance: float
    """S: its predictive variance, including the uncertainty of b."""
    calibration: float
    """b."""
    residual_variance: float
    """v, in claimed variances."""
    edge_sd: float
    """m_lo/√S."""
    win_rate: float
    """Mean of the win-rate posterior."""
    shrink: float
    """g: multiplier for the uncertainty of b."""
    full_fraction: float
    """f = m/(S + m²), 0 if m is not positive: full Kelly, before the gates."""
    fraction: float
    """The bet: kelly_fraction·g·f, at most 1/stop_loss, 0 if a gate applies. Never negative."""
    reason: str
    """The gate that made the bet 0, or ""."""
    buying: float
    """m_lo: net value of buying another unit: its sale is paid for too, unless it is kept."""
    keeping: float
    """m_hi: net value of keeping a unit that is held: it is paid for, and its sale is put off."""
    standing: float
    """u: the fraction held."""
    opens: bool
    """Whether no gate stops buying."""
    gross: float
    """m₀ = b·conf·e: predicted return before costs."""
    claim: float
    """x, bounded to `max_claim` and to `max_usual_claims` times the cell's typical claim."""


def decide(
    posterior: Posterior | None,
    x: float,
    edge: float,
    volatility: float,
    costs: float,
    params: KellyParams,
    stop_loss_ratio: float | None = None,
    bound: DrawdownBound | None = None,
    pool: Pool | None = None,
    trading: float = 0.0,
    standing: Standing = NOTHING_STANDS,
) -> KellySize:
    """Return the bet on a claim: the position held, moved into the region in which no trade is worth its costs.

    Args:
        posterior: None before the first outcome: the prior of a strategy whose typical claim is `first_claim`.
        x: edge/volatility. A claim of 0 gives a bet of 0.
        edge: conf·e, the claimed return over the horizon, non-negative; bounded with x.
        volatility: s over the horizon, positive.
        costs: round-trip costs and funding over the horizon, as a ratio; 0 if the claim is net of costs.
        params: the settings in force.
        stop_loss_ratio: loss, as a share of the position, at which the position is closed.
        bound: caps kelly_fraction by the probability of a drawdown.
        pool: outcomes of all cells of the strategy; None: none yet.
        trading: 2c, the part of the costs that is not funding. Received funding counts at most b·conf·e.
        standing: the position held.
    """
    data = calibration.begin(params) if posterior is None else posterior
    believed = calibration.bounded(x, data, params)
    if believed < x:
        edge = believed * volatility
    known = calibration.with_prior(data, params, pool)
    b, K, v = belief = calibration.guarded(calibration.belief(known), data, params)
    gross = b * edge
    mean, buying, keeping = _worth(gross, edge, costs, trading, standing)
    variance = max(volatility * volatility * calibration.predictive(belief, believed * believed), SMALLEST_VARIANCE)
    edge_sd = buying / sqrt(variance)
    rate = calibration.win_rate(data, params)
    gate = _gate(buying, edge_sd, rate, params) if edge > 0.0 else "no edge"
    size = KellySize(
        mean=mean,
        variance=variance,
        calibration=b,
        residual_variance=v,
        edge_sd=edge_sd,
        win_rate=rate,
        shrink=shrink(b, K, v) if params.estimation_shrink else 1.0,
        full_fraction=buying / (variance + buying * buying) if buying > 0.0 else 0.0,
        fraction=0.0,
        reason=gate,
        buying=buying,
        keeping=keeping,
        standing=standing.fraction,
        opens=not gate,
        gross=gross,
        claim=believed,
    )
    bet = _in_region(size, variance, _kelly_fraction(params, bound), stop_loss_ratio)
    return size._replace(fraction=bet, reason="" if bet > 0.0 else gate)


def _worth(gross: float, edge: float, costs: float, trading: float, standing: Standing) -> tuple[float, float, float]:
    """Return m net of all costs, m_lo and m_hi; a claim of 0 keeps nothing."""
    carried = gross - max(costs - trading, -max(0.0, gross))
    buying = carried - trading * (1.0 - standing.renewal)
    keeping = carried + trading * standing.renewal if edge > 0.0 else min(0.0, carried)
    return carried - trading, buying, keeping


def resize(
    size: KellySize,
    variance: float,
    params: KellyParams,
    stop_loss_ratio: float | None = None,
    bound: DrawdownBound | None = None,
) -> float:
    """Return the bet on the same claim with another variance; never above the original bet."""
    if size.fraction <= 0.0:
        return 0.0
    return min(size.fraction, _in_region(size, variance, _kelly_fraction(params, bound), stop_loss_ratio))


def _in_region(size: KellySize, variance: float, kelly_fraction: float, stop_loss_ratio: float | None) -> float:
    """Return max(F(m_lo), min(u, F(m_hi))); F(m_lo) is 0 if a gate applies."""
    low = fraction(size.buying, variance, size.shrink, kelly_fraction, stop_loss_ratio) if size.opens else 0.0
    if size.standing <= low:
        return low
    high = fraction(size.keeping, variance, size.shrink, kelly_fraction, stop_loss_ratio)
    return max(low, min(size.standing, high))


def fraction(
    mean: float, variance: float, shrink: float, kelly_fraction: float, stop_loss_ratio: float | None = None
) -> float:
    """Return kelly_fraction·g·m/(S + m²), at most 1/stop_loss; 0 if m is not positive.

    Source: Kelly 1956, in the second-order form, whose denominator is the second moment S + m².
    """
    if mean <= 0.0:
        return 0.0
    bet = kelly_fraction * shrink * mean / (variance + mean * mean)
    if stop_loss_ratio is None or bet * stop_loss_ratio <= 1.0:
        return bet
    return 1.0 / stop_loss_ratio


def shrink(calibration: float, precision: float, residual_variance: float) -> float:
    """Return g = t²/(1 + t²) in [0, 1), t² = b²·K/v: the multiplier for an uncertain slope.

    Source: Baker and McHale 2013, whose k* is e²/(e² + sd²) for an edge e known with a standard deviation sd.
    """
    square = calibration * calibration * precision
    return square / (residual_variance + square)


def drawdown_limit(bound: DrawdownBound) -> float:
    """Return the largest kelly_fraction with P(wealth ever < alpha) at most beta: 2/(1 + ln β/ln α).

    Source: Busseti, Ryu and Boyd 2016 for λ = ln β/ln α; for a diffusion P = α^(2/kf − 1) gives the same number.
    """
    return 2.0 / (1.0 + ln(bound.beta) / ln(bound.alpha))


def _kelly_fraction(params: KellyParams, bound: DrawdownBound | None) -> float:
    return params.kelly_fraction if bound is None else min(params.kelly_fraction, drawdown_limit(bound))


def _gate(mean: float, edge_sd: float, rate: float, params: KellyParams) -> str:
    if mean <= 0.0:
        return "no edge"
    if edge_sd < params.min_edge:
        return "edge below min_edge"
    if rate < params.min_win_rate:
        return "win rate below min_win_rate"
    return ""
