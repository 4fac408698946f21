"""Stage 10: what the symbols of a portfolio may hold together, given that they move together.

Each symbol comes with the net size that its own cells want. The Kelly program that has just these sizes as its answer
where nothing is correlated is solved with the correlations as they are; what it gives is never more than was wanted.

    x_i = n_i/V   M_il = σ_i·σ_l·C_il   μ_i = M_ii·x_i/kf   max kf·μᵀw − ½·wᵀMw   0 ≤ sign(n_i)·w_i ≤ min(|x_i|, cap_i)

kf is in x already, so it cancels here. Nothing fails: what has no variance is sized to 0, and where the correlations
are no correlations all is taken to move as one; both with a reason.

Source: docs/pipeline.md, stage 10; docs/methods.md, section 7.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from math import fsum, nan, sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.numerics.cholesky import compiled, factor
from engines.numerics.kelly_program import Floats, solution, solve

__all__ = ["Correlations", "Reduction", "allocate", "reduce", "second_moment", "solve", "variances"]

UNCHANGED: Final = 1e-9
"""A size is left as it is where no more than this share of it would be taken."""
SMALLEST_PIVOT: Final = 1e-6
"""The ridge is added below this; what §6 gives has pivots of 1e-4, and of 1e-5 under the greatest stress."""
RIDGE: Final = 1e-4
"""In largest variances."""
SMALLEST_VARIANCE: Final = 1e-30
LARGEST_VARIANCE: Final = 1e30
LARGEST_TARGET: Final = 1e12
"""Nothing is wanted beyond this many times the value."""
UNKNOWN: Final = -1
"""Row of a symbol without correlations."""
SOLVED: Final = 0
RIDGED: Final = 1
AS_ONE: Final = 2
REASONS: Final = ("", "correlations nearly singular: ridge added", "correlations not positive definite: sized as one")
"""By how the weights were found."""
POSITION_LIMIT: Final = "position limit"


class Correlations(NamedTuple):
    """C of §6, shrunk and then stressed."""

    symbols: tuple[str, ...]
    """Whose row is which, ascending."""
    matrix: Floats
    """(n, n), symmetric; its diagonal is taken as 1."""
    mean: float
    """Correlation of a symbol that has no row with any other, stressed likewise."""


class Reduction(NamedTuple):
    """What stage 10 leaves of each symbol."""

    shares: dict[str, float]
    """q_i in [0, 1], by symbol, ascending."""
    weights: dict[str, float]
    """w_i, signed ratios of V, of the symbols with a net size."""
    price: float
    """ν ≥ 0, positive where the gross limit binds."""
    reason: str
    """What was amiss with the whole, or ""."""
    reasons: dict[str, str]
    """Why, by symbol, where a share is below 1."""

    @property
    def penalties(self) -> dict[str, float]:
        """`correlation_penalties`: 1 − q_i, by symbol."""
        return {symbol: 1.0 - share for symbol, share in self.shares.items()}

    @property
    def bound(self) -> list[tuple[str, str]]:
        """(level, name) of each limit that held a symbol below its target, as `engines.pipeline.caps` names them."""
        symbols = [("symbol", symbol) for symbol, reason in self.reasons.items() if reason == POSITION_LIMIT]
        return [*symbols, ("portfolio", "all")] if self.price > 0.0 else symbols


def second_moment(variance: float, mean: float, horizon_s: float) -> float:
    """Return (S_eff + m²)/H, the second moment that a cell expects of its symbol's return, per hour."""
    return (variance + mean * mean) / (horizon_s / 3_600.0)


def variances(cells: Sequence[tuple[str, str]], cents: Sequence[int], moments: Sequence[float]) -> dict[str, float]:
    """Return σ_i² by symbol: the |T|-weighted mean of the second moments of its cells that have a size.

    It is NaN where one of them is not in 1e-30 … 1e30.

    Args:
        cells: (strategy, symbol) of each row.
        cents: signed sizes T.
        moments: what `second_moment` gives for each row; not looked at where the size is 0.
    """
    terms: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for (_, symbol), size, moment in zip(cells, cents, moments, strict=True):
        if size:
            terms.setdefault(symbol, []).append(abs(size) * moment if _sound(moment) else nan)
            sizes[symbol] = sizes.get(symbol, 0) + abs(size)
    return {symbol: fsum(terms[symbol]) / size for symbol, size in sizes.items()}


