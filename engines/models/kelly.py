"""Bayesian Kelly: estimates how much of a strategy's claims is real, and how much to bet on them.

One posterior per cell (portfolio · strategy · symbol): a regression of the realised return, z = side·r/s, on the
claimed one, x = conf·e/s, with normal errors of unknown variance: z = b·x + ε, ε ~ N(0, v). b = 1 is an honest claim,
b = 0 noise. The update costs O(1) per outcome, in natural parameters

    h = (K, K·b, 2a, 2B + K·b²)      v = B/(a − 1)

with forgetting: each outcome moves h a step towards the prior, whose weight is measured in typical claims.

    >>> params = KellyParams()
    >>> claim = {"x": 0.4, "edge": 0.008, "volatility": 0.02, "costs": 0.001, "params": params}
    >>> round(decide(None, **claim).fraction, 4)  # share of the value, for a new strategy
    1.1015
    >>> posterior = None
    >>> for _ in range(20):  # outcomes against the claim
    ...     posterior = observe(posterior, x=0.4, z=-0.4, won=False, weight=1.0, params=params)
    >>> decide(posterior, **claim).reason
    'no edge'

Source: docs/methods.md, section 1; Kelly 1956; Browne and Whitt 1996 (Bayesian Kelly); Kulhavý and Zarrop 1993
(stabilised forgetting); Baker and McHale 2013 (shrink); Busseti, Ryu and Boyd 2016 (drawdown bound).
"""

from math import sqrt
from typing import Final, NamedTuple

from engines.numerics.exact import ln
from engines.parameters import DrawdownBound, KellyParams

__all__ = ["KellySize", "Posterior", "decide", "drawdown_limit", "fraction", "observe", "resize", "shrink", "win_rate"]

LARGEST_LEVERAGE: Final = 1e12
"""Upper bound of x²/K: a claim that dwarfs all earlier ones has a huge, but finite, variance."""
ROUNDING: Final = 2.0**-40
"""Below this share of Σz² the residual is rounding error, not data."""
SMALLEST_VARIANCE: Final = 2.0**-1000
LARGEST_CLAIM: Final = 10_000.0
"""Claims are clipped to this many standard deviations, so that squares stay finite."""
SMALLEST_CLAIM: Final = 1e-9
"""Smaller claims, in standard deviations, count as 0, because the slope z/x would overflow."""


class Posterior(NamedTuple):
    """Posterior of one cell: of the calibration of its claims (h) and of its win rate (Beta)."""

    h1: float
    """K: weight of the calibration slope, in squared claims."""
    h2: float
    """K·b."""
    h3: float
    """2a: twice the shape of the residual variance."""
    h4: float
    """2B + K·b²."""
    mean_square_claim: float
    """ρ²: EWMA of squared claims, the unit of the prior's weight."""
    wins: float
    losses: float
    outcomes: int


class Belief(NamedTuple):
    """A posterior in terms of the regression."""

    calibration: float
    """b: realised return per unit of claimed return."""
    precision: float
    """K: the variance of b is v/K."""
    residual_variance: float
    """v, in claimed variances."""


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
    """m/√S."""
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


def prior(square_claim: float, params: KellyParams) -> Posterior:
    """Return the prior of a strategy whose typical squared claim x² is `square_claim`."""
    weight = params.prior_strength * square_claim
    slope = params.prior_calibration
    spread = 2.0 * params.prior_variance * (params.prior_shape - 1.0)
    return Posterior(
        weight,
        weight * slope,
        2.0 * params.prior_shape,
        spread + weight * slope * slope,
        square_claim,
        params.win_prior,
        params.win_prior,
        0,
    )


def observe(
    posterior: Posterior | None,
    x: float,
    z: float,
    won: bool,  # noqa: FBT001 (an outcome is one or the other)
    weight: float,
    params: KellyParams,
) -> Posterior:
    """Return the posterior updated by one outcome.

    Args:
        posterior: None before the first outcome.
        x: conf·e/s of the decision, non-negative. A claim of 0 updates the variance, but not the slope.
        z: side·r/s of that decision; clipped to `winsor_sd` predictive standard deviations around b·x.
        won: whether side·r was above the costs.
        weight: 1/(1 + number of overlapping outcomes of the cell), in (0, 1]; scales both update and forgetting.
        params: the settings in force.
    """
    x = _claim(x)
    square = x * x
    old = prior(square, params) if posterior is None else posterior
    z = _winsorised(z, x, old, params)
    usual = _decayed(old.mean_square_claim, square, params.claim_decay)
    base = prior(usual, params)
    forget = weight / params.effective_outcomes
    keep = 1.0 - forget
    win = weight if won else 0.0
    return Posterior(
        keep * old.h1 + forget * base.h1 + weight * square,
        keep * old.h2 + forget * base.h2 + weight * x * z,
        keep * old.h3 + forget * base.h3 + weight,
        keep * old.h4 + forget * base.h4 + weight * z * z,
        usual,
        keep * old.wins + forget * base.wins + win,
        keep * old.losses + forget * base.losses + (weight - win),
        old.outcomes + 1,
    )


