"""Portfolio sizing (stage 10): reduces the symbols' sizes for their correlations.

The input is each symbol's net size over its cells. The Kelly program whose solution without correlations would be
exactly these sizes is solved with the actual correlations; no size increases.

    x_i = n_i/V   M_il = σ_i·σ_l·C_il   μ_i = M_ii·x_i/kf   max kf·μᵀw − ½·wᵀMw   0 ≤ sign(n_i)·w_i ≤ min(|x_i|, cap_i)

x already contains kf, so kf cancels. The stage never fails: a symbol without a valid variance is sized to 0, and if
the correlation matrix is not positive definite, all symbols are treated as perfectly correlated; both with a reason.

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
"""A size is unchanged if it would be reduced by no more than this share."""
SMALLEST_PIVOT: Final = 1e-6
"""A ridge is added below this. `correlation.shrunk` gives pivots of at least 1e-4; the largest stress leaves 1e-5."""
RIDGE: Final = 1e-4
"""In units of the largest variance."""
SMALLEST_VARIANCE: Final = 1e-30
LARGEST_VARIANCE: Final = 1e30
LARGEST_TARGET: Final = 1e12
"""Targets beyond this many times the value are refused."""
UNKNOWN: Final = -1
"""Row index of a symbol without correlations."""
SOLVED: Final = 0
RIDGED: Final = 1
AS_ONE: Final = 2
REASONS: Final = ("", "correlations nearly singular: ridge added", "correlations not positive definite: sized as one")
"""Reason by state: SOLVED, RIDGED, AS_ONE."""
POSITION_LIMIT: Final = "position limit"


class Correlations(NamedTuple):
    """C of docs/methods.md, section 6: shrunk, then stressed."""

    symbols: tuple[str, ...]
    """Symbols of the rows, ascending."""
    matrix: Floats
    """(n, n), symmetric; its diagonal counts as 1."""
    mean: float
    """Correlation of a symbol without a row with any other symbol, also stressed."""


class Reduction(NamedTuple):
    """Result of stage 10."""

    shares: dict[str, float]
    """q_i in [0, 1], by symbol, ascending."""
    weights: dict[str, float]
    """w_i by symbol, signed ratios of V, for symbols with a net size."""
    price: float
    """ν ≥ 0, positive if the gross limit binds."""
    reason: str
    """Problem with the inputs as a whole, or ""."""
    reasons: dict[str, str]
    """Reason by symbol, for each share below 1."""

    @property
    def penalties(self) -> dict[str, float]:
        """`correlation_penalties`: 1 − q_i, by symbol."""
        return {symbol: 1.0 - share for symbol, share in self.shares.items()}

    @property
    def bound(self) -> list[tuple[str, str]]:
        """(level, name) of each limit that reduced a symbol, named as in `engines.pipeline.caps`."""
        symbols = [("symbol", symbol) for symbol, reason in self.reasons.items() if reason == POSITION_LIMIT]
        return [*symbols, ("portfolio", "all")] if self.price > 0.0 else symbols


def second_moment(variance: float, mean: float, horizon_s: float) -> float:
    """Return (S_eff + m²)/H, a cell's predicted second moment of its symbol's return, per hour."""
    return (variance + mean * mean) / (horizon_s / 3_600.0)


def variances(cells: Sequence[tuple[str, str]], cents: Sequence[int], moments: Sequence[float]) -> dict[str, float]:
    """Return σ_i² by symbol: the |T|-weighted mean of the second moments of its non-zero cells.

    It is NaN if one of the moments is not in 1e-30 … 1e30.

    Args:
        cells: (strategy, symbol) of each row.
        cents: signed sizes T.
        moments: `second_moment` of each row; ignored if the size is 0.
    """
    terms: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for (_, symbol), size, moment in zip(cells, cents, moments, strict=True):
        if size:
            terms.setdefault(symbol, []).append(abs(size) * moment if _is_valid(moment) else nan)
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
    """Return the share of its size that each symbol keeps.

    Args:
        nets_cents: n_i by symbol, signed; a symbol with 0 is not part of the program and has the share 1.
        variances: σ_i² of each symbol with a net size; without a valid one the share is 0.
        correlations: C, shrunk and stressed.
        caps: P·max_j c_ji by symbol, a ratio of V; 0 if absent.
        gross: G, a ratio of V.
        value_usd: V.
    """
    shares = dict.fromkeys(sorted(nets_cents), 1.0)
    wanted = [symbol for symbol in shares if nets_cents[symbol]]
    if not (0.0 < value_usd < LARGEST_VARIANCE and 0.0 < gross < LARGEST_VARIANCE):
        nothing = dict.fromkeys(wanted, 0.0)
        valid = 0.0 < value_usd < LARGEST_VARIANCE
        reason = f"gross must be positive, was {gross}" if valid else f"value must be positive, was {value_usd}"
        return Reduction(shares | nothing, nothing, 0.0, reason, {})
    targets: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for symbol in wanted:
        target, variance = nets_cents[symbol] / (100.0 * value_usd), variances.get(symbol, nan)
        if not _is_valid(variance):
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


def _is_valid(variance: float) -> bool:
    return SMALLEST_VARIANCE <= variance <= LARGEST_VARIANCE


def _cause(size: float, cap: float, price: float, state: int) -> str:
    """Return why a symbol's weight is below its target."""
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
    """Return the weights by symbol, the price of the budget, and the state (SOLVED, RIDGED, AS_ONE)."""
    if not targets:
        return {}, 0.0, SOLVED
    if len(targets) == 1:
        [(symbol, target)] = targets.items()
        return _single_symbol(symbol, target, variances[symbol], caps.get(symbol, 0.0), gross)
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


def _single_symbol(
    symbol: str, target: float, variance: float, cap: float, gross: float
) -> tuple[dict[str, float], float, int]:
    """Return the solution for a single symbol: the smallest of its target, its cap and the budget."""
    wanted = min(abs(target), max(0.0, cap))
    size = min(wanted, gross)
    price = variance * (abs(target) - gross) if gross < wanted else 0.0
    return {symbol: size if target > 0.0 else -size}, price, SOLVED


def rows_of(correlations: Correlations, symbols: Iterable[str]) -> NDArray[np.int64]:
    """Return the row index of each symbol in the correlations, `UNKNOWN` if it has none."""
    return np.array([_row(correlations.symbols, symbol) for symbol in symbols], np.int64)


def _row(symbols: tuple[str, ...], symbol: str) -> int:
    at = bisect_left(symbols, symbol)
    return at if at < len(symbols) and symbols[at] == symbol else UNKNOWN


# -- compiled ----------------------------------------------------------------------------------------------------------
@compiled
def _solved(
    targets: Floats, sigma: Floats, caps: Floats, rows: NDArray[np.int64], matrix: Floats, mean: float, gross: float
) -> tuple[Floats, float, int]:
    """Return the weights for the targets x, the price of the budget, and the state."""
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
    """Return C for these rows; a row without correlations has the mean."""
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
    """Add 1e-4 of the largest variance to every variance of a matrix in units of the symbols' own deviations."""
    largest = 0.0
    for each in sigma:
        largest = max(largest, each)
    for i in range(sigma.size):
        matrix[i, i] += RIDGE * (largest / sigma[i]) * (largest / sigma[i])


@compiled
def _as_one(targets: Floats, sigma: Floats, limits: Floats, gross: float) -> Floats:
    """Return the weights for perfectly correlated symbols: the same share of every target.

    The optimal common share if the risks r_i = σ_i·|x_i| add up is Σr²/(Σr)²; limits and budget are applied after it.
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
