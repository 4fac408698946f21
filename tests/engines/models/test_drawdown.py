"""How a fall from the peak shrinks sizes."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models import drawdown

money = st.floats(min_value=0.01, max_value=1e12)
bounds = st.floats(min_value=0.01, max_value=0.99)


@pytest.mark.parametrize(
    ("value", "multiplier"),
    [(100.0, 1.0), (90.0, 0.7407), (85.0, 0.5882), (80.0, 0.4167), (70.0, 0.0), (65.0, 0.0)],
)
def test_at_most_thirty_percent_gives_the_six_numbers_of_the_specification(value, multiplier):
    assert drawdown.multiplier(100.0, value, 0.30) == pytest.approx(multiplier, abs=5e-5)


def test_at_the_peak_nothing_is_taken_and_a_lost_portfolio_bets_nothing():
    assert drawdown.multiplier(123_456.78, 123_456.78, 0.3) == 1.0
    assert drawdown.multiplier(100.0, 120.0, 0.3) == 1.0
    assert drawdown.multiplier(100.0, 0.0, 0.3) == 0.0
    assert drawdown.multiplier(100.0, -5.0, 0.3) == 0.0


@given(money, money, bounds)
def test_it_is_the_formula_in_fractions(one, other, bound):
    peak, value = max(one, other), min(one, other)
    a = 1 - Fraction(bound)
    expected = max(Fraction(0), (1 - a * Fraction(peak) / Fraction(value)) / (1 - a))
    assert drawdown.multiplier(peak, value, bound) == pytest.approx(float(expected), abs=1e-12)


@given(money, money, money, bounds)
def test_a_deeper_fall_never_leaves_more(peak, one, other, bound):
    low, high = sorted([one, other])
    deep, shallow = drawdown.multiplier(peak, low, bound), drawdown.multiplier(peak, high, bound)
    assert 0.0 <= deep <= shallow <= 1.0
