"""Bayesian Kelly: how much of what a strategy claims is real, and how much to bet on it.

One posterior a cell (portfolio · strategy · symbol): a regression of what came, z = side·r/s, on what was claimed,
x = conf·e/s, with normal errors of unknown variance: z = b·x + ε, ε ~ N(0, v). b = 1 is an honest claim, 0 noise.
It costs O(1) an outcome, in natural parameters

    h = (K, K·b, 2a, 2B + K·b²)      v = B/(a − 1)

and forgets. What is kept is data alone; the prior, whose weight is counted in usual claims and whose slope the other
cells of the strategy give, is added when it is asked (partial pooling).

Source: docs/methods.md, section 1; Kelly 1956; Browne and Whitt 1996 (Bayesian Kelly); Kulhavý and Zarrop 1993
(stabilised forgetting); Baker and McHale 2013 (shrink); Busseti, Ryu and Boyd 2016 (drawdown bound).
"""

from math import sqrt
from typing import Final, NamedTuple

from engines.numerics.exact import ln
from engines.parameters import DrawdownBound, KellyParams

__all__ = [
    "KellySize",
    "Pool",
    "Posterior",
    "begin",
    "bounded",
    "decide",
    "drawdown_limit",
    "fraction",
    "observe",
    "pooled",
    "prior_weight",
    "resize",
    "shrink",
    "win_rate",
    "with_prior",
]

LARGEST_LEVERAGE: Final = 1e12
"""x²/K counts as at most this: a claim that dwarfs all before it has a huge variance, but a finite one."""
ROUNDING: Final = 2.0**-40
"""Below this share of Σz² the residual is what rounding left of a difference, not data."""
SMALLEST_VARIANCE: Final = 2.0**-1000
LARGEST_CLAIM: Final = 10_000.0
"""A claim of more standard deviations than these counts as these, so that squares stay finite."""
SMALLEST_CLAIM: Final = 1e-9
"""Less than so many sd claims nothing: the slope of what came over it would be beyond all numbers."""
SMALLEST_WEIGHT: Final = 2.0**-100
"""The prior weighs at least this much, so that its slope can be divided by its weight."""


class Posterior(NamedTuple):
    """What the outcomes of one cell say: of its claims (h) and of its win rate.

    Data alone. The prior is added when it is asked, so that the strategy's other cells can be part of it.
    """

    h1: float
    """Σx²: weight of the calibration slope, in squared claims."""
    h2: float
    """Σx·z."""
    h3: float
    """Number of outcomes remembered: twice what they add to the shape of the residual variance."""
    h4: float
    """Σz²."""
    mean_square_claim: float
    """ρ²: the squared claim that the prior's weight is counted in."""
    wins: float
    losses: float
    outcomes: int
    recent_h1: float = 0.0
    """Σx² over the short memory of the guard."""
    recent_h2: float = 0.0
    """Σx·z over it."""


class Pool(NamedTuple):
    """What the outcomes of all cells of one strategy say together: sums of their data, without any prior."""

    h1: float
    h2: float
    cells: int
    """Cells with an outcome."""


class Belief(NamedTuple):
    """A posterior in the terms of the regression."""

    calibration: float
    """b: what comes for each unit that is claimed."""
    precision: float
    """K: v/K is the variance of b."""
    residual_variance: float
    """v: in claimed variances."""


class KellySize(NamedTuple):
    """A bet, as a share of the portfolio's value, and what it comes from."""

    mean: float
    """m: predicted return over the horizon, net of costs, in the direction of the claim."""
    variance: float
    """S: its predictive variance, the uncertainty of b included."""
    calibration: float
    """b."""
    residual_variance: float
    """v, in claimed variances."""
    edge_sd: float
    """m/√S."""
    win_rate: float
    """Mean of the win-rate posterior."""
    shrink: float
    """g: what the uncertainty of b leaves of the bet."""
    full_fraction: float
    """f = m/(S + m²), 0 where m is not positive: full Kelly, whatever the gates say."""
    fraction: float
    """What to bet: kelly_fraction·g·f, at most 1/stop_loss, 0 at a gate. Never negative."""
    reason: str
    """The gate that made it 0, or ""."""
    claim: float
    """x as it counts: at most `max_claim`, and at most `max_usual_claims` times what the cell usually claims."""


def begin(params: KellyParams) -> Posterior:
    """Return what is known of a cell before any outcome: what it may claim."""
    return Posterior(0.0, 0.0, 0.0, 0.0, params.first_claim * params.first_claim, 0.0, 0.0, 0)


def prior_weight(square_claim: float, params: KellyParams) -> float:
    """Return K₀ = min(prior_strength·ρ², max_prior_weight) of a cell that usually claims x² = `square_claim`.

    The limit keeps bold claims that nothing has proven from being shrunk less than timid ones.
    """
    return max(min(params.prior_strength * square_claim, params.max_prior_weight), SMALLEST_WEIGHT)


