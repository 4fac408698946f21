"""Cholesky in fixed order, compiled: the same bits on every machine, and the same as interpreted.

LAPACK and BLAS sum in an order that depends on the CPU and the number of threads; these loops do not. Each element is
reached by its subtractions in ascending order of the pivots, whatever vector unit carries them out.

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
"""A division by zero raises nothing, so that loops stay free of branches; who divides sees to it that there is none."""


def compiled(function: Function) -> Function:
    """Compile a function of arrays to machine code with exact arithmetic: nothing fused, nothing put in other order.

    numba keeps the code beside the function's file and does not see that options here have changed: then delete it.
    """
    machine_code: Function = njit(cache=True, error_model=DIVISION)(function)
    return machine_code


@compiled
def factor(matrix: Floats, floor: float) -> float:
    """Overwrite the upper triangle of a symmetric (n, n) matrix with U, UᵀU = A; return the smallest pivot.

    The pivots are the squares of U's diagonal. It stops at a pivot below `floor` (positive) or that is no number, and
    returns that one: then the triangle is half done. Below the diagonal nothing is read or written.
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
    """Return the smallest pivot of a symmetric (n, n) matrix, or the first below `floor`; the matrix stays as it is."""
    return factor(matrix.copy(), floor)