def decide(
    posterior: Posterior | None,
    x: float,
    edge: float,
    volatility: float,
    costs: float,
    params: KellyParams,
    stop_loss_ratio: float | None = None,
    bound: DrawdownBound | None = None,
) -> KellySize:
    """Return the bet on a claim.

    Args:
        posterior: None before the first outcome: uses the prior of a strategy whose typical claim is x.
        x: edge/volatility. A claim of 0 gives a bet of 0.
        edge: conf·e, the claimed return over the horizon, non-negative.
        volatility: s over the horizon, positive.
        costs: round-trip costs and funding over the horizon, as a ratio; 0 if the claim is net of costs.
        params: the settings in force.
        stop_loss_ratio: loss, as a share of the position, at which the position is closed.
        bound: caps kelly_fraction by the probability of a drawdown.
    """
    x = _claim(x)
    square = x * x
    known = prior(square, params) if posterior is None else posterior
    belief = _belief(known, square, params)
    b, K, v = belief
    mean = b * edge - costs
    variance = max(volatility * volatility * _predictive(belief, square), SMALLEST_VARIANCE)
    edge_sd = mean / sqrt(variance)
    rate = known.wins / (known.wins + known.losses)
    g = shrink(b, K, v) if params.estimation_shrink else 1.0
    full = mean / (variance + mean * mean) if mean > 0.0 else 0.0
    reason = _gate(mean, edge_sd, rate, params)
    bet = 0.0 if reason else fraction(mean, variance, g, _kelly_fraction(params, bound), stop_loss_ratio)
    return KellySize(mean, variance, b, v, edge_sd, rate, g, full, bet, reason)


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
    bet = fraction(size.mean, variance, size.shrink, _kelly_fraction(params, bound), stop_loss_ratio)
    return min(size.fraction, bet)


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


def win_rate(posterior: Posterior) -> float:
    """Return the mean of the win-rate posterior, Beta(wins, losses)."""
    return posterior.wins / (posterior.wins + posterior.losses)


def _belief(posterior: Posterior, square_claim: float, params: KellyParams) -> Belief:
    """Return slope, its weight and the residual variance; the prior's slope if every claim so far was 0."""
    K = posterior.h1
    if K > 0.0:
        b = posterior.h2 / K
    else:
        b, K = params.prior_calibration, params.prior_strength * square_claim
    residual = posterior.h4 - posterior.h2 * b
    v = max(residual, posterior.h4 * ROUNDING) / (posterior.h3 - 2.0)
    return Belief(b, K, v)


def _predictive(belief: Belief, square_claim: float) -> float:
    """Return the predictive variance in claimed variances: v·(1 + x²/K)."""
    v = belief.residual_variance
    if belief.precision <= 0.0:
        return v
    if square_claim > LARGEST_LEVERAGE * belief.precision:
        return v + v * LARGEST_LEVERAGE
    return v + v * square_claim / belief.precision


def _claim(x: float) -> float:
    """Return the claim clipped to the range that can be squared and divided by, or 0."""
    return 0.0 if x < SMALLEST_CLAIM else min(x, LARGEST_CLAIM)


def _winsorised(z: float, x: float, posterior: Posterior, params: KellyParams) -> float:
    """Return z clipped to `winsor_sd` predictive standard deviations around b·x."""
    belief = _belief(posterior, x * x, params)
    centre = belief.calibration * x
    reach = params.winsor_sd * sqrt(_predictive(belief, x * x))
    return min(max(z, centre - reach), centre + reach)


def _decayed(usual: float, square: float, decay: float) -> float:
    """Return ρ² after one more claim; it starts with the first non-zero claim."""
    return decay * usual + (1.0 - decay) * square if usual > 0.0 else square


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
