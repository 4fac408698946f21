"""Calibration: estimates how much of a strategy's claims is real.

One posterior per cell (portfolio · strategy · symbol): a regression of the realised return, z = side·r/s, on the
claimed one, x = conf·e/s, with normal errors of unknown variance: z = b·x + ε, ε ~ N(0, v). b = 1 is an honest claim,
b = 0 noise. The update costs O(1) per outcome, in natural parameters with forgetting:

    h = (K, K·b, 2a, 2B + K·b²)      v = B/(a − 1)

A posterior holds data only. The prior is added when the posterior is used: its weight is measured in typical claims,
and its slope comes from the strategy's other cells (partial pooling).

    >>> params, posterior = KellyParams(), None
    >>> for _ in range(40):  # outcomes that are half of what was claimed
    ...     posterior = observe(posterior, x=0.4, z=0.2, won=True, weight=1.0, params=params)
    >>> round(belief(with_prior(posterior, params)).calibration, 2)
    0.46

Source: docs/methods.md, section 1; Kulhavý and Zarrop 1993 (forgetting); Gelman and Hill 2007 (partial pooling).
"""

from math import sqrt
from typing import Final, NamedTuple

from engines.parameters import KellyParams

__all__ = [
    "Belief",
    "Pool",
    "Posterior",
    "begin",
    "belief",
    "bounded",
    "guarded",
    "observe",
    "pooled",
    "predictive",
    "prior_weight",
    "unpooled",
    "win_rate",
    "with_prior",
]

LARGEST_LEVERAGE: Final = 1e12
"""Upper bound of x²/K: a claim that dwarfs all earlier ones has a huge, but finite, variance."""
ROUNDING: Final = 2.0**-40
"""Below this share of Σz² the residual is rounding error, not data."""
LARGEST_CLAIM: Final = 10_000.0
"""Claims are clipped to this many standard deviations, so that squares stay finite."""
SMALLEST_CLAIM: Final = 1e-9
"""Smaller claims, in standard deviations, count as 0, because the slope z/x would overflow."""
SMALLEST_WEIGHT: Final = 2.0**-100
"""Lower bound of the prior's weight, so that its slope can be divided by its weight."""


class Posterior(NamedTuple):
    """Outcomes of one cell: of the calibration of its claims (h) and of its win rate.

    Data only, without a prior, so that the strategy's other cells can be part of the prior when it is added.
    """

    h1: float
    """Σx²: weight of the calibration slope, in squared claims."""
    h2: float
    """Σx·z."""
    h3: float
    """Weight of the remembered outcomes: twice what they add to the shape of the residual variance."""
    h4: float
    """Σz²."""
    mean_square_claim: float
    """ρ²: mean squared claim, the unit of the prior's weight."""
    wins: float
    losses: float
    outcomes: int
    recent_h1: float = 0.0
    """Σx² over the guard's short memory."""
    recent_h2: float = 0.0
    """Σx·z over the guard's short memory."""


class Pool(NamedTuple):
    """Sums over the outcomes of all cells of one strategy, without a prior."""

    h1: float
    h2: float
    cells: int
    """Number of cells with an outcome."""


class Belief(NamedTuple):
    """A posterior in terms of the regression."""

    calibration: float
    """b: realised return per unit of claimed return."""
    precision: float
    """K: the variance of b is v/K."""
    residual_variance: float
    """v, in claimed variances."""


def begin(params: KellyParams) -> Posterior:
    """Return the posterior of a cell without outcomes."""
    return Posterior(0.0, 0.0, 0.0, 0.0, params.first_claim * params.first_claim, 0.0, 0.0, 0)


def prior_weight(square_claim: float, params: KellyParams) -> float:
    """Return K₀ = min(prior_strength·ρ², max_prior_weight) of a cell whose typical squared claim is `square_claim`.

    The bound keeps bold claims without a record from being shrunk less than timid ones.
    """
    return max(min(params.prior_strength * square_claim, params.max_prior_weight), SMALLEST_WEIGHT)


