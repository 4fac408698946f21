"""Kelly program: weights of correlated assets with individual limits and one shared budget.

    maximise kf·μᵀw − ½·wᵀMw   subject to   |w_i| ≤ u_i,   Σ|w_i| ≤ G

and, unless hedges are allowed, w_i has the sign of μ_i or is 0. The price of the budget, ν, is the gain from one more
unit of G; it is 0 if the budget does not bind.

Coordinate descent finds which weights are free, at their limit or zero, while a penalty (the spring) pulls Σ|w| to G.
One Cholesky solve then gives the free weights and ν up to rounding, and the signs of the Karush-Kuhn-Tucker conditions
show whether the guess was right. If not, the guess is corrected up to three times, and descent continues. Alternating
like this, 30 corrections suffice except in about one of several thousand hard cases; 30 corrections in a row cycled in
one of fifty. If they do not suffice, descent runs to convergence, with ν from the Illinois method.

Loops are compiled, in fixed order, without BLAS: the same bits on every machine, compiled or interpreted.

Source: docs/methods.md, section 7; Júdice and Pires 1994 (changing all wrong indices at once); Dowell and Jarratt
1971 (the Illinois method); Bertsekas 1982 (method of multipliers, the spring).
"""

from math import sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.numerics.cholesky import compiled, factor

__all__ = ["Floats", "Solution", "solution", "solve"]

Floats = NDArray[np.float64]
Marks = NDArray[np.int64]

SWEEPS: Final = 20
"""Sweeps of coordinate descent before each attempt at an exact solution."""
CHANGES: Final = 3
"""Corrections of the active set in one attempt."""
ATTEMPTS: Final = 10
SPRING: Final = 0.1
"""Stiffness of the penalty on Σ|w| − G during descent, in units of the mean diagonal of M."""
SMALLEST_STEP: Final = 1e-12
"""Descent has converged when no weight moves by more than this in a sweep."""
MOST_SWEEPS: Final = 2_000
MOST_PRICES: Final = 100
ROUNDING: Final = 1e-13
"""Relative tolerance for equality."""
SMALLEST_WEIGHT: Final = 1e-14
SMALLEST_PIVOT: Final = 1e-300
"""Smallest pivot of a matrix that counts as positive definite."""
OUT: Final = 0
FREE: Final = 1
FULL: Final = 2
"""Marks of a weight: zero, between, at its limit; times its sign."""


class Solution(NamedTuple):
    """The weights, and how they were found."""

    weights: Floats
    """(n,), within the limits and the budget."""
    price: float
    """ν ≥ 0, the multiplier of the budget; positive if it binds."""
    solves: int
    """Number of Cholesky solves."""
    method: int
    """0: exact solution. 1: exact solution after descent to convergence (steps below 1e-12). 2: descent only."""


def solve(mu: Floats, M: Floats, caps: Floats, gross: float, kf: float, *, hedges: bool = False) -> Floats:
    """Return the (n,) weights that maximise kf·μᵀw − ½·wᵀMw within |w_i| ≤ u_i and Σ|w| ≤ G.

    Args:
        mu: (n,) expected returns.
        M: (n, n) second moments of the returns, symmetric, positive definite.
        caps: (n,) u, at least 0.
        gross: G, positive.
        kf: share of full Kelly, positive.
        hedges: whether a weight may have the opposite sign of its expected return.
    """
    return solution(kf * mu, M, caps, gross, hedges).weights


@compiled
def solution(pull: Floats, M: Floats, caps: Floats, gross: float, hedges: bool) -> Solution:  # noqa: FBT001 (numba)
    """Return the solution for a pull kf·μ; the other arguments are those of `solve`."""
    n = pull.size
    lower, upper = np.zeros(n), np.zeros(n)
    stiffness, count = 0.0, 0
    for i in range(n):
        if caps[i] > 0.0 and (hedges or pull[i] != 0.0):
            upper[i] = caps[i] if hedges or pull[i] > 0.0 else 0.0
            lower[i] = -caps[i] if hedges or pull[i] < 0.0 else 0.0
            stiffness += M[i, i]
            count += 1
    weights, slope = np.zeros(n), pull.copy()
    spring = SPRING * stiffness / max(count, 1)
    total, price, solves = 0.0, 0.0, 0
    for _ in range(ATTEMPTS):
        for _ in range(SWEEPS):
            total, _ = _sweep(weights, slope, total, M, lower, upper, price, spring, gross)
            price = max(0.0, price + spring * (total - gross))
        settled, found, tries = _finish(weights, pull, M, lower, upper, gross, price)
        solves += tries
        if settled:
            return Solution(weights, found, solves, 0)
    price = _descend(weights, pull, M, lower, upper, gross)
    settled, found, tries = _finish(weights, pull, M, lower, upper, gross, price)
    return Solution(weights, found if settled else price, solves + tries, 1 if settled else 2)


