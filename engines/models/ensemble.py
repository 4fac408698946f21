"""Ensemble (stage 9): combines several strategies that forecast the same symbol, and weights them by performance.

Three things are learnt. The correlation ρ of the forecasts: k strategies together are worth k/(1+(k−1)ρ) of one, not k.
The recent performance of each strategy, which gives its weight (Hedge with a fixed share, so no strategy is written
off). A slow reference of the weights, against which drift is measured, so that many small steps count like one jump.

    >>> weights, params = begin(["momentum", "carry"]), EnsembleParams()
    >>> for _ in range(100):
    ...     weights = observe(weights, "momentum", loss(1, 0.03, 0.02), params)  # gains 1.5 claimed volatilities
    >>> [(name, round(each.weight, 3)) for name, each in weights.items()]
    [('carry', 0.224), ('momentum', 0.776)]

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
"""Loss of a strategy without an outcome."""
LOSS_RANGE_SD: Final = 3.0
"""Gain, or loss, in claimed volatilities at which the loss function reaches 0, or 1."""
LARGEST_SQUARE: Final = 1e100
"""Forecasts with a larger sum of squares are ignored."""


class ForecastCorrelation(NamedTuple):
    """Moments of the forecasts of a portfolio's strategies."""

    product: float
    """EWMA, starting at 0, of the mean of f_j·f_l over the pairs of a symbol."""
    square: float
    """EWMA, starting at 0, of the mean of f²."""
    samples: int


class StrategyWeight(NamedTuple):
    """Weight of one strategy; each field sums to 1 over the strategies of a portfolio."""

    weight: float
    reference: float
    """Slow EWMA of the weight."""


class Drift(NamedTuple):
    """Distance of the weights from their slow reference."""

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
    """Return the combined size of each cell: trunc(T·min(1, N·h_j)/(1 + (k_i − 1)·ρ)).

    Args:
        cells: (strategy, symbol) of each row; k_i is the number of non-zero rows of a symbol.
        cents: signed sizes T.
        weights: of the N live strategies, in any scale; h_j is a weight divided by their sum. Other strategies get 0.
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
    """Return the sizes with opposite cells of each symbol netted, truncated toward zero.

    Where a symbol has long and short cells, each cell of its larger side keeps trunc(|T|·|n|/D), with n the symbol's
    net and D the gross of that side; the other side gets nothing. So no symbol is capped on a gross that nobody holds.
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


# -- correlation of forecasts ------------------------------------------------------------------------------------------
def forecast(side: int, mean: float, volatility: float) -> float:
    """Return f = side·m/s, a live cell's forecast in units of its claimed volatility."""
    return side * mean / volatility


def observe_forecasts(
    before: ForecastCorrelation | None, forecasts: Sequence[float], params: EnsembleParams
) -> ForecastCorrelation | None:
    """Return the moments updated by the forecasts of a symbol's live cells, at a signal for it.

    They are unchanged if there are fewer than two forecasts, if all are zero, or if one is not finite.
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
    """Return ρ in [0, 1]; the prior correlation until there are enough samples."""
    if moments is None or moments.samples < params.correlation_samples or not moments.square > 0.0:
        return params.prior_correlation
    return min(max(moments.product / moments.square, 0.0), 1.0)


# -- performance of strategies -----------------------------------------------------------------------------------------
def begin(strategies: Sequence[str]) -> dict[str, StrategyWeight]:
    """Return equal weights."""
    equal = 1.0 / max(len(strategies), 1)
    return {strategy: StrategyWeight(equal, equal) for strategy in sorted(strategies)}


def join(weights: Mapping[str, StrategyWeight], strategy: str) -> dict[str, StrategyWeight]:
    """Return the weights with a strategy added: it gets 1/N of each weight and reference, so nothing drifts."""
    if strategy in weights:
        return dict(weights)
    equal = 1.0 / (len(weights) + 1)
    rest = 1.0 - equal
    joined = {name: StrategyWeight(rest * each.weight, rest * each.reference) for name, each in weights.items()}
    joined[strategy] = StrategyWeight(equal, equal)
    return {name: joined[name] for name in sorted(joined)}


def leave(weights: Mapping[str, StrategyWeight], strategy: str) -> dict[str, StrategyWeight]:
    """Return the weights with a strategy removed; the others keep their proportions."""
    rest = {name: weights[name] for name in sorted(weights) if name != strategy}
    current = _summing_to_one([each.weight for each in rest.values()])
    reference = _summing_to_one([each.reference for each in rest.values()])
    return {name: StrategyWeight(*pair) for name, pair in zip(rest, zip(current, reference, strict=True), strict=True)}


def loss(side: int, realised: float, volatility: float) -> float:
    """Return ℓ = clip((1 − side·r/(3s))/2, 0, 1): 0 for a gain of 3 claimed volatilities, 1 for a loss of 3.

    The neutral .5 if r or s is not finite, or s is not positive.
    """
    reach = LOSS_RANGE_SD * volatility
    if not (0.0 < reach < LARGEST_SQUARE and -LARGEST_SQUARE < realised < LARGEST_SQUARE):
        return NEUTRAL
    return min(max(0.5 * (1.0 - side * realised / reach), 0.0), 1.0)


def observe(
    weights: Mapping[str, StrategyWeight], strategy: str, loss: float, params: EnsembleParams
) -> dict[str, StrategyWeight]:
    """Return all weights and references after the loss, in [0, 1], of one strategy's outcome.

    The other strategies have the neutral loss .5. An unknown strategy is added first.
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
    """Return the weights after one round of losses: Hedge, normalisation, fixed share, floor, in this order.

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
    """Return h of the live strategies, by name, summing to 1. A strategy without a weight is added as by `join`."""
    known = dict(weights)
    for strategy in sorted(live):
        known = join(known, strategy)
    names = sorted(dict.fromkeys(live))
    return dict(zip(names, _summing_to_one([known[name].weight for name in names]), strict=True))


def drift(weights: Mapping[str, StrategyWeight], threshold: float) -> Drift:
    """Return the distance of the weights from their reference, and whether it has reached the threshold."""
    moves = {name: abs(weights[name].weight - weights[name].reference) for name in sorted(weights)}
    ratio = 0.5 * fsum(moves.values())
    return Drift(
        ratio,
        ratio >= threshold,
        tuple(name for name, move in moves.items() if move >= threshold),
        max(moves.values(), default=0.0),
    )


def _decayed(before: float, value: float, decay: float) -> float:
    """Return an exponentially weighted mean after one more value."""
    return decay * before + (1.0 - decay) * value


def _summing_to_one(weights: Sequence[float]) -> list[float]:
    """Return the weights divided by their sum; equal weights if the sum is 0."""
    total = fsum(weights)
    return [weight / total if total > 0.0 else 1.0 / len(weights) for weight in weights]


def _floored(weights: list[float], floor: float) -> list[float]:
    """Return weights that sum to 1 with none below the floor; the others are reduced in proportion."""
    low: list[bool] = [False] * len(weights)
    while True:
        free = 1.0 - floor * sum(low)
        total = fsum(weight for weight, is_low in zip(weights, low, strict=True) if not is_low)
        after = [floor if is_low else weight * free / total for weight, is_low in zip(weights, low, strict=True)]
        lower = [is_low or weight < floor for weight, is_low in zip(after, low, strict=True)]
        if lower == low:
            return after
        low = lower
