"""Stage 9: several strategies on one symbol forecast one return, and some of them are better than others.

Three things are learnt. How alike the strategies' forecasts are says what k of them together are worth: k/(1+(k−1)ρ)
times one, not k times. How well each has done lately gives its weight, by Hedge with a fixed share, so that none is
written off. Where the weights stood in the long run is the reference that drift is measured against: a walk in small
steps is as far as a jump.

Source: docs/methods.md, section 8; Freund and Schapire 1997 (Hedge); Herbster and Warmuth 1998 (fixed share).
"""

from collections.abc import Mapping, Sequence
from math import fsum, sqrt
from typing import Final, NamedTuple

from engines.numerics.exact import exp, ln
from engines.parameters import EnsembleParams

__all__ = [
    "Drift",
    "ForecastCorrelation",
    "StrategyWeight",
    "aggregate",
    "begin",
    "correlation",
    "drift",
    "forecast",
    "hedge",
    "join",
    "leave",
    "loss",
    "netted",
    "observe",
    "observe_forecasts",
    "renormalised",
]

NEUTRAL: Final = 0.5
"""The loss of a strategy that was not asked."""
LOSS_RANGE_SD: Final = 3.0
"""Claimed volatilities at which an outcome costs nothing, or all."""
LARGEST_SQUARE: Final = 1e100
"""Forecasts whose mean square is beyond are no forecasts."""


class ForecastCorrelation(NamedTuple):
    """How alike the forecasts of a portfolio's strategies are."""

    product: float
    """EWMA, from 0, of the mean of f_j·f_l over the pairs of a symbol."""
    square: float
    """EWMA, from 0, of the mean of f²."""
    samples: int


class StrategyWeight(NamedTuple):
    """One strategy among a portfolio's; over all of them each field sums to 1."""

    weight: float
    reference: float
    """Slow EWMA of the weight."""


class Drift(NamedTuple):
    """How far the weights have gone from where they were in the long run."""

    ratio: float
    """Total variation ½Σ|w − w_ref|, in [0, 1]."""
    alert: bool
    drifted: tuple[str, ...]
    """Strategies whose own |w − w_ref| has reached the threshold, by name."""
    largest: float
    """The largest of these |w − w_ref|."""


# -- the stage ---------------------------------------------------------------------------------------------------------
def aggregate(
    cells: Sequence[tuple[str, str]], cents: Sequence[int], weights: Mapping[str, float], rho: float
) -> list[int]:
    """Return each cell's part in its symbol: trunc(T·min(1, N·h_j)/(1 + (k_i − 1)·ρ)).

    Args:
        cells: (strategy, symbol) of each row; k_i is the number of a symbol's rows with a size.
        cents: signed sizes T.
        weights: of the N live strategies, in any scale; h_j is a weight over their sum. A strategy that is not among
            them gets nothing.
        rho: correlation of the forecasts, in [0, 1].
    """
    total = fsum(weights.values())
    multiples = {
        strategy: min(1.0, len(weights) * weight / total) if total > 0.0 else 0.0
        for strategy, weight in weights.items()
    }
    counts: dict[str, int] = {}
    for (_, symbol), size in zip(cells, cents, strict=True):
        if size:
            counts[symbol] = counts.get(symbol, 0) + 1
    return [
        int(size * multiples.get(strategy, 0.0) / (1.0 + (counts[symbol] - 1) * rho)) if size else 0
        for (strategy, symbol), size in zip(cells, cents, strict=True)
    ]


def netted(cells: Sequence[tuple[str, str]], cents: Sequence[int]) -> list[int]:
    """Return the sizes with the opposite cells of each symbol set off against each other, truncated toward zero.

    Where a symbol has long and short cells, each of its larger side keeps trunc(|T|·|n|/D), n the symbol's net and D
    the gross of that side; the other side gets nothing. So no symbol is capped on a gross that nobody holds.
    """
    longs: dict[str, int] = {}
    shorts: dict[str, int] = {}
    for (_, symbol), size in zip(cells, cents, strict=True):
        side = longs if size > 0 else shorts
        side[symbol] = side.get(symbol, 0) + abs(size)
    after = []
    for (_, symbol), size in zip(cells, cents, strict=True):
        own, other = longs.get(symbol, 0), shorts.get(symbol, 0)
        if size < 0:
            own, other = other, own
        kept = abs(size) * max(0, own - other) // own if size and other else abs(size)
        after.append(kept if size > 0 else -kept)
    return after


# -- how alike forecasts are -------------------------------------------------------------------------------------------
def forecast(side: int, mean: float, volatility: float) -> float:
    """Return f = side·m/s, what a live cell says of its symbol, in its own volatilities."""
    return side * mean / volatility


def observe_forecasts(
    before: ForecastCorrelation | None, forecasts: Sequence[float], params: EnsembleParams
) -> ForecastCorrelation | None:
    """Take the forecasts of a symbol's live cells, at a signal on it; return the new moments.

    Fewer than two, or none but zeros, or one that is not finite, say nothing of likeness: the moments stay.
    """
    count = len(forecasts)
    square = sum(sorted(each * each for each in forecasts))
    if count < 2 or not 0.0 < square < LARGEST_SQUARE:
        return before
    total = fsum(forecasts)
    product = (total * total - square) / (count * (count - 1))
    old = before or ForecastCorrelation(0.0, 0.0, 0)
    return ForecastCorrelation(
        _decayed(old.product, product, params.correlation_decay),
        _decayed(old.square, square / count, params.correlation_decay),
        old.samples + 1,
    )