# -- coordinate descent ------------------------------------------------------------------------------------------------
@compiled
def _sweep(
    weights: Floats,
    slope: Floats,
    total: float,
    M: Floats,
    lower: Floats,
    upper: Floats,
    price: float,
    spring: float,
    gross: float,
) -> tuple[float, float]:
    """Optimise each weight in turn with the others fixed; return Σ|w| and the largest step.

    `slope`, pull − M·w, is updated too. The spring raises the price of the budget by its stiffness times Σ|w| − G.
    """
    largest = 0.0
    for i in range(weights.size):
        if lower[i] == upper[i]:
            continue
        row, was = M[i], weights[i]
        alone = slope[i] + row[i] * was
        size, others = abs(alone), total - abs(was)
        if spring > 0.0:
            now = size / row[i]
            charge = price + spring * (others - gross)
            if charge + spring * now > 0.0:
                now = max((size - charge) / (row[i] + spring), 0.0)
        else:
            now = max((size - price) / row[i], 0.0)
        now = min(max(now if alone > 0.0 else -now, lower[i]), upper[i])
        step = now - was
        if step != 0.0:
            _subtract(slope, step, row)
            weights[i] = now
            total = others + abs(now)
            largest = max(largest, abs(step))
    return total, largest


@compiled
def _subtract(slope: Floats, step: float, row: Floats) -> None:
    """Subtract step times a row from the slope."""
    for j in range(row.size):
        slope[j] -= step * row[j]


@compiled
def _gross(weights: Floats) -> float:
    """Return Σ|w|."""
    total = 0.0
    for weight in weights:
        total += abs(weight)
    return total


@compiled
def _at_price(weights: Floats, pull: Floats, M: Floats, lower: Floats, upper: Floats, price: float) -> float:
    """Run descent at a fixed price of the budget to convergence; return Σ|w|."""
    slope = pull.copy()
    for i in range(weights.size):
        _subtract(slope, weights[i], M[i])
    for _ in range(MOST_SWEEPS):
        _, largest = _sweep(weights, slope, 0.0, M, lower, upper, price, 0.0, 0.0)
        if largest < SMALLEST_STEP:
            break
    return _gross(weights)


@compiled
def _descend(weights: Floats, pull: Floats, M: Floats, lower: Floats, upper: Floats, gross: float) -> float:
    """Run descent to convergence and find the price of the budget by the Illinois method; return the price."""
    low, above = 0.0, _at_price(weights, pull, M, lower, upper, 0.0) - gross
    if above <= 0.0:
        return 0.0
    high, below = 0.0, -gross
    for each in pull:
        high = max(high, abs(each))
    price, side = 0.0, 0
    for _ in range(MOST_PRICES):
        price = (low * below - high * above) / (below - above)
        excess = _at_price(weights, pull, M, lower, upper, price) - gross
        if abs(excess) <= ROUNDING * gross:
            break
        if excess > 0.0:
            low, above = price, excess
            below = 0.5 * below if side == 1 else below
            side = 1
        else:
            high, below = price, excess
            above = 0.5 * above if side == -1 else above
            side = -1
    return price


# -- exact solution ----------------------------------------------------------------------------------------------------
@compiled
def _finish(
    weights: Floats, pull: Floats, M: Floats, lower: Floats, upper: Floats, gross: float, price: float
) -> tuple[bool, float, int]:
    """Guess from the weights which of them are free, solve, and correct the guess; store the weights on success.

    Whether the budget binds is guessed as well; if that guess is wrong, the next descent has to correct it.

    Returns:
        Whether it succeeded, the price, and the number of solves.
    """
    n = weights.size
    marks = _marks(weights, lower, upper)
    slack = _slack(pull, M)
    binding = price > 0.0
    solves = 0
    for _ in range(CHANGES):
        at, slope = np.zeros(n), pull.copy()
        free, held = _hold(marks, M, lower, upper, at, slope)
        if binding and free.size == 0 and held > gross * (1.0 + ROUNDING):
            _release(marks, slope)
            continue
        solves += 1
        price, solved = _solve_free(free, marks, M, at, slope, held, gross, binding)
        turned = price < 0.0 if binding else _gross(at) > gross * (1.0 + ROUNDING)
        if turned or not solved:
            break
        if _correct(marks, at, slope, lower, upper, price, slack) == 0:
            for i in range(n):
                weights[i] = min(max(at[i], lower[i]), upper[i])
            return True, price, solves
    return False, price, solves


@compiled
def _marks(weights: Floats, lower: Floats, upper: Floats) -> Marks:
    """Return OUT, ±FREE or ±FULL for each weight."""
    marks = np.zeros(weights.size, np.int64)
    for i in range(weights.size):
        if weights[i] > 0.0:
            marks[i] = FULL if weights[i] >= upper[i] else FREE
        elif weights[i] < 0.0:
            marks[i] = -FULL if weights[i] <= lower[i] else -FREE
    return marks


@compiled
def _slack(pull: Floats, M: Floats) -> Floats:
    """Return the rounding tolerance of each slope: 1e-13 of the largest pull, scaled by the asset's deviation."""
    largest = 0.0
    for i in range(pull.size):
        largest = max(largest, abs(pull[i]) / sqrt(M[i, i]))
    slack = np.empty(pull.size)
    for i in range(pull.size):
        slack[i] = ROUNDING * largest * sqrt(M[i, i])
    return slack


