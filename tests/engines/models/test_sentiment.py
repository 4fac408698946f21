"""How far a mood tilts a size, against numbers by hand and the formula in logarithms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models import sentiment
from engines.parameters import SentimentParams

PARAMS = SentimentParams()
HOUR = 3600.0

sides = st.sampled_from([1, -1])
shares = st.floats(min_value=0.0, max_value=1.0)
ages = st.floats(min_value=0.0, max_value=1e6)


def scale(side, score, confidence=1.0, age_s=0.0, params=PARAMS):
    return sentiment.multiplier(side, score, confidence, age_s, params).multiplier


@pytest.mark.parametrize(
    ("score", "tilt"),
    [(1.0, 1.0), (0.8, 0.5), (0.6, 0.0), (0.5, 0.0), (0.4, 0.0), (0.2, -0.5), (0.0, -1.0)],
)
def test_the_tilt_is_linear_outside_a_neutral_band(score, tilt):
    assert sentiment.tilt(score, 0.6) == pytest.approx(tilt, abs=1e-12)


def test_full_bullishness_adds_the_weight_to_a_long_and_takes_it_from_a_short():
    assert scale(1, 1.0) == pytest.approx(1.15)
    assert scale(-1, 1.0) == pytest.approx(0.85)
    assert scale(1, 0.0) == pytest.approx(0.85)
    assert scale(-1, 0.0) == pytest.approx(1.15)


def test_a_mood_of_six_hours_ago_counts_half_and_half_the_confidence_as_well():
    assert scale(1, 1.0, 1.0, 6 * HOUR) == pytest.approx(1.075)
    assert scale(1, 1.0, 0.5, 0.0) == pytest.approx(1.075)
    assert scale(1, 1.0, 0.5, 12 * HOUR) == pytest.approx(1 + 0.15 / 8)


def test_no_confidence_given_is_full_confidence_and_a_reading_from_the_future_is_new():
    assert scale(1, 0.9, None) == scale(1, 0.9, 1.0)
    assert scale(1, 0.9, 1.0, -5.0) == scale(1, 0.9, 1.0, 0.0)


def test_nothing_moves_without_a_score_without_a_side_or_switched_off():
    assert sentiment.multiplier(1, None, 1.0, 0.0, PARAMS) == (1.0, 0.0, "no sentiment")
    assert sentiment.multiplier(0, 0.9, 1.0, 0.0, PARAMS) == (1.0, 0.0, "hold")
    off = SentimentParams(enabled=False)
    assert sentiment.multiplier(1, 0.9, 1.0, 0.0, off) == (1.0, 0.0, "sentiment is off")
    assert sentiment.multiplier(1, 0.5, 1.0, 0.0, PARAMS) == (1.0, 0.0, "")


@given(sides, shares, shares, ages)
def test_what_a_mood_gives_one_side_its_mirror_gives_the_other(side, score, confidence, age_s):
    assert scale(side, score, confidence, age_s) == pytest.approx(
        scale(-side, 1.0 - score, confidence, age_s), abs=1e-14
    )


@given(sides, shares, shares, ages, st.floats(0.0, 0.5), st.floats(0.51, 0.99))
def test_it_is_the_formula_of_the_specification(side, score, confidence, age_s, weight, upper):
    params = SentimentParams(weight=weight, upper_threshold=upper)
    lower = 1 - upper
    tilt = max(0.0, (score - upper) / (1 - upper)) - max(0.0, (lower - score) / lower)
    expected = 1 + weight * confidence * side * tilt * math.exp2(-age_s / params.half_life_s)
    assert scale(side, score, confidence, age_s, params) == pytest.approx(expected, rel=1e-12)


@given(sides, shares, shares, ages, ages)
def test_it_stays_within_its_weight_and_fades_with_age(side, score, confidence, age_s, later_s):
    young, old = scale(side, score, confidence, age_s), scale(side, score, confidence, age_s + later_s)
    assert abs(old - 1.0) <= abs(young - 1.0) <= 0.15 + 1e-15