def correlation(moments: ForecastCorrelation | None, params: EnsembleParams) -> float:
    """Return ρ in [0, 1]; the prior one until enough samples are seen."""
    if moments is None or moments.samples < params.correlation_samples or not moments.square > 0.0:
        return params.prior_correlation
    return min(max(moments.product / moments.square, 0.0), 1.0)


# -- how good strategies are -------------------------------------------------------------------------------------------
def begin(strategies: Sequence[str]) -> dict[str, StrategyWeight]:
    """Return equal weights."""
    equal = 1.0 / max(len(strategies), 1)
    return {strategy: StrategyWeight(equal, equal) for strategy in sorted(strategies)}


def join(weights: Mapping[str, StrategyWeight], strategy: str) -> dict[str, StrategyWeight]:
    """Return the weights with one strategy more: it takes 1/N of each, of the reference as well, so nothing drifts."""
    if strategy in weights:
        return dict(weights)
    equal = 1.0 / (len(weights) + 1)
    kept = 1.0 - equal
    joined = {name: StrategyWeight(kept * each.weight, kept * each.reference) for name, each in weights.items()}
    joined[strategy] = StrategyWeight(equal, equal)
    return {name: joined[name] for name in sorted(joined)}


def leave(weights: Mapping[str, StrategyWeight], strategy: str) -> dict[str, StrategyWeight]:
    """Return the weights with one strategy less; the others keep their proportions."""
    rest = {name: weights[name] for name in sorted(weights) if name != strategy}
    current = _summing_to_one([each.weight for each in rest.values()])
    reference = _summing_to_one([each.reference for each in rest.values()])
    return {name: StrategyWeight(*pair) for name, pair in zip(rest, zip(current, reference, strict=True), strict=True)}


def loss(side: int, realised: float, volatility: float) -> float:
    """Return ℓ = clip((1 − side·r/(3s))/2, 0, 1): 0 for a gain of 3 claimed volatilities, .5 for nothing, 1 for a loss.

    Where r or s is no finite number, or s is not positive, nothing is known of the outcome: .5.
    """
    reach = LOSS_RANGE_SD * volatility
    if not (0.0 < reach < LARGEST_SQUARE and -LARGEST_SQUARE < realised < LARGEST_SQUARE):
        return NEUTRAL
    return min(max(0.5 * (1.0 - side * realised / reach), 0.0), 1.0)


def observe(
    weights: Mapping[str, StrategyWeight], strategy: str, loss: float, params: EnsembleParams
) -> dict[str, StrategyWeight]:
    """Take the loss of one strategy's outcome, in [0, 1]; return the new weights and references of all.

    The others lose the neutral .5. A strategy that was not among them joins first.
    """
    before = join(weights, strategy)
    losses = [loss if name == strategy else NEUTRAL for name in before]
    after = hedge([each.weight for each in before.values()], losses, params)
    decay = 1.0 - 1.0 / params.reference_outcomes
    return {
        name: StrategyWeight(weight, _decayed(each.reference, weight, decay))
        for (name, each), weight in zip(before.items(), after, strict=True)
    }


def hedge(weights: Sequence[float], losses: Sequence[float], params: EnsembleParams) -> list[float]:
    """Return the weights after one round of losses, in this order: Hedge, normalised, fixed share, floor.

    η = √(8·ln N/T). The sum is 1; no weight is below min(floor, 1/(4N)).
    """
    count = len(weights)
    rate = sqrt(8.0 * ln(float(count)) / params.horizon_outcomes)
    grown = _summing_to_one(
        [weight * exp(-rate * (loss - NEUTRAL)) for weight, loss in zip(weights, losses, strict=True)]
    )
    share = params.fixed_share
    shared = [(1.0 - share) * weight + share / count for weight in grown]
    return _floored(shared, min(params.weight_floor, 0.25 / count))


def renormalised(weights: Mapping[str, StrategyWeight], live: Sequence[str]) -> dict[str, float]:
    """Return h of the live strategies, by name, summing to 1. One without a weight counts as one that joins."""
    known = dict(weights)
    for strategy in sorted(live):
        known = join(known, strategy)
    names = sorted(dict.fromkeys(live))
    return dict(zip(names, _summing_to_one([known[name].weight for name in names]), strict=True))


def drift(weights: Mapping[str, StrategyWeight], threshold: float) -> Drift:
    """Return how far the weights are from their reference, and whether that has reached the threshold."""
    moves = {name: abs(weights[name].weight - weights[name].reference) for name in sorted(weights)}
    ratio = 0.5 * fsum(moves.values())
    return Drift(
        ratio,
        ratio >= threshold,
        tuple(name for name, move in moves.items() if move >= threshold),
        max(moves.values(), default=0.0),
    )


def _decayed(before: float, value: float, decay: float) -> float:
    """Return an exponentially weighted mean moved towards a value."""
    return decay * before + (1.0 - decay) * value


def _summing_to_one(weights: Sequence[float]) -> list[float]:
    """Return the weights over their sum; equal ones where there is none."""
    total = fsum(weights)
    return [weight / total if total > 0.0 else 1.0 / len(weights) for weight in weights]


def _floored(weights: list[float], floor: float) -> list[float]:
    """Return weights that sum to 1, none below the floor: what those lack the others give in proportion."""
    low: list[bool] = [False] * len(weights)
    while True:
        free = 1.0 - floor * sum(low)
        total = fsum(weight for weight, is_low in zip(weights, low, strict=True) if not is_low)
        after = [floor if is_low else weight * free / total for weight, is_low in zip(weights, low, strict=True)]
        lower = [is_low or weight < floor for weight, is_low in zip(after, low, strict=True)]
        if lower == low:
            return after
        low = lower