def allocate(
    nets_cents: Mapping[str, int],
    variances: Mapping[str, float],
    correlations: Correlations,
    caps: Mapping[str, float],
    gross: float,
    value_usd: float,
) -> Reduction:
    """Return the share that each symbol keeps of what its cells want.

    Args:
        nets_cents: n_i by symbol, signed; one that is 0 is left out and keeps all.
        variances: σ_i² of each symbol with a net size; without a sound one it keeps nothing.
        correlations: C, stressed and shrunk.
        caps: P·max_j c_ji by symbol, a ratio of V; 0 where absent.
        gross: G, a ratio of V.
        value_usd: V.
    """
    shares = dict.fromkeys(sorted(nets_cents), 1.0)
    wanted = [symbol for symbol in shares if nets_cents[symbol]]
    if not (0.0 < value_usd < LARGEST_VARIANCE and 0.0 < gross < LARGEST_VARIANCE):
        nothing = dict.fromkeys(wanted, 0.0)
        sound = 0.0 < value_usd < LARGEST_VARIANCE
        reason = f"gross must be positive, was {gross}" if sound else f"value must be positive, was {value_usd}"
        return Reduction(shares | nothing, nothing, 0.0, reason, {})
    targets: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for symbol in wanted:
        target, variance = nets_cents[symbol] / (100.0 * value_usd), variances.get(symbol, nan)
        if not _sound(variance):
            reasons[symbol] = f"variance must be positive, was {variance}"
        elif abs(target) > LARGEST_TARGET:
            reasons[symbol] = f"target must be at most {LARGEST_TARGET} of the value, was {target}"
        else:
            targets[symbol] = target
    found, price, state = _weights(targets, variances, correlations, caps, gross)
    weights = {symbol: found.get(symbol, 0.0) for symbol in wanted}
    shares.update(dict.fromkeys(reasons, 0.0))
    for symbol, target in targets.items():
        size, most = abs(weights[symbol]), abs(target)
        if size < most * (1.0 - UNCHANGED):
            shares[symbol] = size / most
            reasons[symbol] = _cause(size, caps.get(symbol, 0.0), price, state)
    return Reduction(shares, weights, price, REASONS[state], reasons)


def reduce(cells: Sequence[tuple[str, str]], cents: Sequence[int], shares: Mapping[str, float]) -> list[int]:
    """Return T·q of each row, truncated toward zero."""
    if all(share == 1.0 for share in shares.values()):
        return list(cents)
    return [int(size * shares[symbol]) for (_, symbol), size in zip(cells, cents, strict=True)]


def _sound(variance: float) -> bool:
    return SMALLEST_VARIANCE <= variance <= LARGEST_VARIANCE


def _cause(size: float, cap: float, price: float, state: int) -> str:
    """Return what held a symbol below its target."""
    if size >= cap * (1.0 - UNCHANGED):
        return POSITION_LIMIT
    if state == AS_ONE:
        return "taken to move as one"
    return "gross limit" if price > 0.0 else "correlation"


def _weights(
    targets: Mapping[str, float],
    variances: Mapping[str, float],
    correlations: Correlations,
    caps: Mapping[str, float],
    gross: float,
) -> tuple[dict[str, float], float, int]:
    """Return the weights by symbol, the price of the budget, and how they were found."""
    if not targets:
        return {}, 0.0, SOLVED
    if len(targets) == 1:
        [(symbol, target)] = targets.items()
        return _alone(symbol, target, variances[symbol], caps.get(symbol, 0.0), gross)
    found, price, state = _solved(
        np.array(list(targets.values())),
        np.array([sqrt(variances[symbol]) for symbol in targets]),
        np.array([caps.get(symbol, 0.0) for symbol in targets]),
        rows_of(correlations, targets),
        correlations.matrix,
        correlations.mean,
        gross,
    )
    return dict(zip(targets, found.tolist(), strict=True)), price, state