def with_prior(posterior: Posterior, params: KellyParams, pool: Pool | None = None) -> Posterior:
    """Return h = (K, K·b, 2a, 2B + K·b²) and the win rate of a posterior: its data and the prior.

    With a pool the prior of the slope is N(b', pool_spread² + v/K'), where K' and b' are those of the strategy's other
    cells with the prior of a lone one, K' discounted as cells are alike.
    """
    weight = prior_weight(posterior.mean_square_claim, params)
    slope = params.prior_calibration
    if pool is not None:
        weight, slope = _pooled_prior(posterior, weight, params, pool)
    spread = 2.0 * params.prior_variance * (params.prior_shape - 1.0)
    return posterior._replace(
        h1=posterior.h1 + weight,
        h2=posterior.h2 + weight * slope,
        h3=posterior.h3 + 2.0 * params.prior_shape,
        h4=posterior.h4 + spread + weight * slope * slope,
        wins=posterior.wins + params.win_prior,
        losses=posterior.losses + params.win_prior,
    )


def _pooled_prior(posterior: Posterior, weight: float, params: KellyParams, pool: Pool) -> tuple[float, float]:
    """Return weight and slope of the prior that the strategy's other cells give."""
    others = pool.cells - (1 if posterior.outcomes else 0)
    if others < 1:
        return weight, params.prior_calibration
    share = 1.0 / (1.0 + params.pool_correlation * (others - 1))
    precision = weight + share * max(0.0, pool.h1 - posterior.h1)
    slope = (weight * params.prior_calibration + share * (pool.h2 - posterior.h2)) / precision
    narrowed = 1.0 / (params.pool_spread * params.pool_spread + 1.0 / precision)
    return max(weight, narrowed), slope


def pooled(pool: Pool | None, before: Posterior | None, after: Posterior) -> Pool:
    """Return a strategy's pool after one of its cells has learnt."""
    old = Pool(0.0, 0.0, 0) if pool is None else pool
    if before is None:
        return Pool(old.h1 + after.h1, old.h2 + after.h2, old.cells + 1)
    return Pool(old.h1 + (after.h1 - before.h1), old.h2 + (after.h2 - before.h2), old.cells)


def bounded(x: float, posterior: Posterior | None, params: KellyParams) -> float:
    """Return x_w: a claim as far as it is believed, min(x, max_claim, max_usual_claims·ρ)."""
    square = params.first_claim * params.first_claim if posterior is None else posterior.mean_square_claim
    return min(_claim(x), params.max_claim, params.max_usual_claims * sqrt(square))


def observe(
    posterior: Posterior | None,
    x: float,
    z: float,
    won: bool,  # noqa: FBT001 (an outcome is one or the other)
    weight: float,
    params: KellyParams,
) -> Posterior:
    """Take one outcome; return the new posterior.

    Args:
        posterior: None before the first outcome.
        x: conf·e/s of the decision, not negative; counts as far as it is believed. A claim of nothing (0) tells of the
            variance, not of the slope, nor of what is usually claimed.
        z: side·r/s of that decision; clipped to `winsor_sd` predictive standard deviations about b·x.
        won: whether side·r was above the costs.
        weight: 1/(1 + outcomes of the cell that it overlaps), in (0, 1]: of what it adds and of what it makes forget.
        params: the settings in force.
    """
    old = begin(params) if posterior is None else posterior
    x = bounded(x, old, params)
    z = _winsorised(z, x, old, params)
    keep = 1.0 - weight / params.effective_outcomes
    recent = max(0.0, 1.0 - weight / params.guard_outcomes)
    square, product = weight * x * x, weight * x * z
    win = weight if won else 0.0
    return Posterior(
        keep * old.h1 + square,
        keep * old.h2 + product,
        keep * old.h3 + weight,
        keep * old.h4 + weight * z * z,
        _usual(old, x, params),
        keep * old.wins + win,
        keep * old.losses + (weight - win),
        old.outcomes + 1,
        recent * old.recent_h1 + square,
        recent * old.recent_h2 + product,
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
    pool: Pool | None = None,
) -> KellySize:
    """Return what to bet on a claim.

    Args:
        posterior: None before the first outcome: the prior of a strategy that usually claims `first_claim`.
        x: edge/volatility. 0 is a claim of nothing and gives a clean zero.
        edge: conf·e, the claimed return over the horizon, non-negative; where x is more than is believed, it counts as
            what is believed times the volatility.
        volatility: s over the horizon, positive.
        costs: round-trip costs and funding over the horizon, as a ratio; 0 where the claim is net of them.
        params: the settings in force.
        stop_loss_ratio: loss, as a share of the position, at which it is closed.
        bound: caps kelly_fraction by the probability of a drawdown.
        pool: what the strategy's cells have learnt together; None: nothing yet.
    """
    data = begin(params) if posterior is None else posterior
    believed = bounded(x, data, params)
    if believed < x:
        edge = believed * volatility
    square = believed * believed
    known = with_prior(data, params, pool)
    belief = _guarded(_belief(known), data, params)
    b, K, v = belief
    mean = b * edge - costs
    variance = max(volatility * volatility * _predictive(belief, square), SMALLEST_VARIANCE)
    edge_sd = mean / sqrt(variance)
    rate = known.wins / (known.wins + known.losses)
    g = shrink(b, K, v) if params.estimation_shrink else 1.0
    full = mean / (variance + mean * mean) if mean > 0.0 else 0.0
    reason = _gate(mean, edge_sd, rate, params)
    bet = 0.0 if reason else fraction(mean, variance, g, _kelly_fraction(params, bound), stop_loss_ratio)
    return KellySize(mean, variance, b, v, edge_sd, rate, g, full, bet, reason, believed)


