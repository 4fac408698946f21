"""Cholesky factorisation in a fixed order: the same bits on every machine, compiled or interpreted.

LAPACK and BLAS sum in an order that depends on the CPU and the number of threads; these loops do not. The subtractions
from each element happen in ascending order of the pivots, whatever vector instructions are used.

Source: Golub and Van Loan 2013, 4.2 (outer-product form).
"""

from collections.abc import Callable
from math import sqrt
from typing import Any, Final, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["compiled", "factor", "smallest_pivot"]

Function = TypeVar("Function", bound=Callable[..., Any])
Floats = NDArray[np.float64]

DIVISION: Final = "numpy"
"""Division by zero does not raise, so that loops need no branches; callers must not divide by zero."""


def compiled(function: Function) -> Function:
    """Compile a function of arrays to machine code with exact arithmetic: no fused or reordered operations.

    numba caches the code next to the function's file. Delete the cache after changing options here: numba does not
    notice.
    """
    machine_code: Function = njit(cache=True, error_model=DIVISION)(function)
    return machine_code


@compiled
def factor(matrix: Floats, floor: float) -> float:
    """Overwrite the upper triangle of a symmetric (n, n) matrix with U, UᵀU = A; return the smallest pivot.

    The pivots are the squares of U's diagonal. If a pivot is below `floor` (positive) or NaN, the function stops and
    returns it; the triangle is then incomplete. Elements below the diagonal are neither read nor written.
    """
    smallest = np.inf
    for k in range(matrix.shape[0]):
        top = matrix[k, k:]
        pivot = top[0]
        if not pivot >= floor:
            return float(pivot)
        smallest = min(smallest, pivot)
        root = sqrt(pivot)
        top[0] = root
        for j in range(1, top.size):
            top[j] /= root
        for i in range(1, top.size):
            row, above = matrix[k + i, k + i :], top[i:]
            times = above[0]
            for j in range(row.size):
                row[j] -= times * above[j]
    return float(smallest)


def smallest_pivot(matrix: Floats, floor: float) -> float:
    """Return the smallest pivot of a symmetric (n, n) matrix, or the first below `floor`; the matrix is not changed."""
    return factor(matrix.copy(), floor)