def with_prior(posterior: Posterior, params: KellyParams, pool: Pool | None = None) -> Posterior:
    """Return h = (K, K·b, 2a, 2B + K·b²) and the win counts of a posterior with its prior.

    With a pool the prior of the slope is N(b', pool_spread² + v/K'). K' and b' are the weight and slope of the
    strategy's other cells, with the prior of a lone cell; K' is discounted for the correlation between cells.
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
    """Return weight and slope of the prior, given the strategy's other cells."""
    others = pool.cells - (1 if posterior.outcomes else 0)
    if others < 1:
        return weight, params.prior_calibration
    share = 1.0 / (1.0 + params.pool_correlation * (others - 1))
    precision = weight + share * max(0.0, pool.h1 - posterior.h1)
    slope = (weight * params.prior_calibration + share * (pool.h2 - posterior.h2)) / precision
    narrowed = 1.0 / (params.pool_spread * params.pool_spread + 1.0 / precision)
    return max(weight, narrowed), slope


def pooled(pool: Pool | None, before: Posterior | None, after: Posterior) -> Pool:
    """Return a strategy's pool after an outcome of one of its cells."""
    old = Pool(0.0, 0.0, 0) if pool is None else pool
    if before is None:
        return Pool(old.h1 + after.h1, old.h2 + after.h2, old.cells + 1)
    return Pool(old.h1 + (after.h1 - before.h1), old.h2 + (after.h2 - before.h2), old.cells)


def unpooled(pool: Pool, gone: Posterior) -> Pool:
    """Return a strategy's pool without one of its cells."""
    return Pool(pool.h1 - gone.h1, pool.h2 - gone.h2, pool.cells - 1)


def bounded(x: float, posterior: Posterior | None, params: KellyParams) -> float:
    """Return x_w, the claim bounded to min(x, max_claim, max_usual_claims·ρ)."""
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
    """Return the posterior updated by one outcome.

    Args:
        posterior: None before the first outcome.
        x: conf·e/s of the decision, non-negative; bounded as in `bounded`. A claim of 0 updates the variance only, not
            the slope or the typical claim.
        z: side·r/s of that decision; clipped to `winsor_sd` predictive standard deviations around b·x.
        won: whether side·r was above the costs.
        weight: 1/(1 + number of overlapping outcomes of the cell), in (0, 1]; scales both update and forgetting.
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


def win_rate(posterior: Posterior, params: KellyParams) -> float:
    """Return the mean of the win-rate posterior; its Beta prior has `win_prior` wins and losses."""
    wins, losses = posterior.wins + params.win_prior, posterior.losses + params.win_prior
    return wins / (wins + losses)


def belief(known: Posterior) -> Belief:
    """Return slope, its weight and the residual variance of a posterior with its prior."""
    b = known.h2 / known.h1
    residual = known.h4 - known.h2 * b
    v = max(residual, known.h4 * ROUNDING) / (known.h3 - 2.0)
    return Belief(b, known.h1, v)


def guarded(free: Belief, data: Posterior, params: KellyParams) -> Belief:
    """Return the belief with b at most `guard_sd` standard deviations above the slope of the short memory."""
    if data.recent_h1 <= 0.0:
        return free
    reach = params.guard_sd * sqrt(free.residual_variance / data.recent_h1)
    return free._replace(calibration=min(free.calibration, data.recent_h2 / data.recent_h1 + reach))


def predictive(known: Belief, square_claim: float) -> float:
    """Return the predictive variance in claimed variances: v·(1 + x²/K)."""
    v = known.residual_variance
    if square_claim > LARGEST_LEVERAGE * known.precision:
        return v + v * LARGEST_LEVERAGE
    return v + v * square_claim / known.precision


def _claim(x: float) -> float:
    """Return the claim clipped to the range that can be squared and divided by, or 0."""
    return 0.0 if x < SMALLEST_CLAIM else min(x, LARGEST_CLAIM)


def _winsorised(z: float, x: float, posterior: Posterior, params: KellyParams) -> float:
    """Return z clipped to `winsor_sd` predictive standard deviations around b·x."""
    known = belief(with_prior(posterior, params))
    centre = known.calibration * x
    reach = params.winsor_sd * sqrt(predictive(known, x * x))
    return min(max(z, centre - reach), centre + reach)


def _usual(posterior: Posterior, x: float, params: KellyParams) -> float:
    """Return ρ² after one more claim: a mean at first, then an EWMA. A claim of 0 leaves it unchanged."""
    usual = posterior.mean_square_claim
    if x <= 0.0:
        return usual
    gain = max(1.0 - params.claim_decay, 1.0 / (posterior.outcomes + 2))
    return usual + gain * (x * x - usual)