def resize(
    size: KellySize,
    variance: float,
    params: KellyParams,
    stop_loss_ratio: float | None = None,
    bound: DrawdownBound | None = None,
) -> float:
    """Return the bet of the same claim at another variance; never above the first, 0 where that is 0."""
    if size.fraction <= 0.0:
        return 0.0
    bet = fraction(size.mean, variance, size.shrink, _kelly_fraction(params, bound), stop_loss_ratio)
    return min(size.fraction, bet)


def fraction(
    mean: float, variance: float, shrink: float, kelly_fraction: float, stop_loss_ratio: float | None = None
) -> float:
    """Return kelly_fraction·g·m/(S + m²), at most 1/stop_loss; 0 where m is not positive.

    Source: Kelly 1956, in the second-order form that keeps m² beside the variance.
    """
    if mean <= 0.0:
        return 0.0
    bet = kelly_fraction * shrink * mean / (variance + mean * mean)
    if stop_loss_ratio is None or bet * stop_loss_ratio <= 1.0:
        return bet
    return 1.0 / stop_loss_ratio


def shrink(calibration: float, precision: float, residual_variance: float) -> float:
    """Return g = t²/(1 + t²), t² = b²·K/v: what an uncertain slope leaves of the bet. In [0, 1).

    Source: Baker and McHale 2013, whose k* is e²/(e² + sd²) for an edge e known with a standard deviation sd.
    """
    square = calibration * calibration * precision
    return square / (residual_variance + square)


def drawdown_limit(bound: DrawdownBound) -> float:
    """Return the largest kelly_fraction with P(wealth ever < alpha) at most beta: 2/(1 + ln β/ln α).

    Source: Busseti, Ryu and Boyd 2016 for λ = ln β/ln α; for a diffusion P = α^(2/kf − 1) gives the same number.
    """
    return 2.0 / (1.0 + ln(bound.beta) / ln(bound.alpha))


def win_rate(posterior: Posterior, params: KellyParams) -> float:
    """Return the mean of the win-rate posterior, a Beta with `win_prior` wins and losses before the first outcome."""
    wins = posterior.wins + params.win_prior
    return wins / (wins + posterior.losses + params.win_prior)


def _belief(known: Posterior) -> Belief:
    """Return slope, its weight and residual variance of data with a prior."""
    b = known.h2 / known.h1
    residual = known.h4 - known.h2 * b
    v = max(residual, known.h4 * ROUNDING) / (known.h3 - 2.0)
    return Belief(b, known.h1, v)


def _guarded(belief: Belief, data: Posterior, params: KellyParams) -> Belief:
    """Return a belief with b at most `guard_sd` standard deviations above what the short memory alone says."""
    if data.recent_h1 <= 0.0:
        return belief
    reach = params.guard_sd * sqrt(belief.residual_variance / data.recent_h1)
    return belief._replace(calibration=min(belief.calibration, data.recent_h2 / data.recent_h1 + reach))


def _predictive(belief: Belief, square_claim: float) -> float:
    """Return the predictive variance in claimed variances: v·(1 + x²/K)."""
    v = belief.residual_variance
    if square_claim > LARGEST_LEVERAGE * belief.precision:
        return v + v * LARGEST_LEVERAGE
    return v + v * square_claim / belief.precision


def _claim(x: float) -> float:
    """Return a claim that can be squared and divided by, or 0."""
    return 0.0 if x < SMALLEST_CLAIM else min(x, LARGEST_CLAIM)


def _winsorised(z: float, x: float, posterior: Posterior, params: KellyParams) -> float:
    """Return z, no further from b·x than `winsor_sd` predictive standard deviations."""
    belief = _belief(with_prior(posterior, params))
    centre = belief.calibration * x
    reach = params.winsor_sd * sqrt(_predictive(belief, x * x))
    return min(max(z, centre - reach), centre + reach)


def _usual(posterior: Posterior, x: float, params: KellyParams) -> float:
    """Return ρ² after one more claim: the mean of all at first, then an EWMA. A claim of nothing leaves it."""
    usual = posterior.mean_square_claim
    if x <= 0.0:
        return usual
    gain = max(1.0 - params.claim_decay, 1.0 / (posterior.outcomes + 2))
    return usual + gain * (x * x - usual)


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