def _alone(
    symbol: str, target: float, variance: float, cap: float, gross: float
) -> tuple[dict[str, float], float, int]:
    """Return the answer for one symbol: its target, its cap or the budget, whichever is least."""
    wanted = min(abs(target), max(0.0, cap))
    size = min(wanted, gross)
    price = variance * (abs(target) - gross) if gross < wanted else 0.0
    return {symbol: size if target > 0.0 else -size}, price, SOLVED


def rows_of(correlations: Correlations, symbols: Iterable[str]) -> NDArray[np.int64]:
    """Return the place of each symbol among the correlations, `UNKNOWN` for one that has none."""
    return np.array([_row(correlations.symbols, symbol) for symbol in symbols], np.int64)


def _row(symbols: tuple[str, ...], symbol: str) -> int:
    at = bisect_left(symbols, symbol)
    return at if at < len(symbols) and symbols[at] == symbol else UNKNOWN


# -- compiled ----------------------------------------------------------------------------------------------------------
@compiled
def _solved(
    targets: Floats, sigma: Floats, caps: Floats, rows: NDArray[np.int64], matrix: Floats, mean: float, gross: float
) -> tuple[Floats, float, int]:
    """Return the weights of the targets x, the price of the budget, and how they were found."""
    n = targets.size
    limits = np.zeros(n)
    for i in range(n):
        if caps[i] > 0.0:
            limits[i] = min(abs(targets[i]), caps[i])
    moments = correlated(rows, matrix, mean)
    state = SOLVED
    if not factor(moments.copy(), SMALLEST_PIVOT) >= SMALLEST_PIVOT:
        state = RIDGED
        _add_ridge(moments, sigma)
        if not factor(moments.copy(), SMALLEST_PIVOT) >= SMALLEST_PIVOT:
            return _as_one(targets, sigma, limits, gross), 0.0, AS_ONE
    pull = np.empty(n)
    for i in range(n):
        pull[i] = sigma[i] * sigma[i] * targets[i]
        for l in range(n):
            moments[i, l] *= sigma[i] * sigma[l]
    found = solution(pull, moments, limits, gross, False)  # noqa: FBT003 (numba)
    return found.weights, found.price, state


@compiled
def correlated(rows: NDArray[np.int64], matrix: Floats, mean: float) -> Floats:
    """Return C of these rows, the mean where one has no correlations."""
    n = rows.size
    chosen = np.empty((n, n))
    for i in range(n):
        chosen[i, i] = 1.0
        for l in range(i + 1, n):
            pair = mean if rows[i] < 0 or rows[l] < 0 else matrix[rows[i], rows[l]]
            chosen[i, l] = chosen[l, i] = pair
    return chosen


@compiled
def _add_ridge(matrix: Floats, sigma: Floats) -> None:
    """Add 1e-4 of the largest variance to every variance; the matrix is in units of each symbol's own deviation."""
    largest = 0.0
    for each in sigma:
        largest = max(largest, each)
    for i in range(sigma.size):
        matrix[i, i] += RIDGE * (largest / sigma[i]) * (largest / sigma[i])


@compiled
def _as_one(targets: Floats, sigma: Floats, limits: Floats, gross: float) -> Floats:
    """Return the weights where all are taken to move as one: a common share of every target.

    It is the best common share where the risks r_i = σ_i·|x_i| simply add up, Σr²/(Σr)²; then the limits hold, and the
    budget.
    """
    squares, total = 0.0, 0.0
    for i in range(targets.size):
        risk = sigma[i] * abs(targets[i])
        squares += risk * risk
        total += risk
    share = squares / (total * total)
    weights = np.empty(targets.size)
    used = 0.0
    for i in range(targets.size):
        weights[i] = min(share * abs(targets[i]), limits[i])
        used += weights[i]
    scale = gross / used if used > gross else 1.0
    for i in range(targets.size):
        weights[i] *= scale if targets[i] > 0.0 else -scale
    return weights