@compiled
def _hold(marks: Marks, M: Floats, lower: Floats, upper: Floats, at: Floats, slope: Floats) -> tuple[Marks, float]:
    """Set the weights at their limits and update the slope; return the free indices and Σ|w| of the other weights."""
    free = np.empty(marks.size, np.int64)
    count, held = 0, 0.0
    for i in range(marks.size):
        if abs(marks[i]) == FREE:
            free[count] = i
            count += 1
        elif marks[i] != OUT:
            at[i] = upper[i] if marks[i] > 0 else lower[i]
            held += abs(at[i])
            _subtract(slope, at[i], M[i])
    return free[:count], held


@compiled
def _release(marks: Marks, slope: Floats) -> None:
    """Free the weight that gains least from its limit; called if the weights at their limits exceed the budget."""
    least, weakest = np.inf, 0
    for i in range(marks.size):
        if abs(marks[i]) == FULL:
            push = slope[i] if marks[i] > 0 else -slope[i]
            if push < least:
                least, weakest = push, i
    marks[weakest] = FREE if marks[weakest] > 0 else -FREE


@compiled
def _solve_free(
    free: Marks,
    marks: Marks,
    M: Floats,
    at: Floats,
    slope: Floats,
    held: float,
    gross: float,
    binding: bool,  # noqa: FBT001 (numba)
) -> tuple[float, bool]:
    """Set the free weights to a − ν·b, where M_FF·a = slope and M_FF·b = signs; return the price and its validity.

    If no weight is free, the price is the largest |slope| among the zero weights, or −1 if the budget is not used up.
    """
    m = free.size
    if m == 0:
        return (_strongest(marks, slope) if held >= gross * (1.0 - ROUNDING) else -1.0) if binding else 0.0, True
    triangle, a, b = np.empty((m, m)), np.empty(m), np.empty(m)
    for k in range(m):
        for l in range(k, m):
            triangle[k, l] = M[free[k], free[l]]
        a[k] = slope[free[k]]
        b[k] = marks[free[k]]
    if not factor(triangle, SMALLEST_PIVOT) > 0.0:
        return 0.0, False
    _substitute(triangle, a, b)
    price = 0.0
    if binding:
        over, per_price = held - gross, 0.0
        for k in range(m):
            over += marks[free[k]] * a[k]
            per_price += marks[free[k]] * b[k]
        price = over / per_price
    for k in range(m):
        at[free[k]] = a[k] - price * b[k]
        _subtract(slope, at[free[k]], M[free[k]])
    return price, True


@compiled
def _strongest(marks: Marks, slope: Floats) -> float:
    """Return the largest |slope| among the zero weights."""
    largest = 0.0
    for i in range(marks.size):
        if marks[i] == OUT:
            largest = max(largest, abs(slope[i]))
    return largest


@compiled
def _substitute(triangle: Floats, a: Floats, b: Floats) -> None:
    """Solve UᵀU·x = a and UᵀU·x = b in place, by columns forward and by rows backward."""
    m = a.size
    for k in range(m):
        row = triangle[k]
        a[k] /= row[k]
        b[k] /= row[k]
        for l in range(k + 1, m):
            a[l] -= row[l] * a[k]
            b[l] -= row[l] * b[k]
    for k in range(m - 1, -1, -1):
        row = triangle[k]
        for l in range(k + 1, m):
            a[k] -= row[l] * a[l]
            b[k] -= row[l] * b[l]
        a[k] /= row[k]
        b[k] /= row[k]


@compiled
def _correct(marks: Marks, at: Floats, slope: Floats, lower: Floats, upper: Floats, price: float, slack: Floats) -> int:
    """Correct every mark that violates the optimality conditions; return their number."""
    wrong = 0
    for i in range(marks.size):
        if lower[i] == upper[i]:
            continue
        margin = slack[i] + ROUNDING * abs(price)
        mark = _corrected(marks[i], at[i], slope[i], lower[i], upper[i], price, margin)
        if mark != marks[i]:
            marks[i] = mark
            wrong += 1
    return wrong


@compiled
def _corrected(mark: int, weight: float, slope: float, lower: float, upper: float, price: float, margin: float) -> int:
    """Return the corrected mark of a weight.

    A free weight beyond its limit becomes full, one with the wrong sign out. A weight that is out becomes free if its
    slope is above the price, a full one if its slope is below the price.
    """
    sign = 1 if mark > 0 else -1
    if mark == OUT:
        if slope > price + margin and upper > 0.0:
            return FREE
        return -FREE if slope < -price - margin and lower < 0.0 else OUT
    if abs(mark) == FULL:
        return sign * FREE if sign * slope < price - margin else mark
    if sign * weight < -SMALLEST_WEIGHT:
        return OUT
    beyond = weight > upper * (1.0 + ROUNDING) or weight < lower * (1.0 + ROUNDING)
    return sign * FULL if beyond else mark
