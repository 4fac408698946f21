"""Steps rolled into bars, against whole candles and a variance kept by hand."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models import bars
from engines.models.bars import Bars
from engines.parameters import MarketParams

PARAMS = MarketParams()
SECOND_NS = 10**9
HOUR_NS = 3600 * SECOND_NS
START = 480_000
"""A bar number, in hours since 1970."""

prices = st.floats(min_value=1.0, max_value=1000.0)
volumes = st.floats(min_value=0.0, max_value=1e6)


def tick(state, price, end_ns, volume=0.0, params=PARAMS):
    return bars.fold(state, price, price, price, price, volume, end_ns, params)


def closes(values, volume=1.0, params=PARAMS):
    """One candle a bar at each close, from START on."""
    state = None
    for number, close in enumerate(values):
        state = tick(state, close, (START + number + 1) * params.bar_s * SECOND_NS, volume, params)
    return state


def variance_by_hand(values, decay=0.97, clip=5.0):
    variance = 0.0
    for one, other in pairwise(values):
        r = math.log(other / one)
        reach = clip * math.sqrt(variance)
        square = min(abs(r), reach) ** 2
        variance = decay * variance + (1 - decay) * square if variance else r * r
    return variance or None


# -- rolling -----------------------------------------------------------------------------------------------------------
def test_a_candle_at_its_end_belongs_to_the_bar_that_ends_there():
    end_ns = (START + 1) * HOUR_NS
    state = bars.fold(None, 10.0, 12.0, 9.0, 11.0, 5.0, end_ns, PARAMS)
    assert state == Bars(START, 10.0, 12.0, 9.0, 55.0, 1, 11.0, end_ns, 0, None, None, None, ())
    assert tick(state, 11.0, end_ns + 1).bar == START + 1
    assert tick(state, 11.0, end_ns + 1).closed == 1


def test_steps_of_one_bar_make_its_extremes_and_its_volume():
    first_ns = START * HOUR_NS + SECOND_NS
    state = bars.fold(None, 10.0, 10.5, 9.5, 10.0, 2.0, first_ns, PARAMS)
    state = bars.fold(state, 10.0, 13.0, 10.0, 12.0, 1.0, first_ns + SECOND_NS, PARAMS)
    state = bars.fold(state, 12.0, 12.0, 8.0, 9.0, 3.0, first_ns + 2 * SECOND_NS, PARAMS)
    assert state[:8] == (START, 10.0, 13.0, 8.0, 20.0 + 12.0 + 27.0, 3, 9.0, first_ns + 2 * SECOND_NS)


@given(st.lists(st.tuples(prices, volumes), min_size=1, max_size=40), st.integers(0, 39))
def test_cut_into_steps_or_taken_as_one_candle_a_bar_leaves_the_same(ticks, cut):
    start = closes([100.0, 101.0, 99.0])
    first_ns = (START + 3) * HOUR_NS + SECOND_NS
    steps = start
    for number, (price, volume) in enumerate(ticks):
        steps = tick(steps, price, first_ns + (number + (number >= cut)) * SECOND_NS, volume)
    path = [price for price, _ in ticks]
    traded = sum(price * volume for price, volume in ticks)
    candle = bars.fold(start, path[0], max(path), min(path), path[-1], traded / path[-1], steps.last_ns, PARAMS)
    assert steps.quote_volume == pytest.approx(candle.quote_volume)
    assert steps._replace(steps=1, quote_volume=0) == candle._replace(quote_volume=0)
    assert steps.closed == 3


# -- volatility --------------------------------------------------------------------------------------------------------
@given(st.lists(prices, min_size=2, max_size=60))
def test_the_variance_is_the_ewma_of_clipped_close_to_close_returns(values):
    state = closes([*values, values[-1]])
    expected = variance_by_hand(values)
    assert state.variance == (expected if expected is None else pytest.approx(expected, rel=1e-9))
    assert state.previous_close == values[-1]
    assert state.closed == len(values)


def test_the_textbook_variance_of_five_returns():
    returns = [0.01, -0.02, 0.015, 0.0, -0.03]
    values = [100.0]
    for r in returns:
        values.append(values[-1] * math.exp(r))
    params = MarketParams(volatility_decay=0.94, volatility_clip=100.0)
    state = closes([*values, values[-1]], params=params)
    assert state.variance == pytest.approx(0.000163937512, rel=1e-9)


def test_a_wild_return_enters_as_five_volatilities():
    calm = closes([100.0, 101.0, 100.0])
    wild = tick(calm, 50.0, calm.last_ns + HOUR_NS)
    wild = tick(wild, 50.0, wild.last_ns + HOUR_NS)
    one = tick(calm, 100.0, calm.last_ns + HOUR_NS)
    assert wild.variance == pytest.approx((0.97 + 0.03 * 25) * one.variance, rel=1e-9)


def test_a_price_that_never_moved_has_no_volatility_and_gives_no_score():
    state = closes([100.0] * 40)
    assert state.variance is None
    assert bars.volatility(state, 3600, PARAMS) is None
    assert bars.excursion(state, 1, PARAMS) is None
    moved = tick(tick(state, 101.0, state.last_ns + HOUR_NS), 101.0, state.last_ns + 2 * HOUR_NS)
    assert moved.variance == pytest.approx(math.log(1.01) ** 2)


def test_volatility_grows_with_the_root_of_the_horizon():
    state = closes([100.0, 102.0, 102.0])
    hourly = math.log(1.02)
    assert bars.volatility(state, 3600, PARAMS) == pytest.approx(hourly)
    assert bars.volatility(state, 86_400, PARAMS) == pytest.approx(hourly * math.sqrt(24))
    assert bars.volatility(closes([100.0]), 3600, PARAMS) is None


# -- excursion and volume ----------------------------------------------------------------------------------------------
def warm(volume=1.0):
    """24 closed bars, the last at 100, and a 25th that has just begun there."""
    state = closes([101.0, 100.0] * 12, volume)
    state = tick(state, 100.0, state.last_ns + SECOND_NS)
    assert state.closed == 24
    return state


def test_the_excursion_is_from_the_low_for_a_long_and_from_the_high_for_a_short():
    start = warm()
    state = bars.fold(start, 100.0, 103.0, 96.0, 99.0, 1.0, start.last_ns + SECOND_NS, PARAMS)
    sigma = math.sqrt(state.variance)
    assert bars.excursion(state, 1, PARAMS) == pytest.approx(-math.log(96.0 / 100.0) / sigma)
    assert bars.excursion(state, -1, PARAMS) == pytest.approx(math.log(103.0 / 100.0) / sigma)


def test_a_bar_that_only_rose_threatens_no_long():
    start = warm()
    state = tick(start, 105.0, start.last_ns + HOUR_NS)
    assert state.closed == 25
    assert bars.excursion(state, 1, PARAMS) < 0
    assert bars.excursion(state, -1, PARAMS) > 4


def test_the_first_24_bars_give_neither_excursion_nor_volume_ratio():
    state = closes([100.0, 101.0] * 12)
    assert state.closed == 23
    assert bars.excursion(state, 1, PARAMS) is None
    assert bars.volume_ratio(state, PARAMS) is None
    assert bars.excursion(warm(), 1, PARAMS) is not None
    assert bars.volume_ratio(warm(), PARAMS) is not None


def test_the_volume_ratio_is_the_running_bar_against_the_mean_of_the_24_bars_before():
    state = closes([100.0, 101.0] * 20, volume=2.0)
    state = tick(state, 100.0, state.last_ns + SECOND_NS, 15.0)
    assert len(state.volumes) == 24
    assert bars.volume_ratio(state, PARAMS) == pytest.approx(1500.0 / (2.0 * 100.5))


def test_bars_without_a_trade_are_missing_not_zero_and_old_volume_is_forgotten():
    start = warm(volume=3.0)
    later = tick(start, 100.0, start.last_ns + 20 * HOUR_NS, 6.0)
    assert [bar for bar, _ in later.volumes] == [later.bar - 24 + k for k in range(4)] + [start.bar]
    week = tick(later, 100.0, later.last_ns + 200 * HOUR_NS, 6.0)
    assert (week.volumes, bars.volume_ratio(week, PARAMS)) == ((), None)


@given(st.lists(st.tuples(prices, volumes, st.integers(1, 30)), min_size=1, max_size=80))
def test_the_window_of_volumes_is_the_day_before_whatever_is_missing(rows):
    state, closed, number = None, {}, START
    for price, volume, gap in rows:
        if state is not None:
            closed[state.bar] = state.quote_volume
        number += gap
        state = tick(state, price, (number + 1) * HOUR_NS, volume)
        assert state.volumes == tuple((bar, usd) for bar, usd in closed.items() if state.bar - 24 <= bar < state.bar)
        if state.volumes:
            mean = math.fsum(usd for _, usd in state.volumes) / len(state.volumes)
            assert state.usual_volume == pytest.approx(mean)


def test_minute_bars_keep_a_day_of_volumes_too():
    params = MarketParams(bar_s=60, warmup_bars=2)
    state = closes([100.0, 101.0] * 725, params=params)
    assert len(state.volumes) == 1440
    assert bars.volume_ratio(state, params) == pytest.approx(101.0 / 100.5, rel=1e-2)
