"""The fixed-order factor against LAPACK's, and where it stops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.numerics.cholesky import factor, smallest_pivot


def drawn(n, seed):
    x = np.random.RandomState(seed).standard_normal((n, 2 * n + 2))
    return x @ x.T / (2 * n + 2)


@given(st.integers(1, 25), st.integers(0, 1000))
def test_the_factor_is_lapacks(n, seed):
    matrix = drawn(n, seed)
    upper = matrix.copy()
    smallest = factor(upper, 1e-9)
    oracle = np.linalg.cholesky(matrix).T
    assert np.triu(upper) == pytest.approx(oracle, abs=1e-10)
    assert smallest == pytest.approx((np.diag(oracle) ** 2).min())
    assert np.array_equal(np.tril(upper, -1), np.tril(matrix, -1))


def test_two_rows_by_hand():
    matrix = np.array([[4.0, 2.0], [2.0, 10.0]])
    assert smallest_pivot(matrix, 1e-4) == 4.0
    factor(matrix, 1e-4)
    assert matrix.tolist() == [[2.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize("rho", [1.0, 1.2, -0.9])
def test_it_stops_at_the_first_pivot_below_the_floor(rho):
    matrix = np.full((4, 4), rho)
    np.fill_diagonal(matrix, 1.0)
    before = matrix.copy()
    assert smallest_pivot(matrix, 1e-4) < 1e-4
    assert np.array_equal(matrix, before)


def test_a_pivot_just_above_the_floor_passes():
    matrix = np.diag([1.0, 1e-4, 1.0])
    assert smallest_pivot(matrix, 1e-4) == 1e-4
    assert smallest_pivot(matrix, 1.1e-4) == 1e-4


def test_what_is_no_number_is_no_pivot():
    assert np.isnan(smallest_pivot(np.array([[1.0, np.nan], [np.nan, 1.0]]), 1e-4))


def test_nothing_has_no_small_pivot():
    assert smallest_pivot(np.zeros((0, 0)), 1e-4) == np.inf
