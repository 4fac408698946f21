import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationException
from streams.processing.clock import Clock, ManualClock

HOUR_NS = 3_600_000_000_000
START_NS = 1_767_225_600_000_000_000


def test_a_clock_without_arguments_is_the_wall_clock():
    before = time.time_ns()
    assert before <= Clock().now_ns() <= time.time_ns()


def test_a_wall_second_is_an_hour_at_3600_fold():
    clock = Clock(START_NS, 3_600, 1_000_000_000_000_000_000)
    assert clock.at(1_000_000_000_000_000_000) == START_NS
    assert clock.at(1_000_000_001_000_000_000) == START_NS + HOUR_NS


def test_a_scaled_clock_begins_at_its_start():
    before = time.time_ns()
    clock = Clock.scaled(START_NS, 3_600)
    assert before <= clock.anchor_ns <= time.time_ns()
    assert clock.at(clock.anchor_ns) == START_NS


def test_what_lies_behind_is_not_waited_for():
    assert Clock.scaled(START_NS, 3_600).wall_s_until(START_NS - 1) == 0.0


def test_an_hour_ahead_is_at_most_a_wall_second_away():
    assert 0.0 < Clock.scaled(START_NS, 3_600).wall_s_until(START_NS + 100 * HOUR_NS) <= 100.0


@given(st.integers(0, 4 * 10**18), st.integers(1, 100_000), st.integers(0, 4 * 10**18), st.integers(0, 4 * 10**18))
def test_another_process_tells_the_same_time(start_ns, factor, anchor_ns, wall_ns):
    clock = Clock(start_ns, factor, anchor_ns)
    assert Clock.parse(str(clock)).at(wall_ns) == clock.at(wall_ns)


@pytest.mark.parametrize("text", ["", "5", "1*2", "1*0@3", "1*-2@3", "a*2@3", "1*2@3@4", "1*2.5@3", "٣*2@3", " 1*2@3"])
def test_a_text_that_is_no_clock_is_refused(text):
    with pytest.raises(ConfigurationException, match="HIMARI_CLOCK: must be start_ns"):
        Clock.parse(text)


def test_a_manual_clock_stands_still_until_it_is_moved():
    clock = ManualClock(START_NS)
    assert clock.now_ns() == START_NS
    clock.move_to(START_NS + 5)
    clock.advance(1.5)
    assert clock.now_ns() == START_NS + 5 + 1_500_000_000


def test_a_manual_clock_never_goes_back():
    clock = ManualClock(START_NS)
    with pytest.raises(ValueError, match="must not go back"):
        clock.move_to(START_NS - 1)
    assert clock.now_ns() == START_NS
