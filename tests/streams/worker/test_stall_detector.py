"""When a worker counts as stuck: tables, and what holds of every story."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.worker.stall_detector import (
    STEP_MAX_S,
    PartitionWork,
    Stall,
    Vital,
    Waits,
    Watchdog,
    late,
    partition_vital,
    stuck,
    suspects,
)

PATIENCE_S = 60.0


def watched(marks, every_s=1.0):
    """Show one part's marks, so many seconds apart; return the last stalls."""
    dog = Watchdog()
    stalls = []
    for number, mark in enumerate(marks):
        stalls = dog.look(number * every_s, [Vital("part", mark, "has not moved", PATIENCE_S)])
    return stalls


@pytest.mark.parametrize(
    ("marks", "stalled_s"),
    [
        ([1], None),
        ([1, 2, 3, 4], None),
        ([1, 1], 1.0),
        ([1, 1, 1, 1], 3.0),
        ([1, 1, 1, 2], None),
        ([1, 1, 2, 2, 2], 2.0),
        ([1, 1, None, 1, 1], 1.0),
        ([None] * 10, None),
        ([1, 2, 1, 2, 1], None),
        ([0, 0, 0], 2.0),
        ([("recovering", 5)] * 3, 2.0),
    ],
)
def test_a_part_stalls_for_as_long_as_its_mark_stands(marks, stalled_s):
    expected = [] if stalled_s is None else [Stall("part", "has not moved", stalled_s, PATIENCE_S)]
    assert watched(marks) == expected


def test_a_process_that_slept_gives_its_parts_their_patience_again():
    dog = Watchdog()
    part = [Vital("part", 7, "has not moved", PATIENCE_S)]
    dog.look(0.0, part)
    dog.look(1.0, part)
    (stall,) = dog.look(3_601.0, part)
    assert stall.stalled_s == 1.0 + STEP_MAX_S


def test_a_part_that_was_let_go_begins_anew():
    dog = Watchdog()
    part = Vital("part", 7, "has not moved", PATIENCE_S)
    dog.look(0.0, [part])
    dog.look(4.0, [])
    assert dog.look(8.0, [part]) == []


@pytest.mark.parametrize(
    ("stalled_s", "suspected", "reason"),
    [
        (29.9, False, ""),
        (30.0, True, ""),
        (59.9, True, ""),
        (60.0, True, "part: has not moved for 60 s"),
        (400.0, True, "part: has not moved for 400 s"),
    ],
)
def test_a_stall_is_suspected_at_half_the_patience_and_deadly_at_all_of_it(stalled_s, suspected, reason):
    stalls = [Stall("part", "has not moved", stalled_s, PATIENCE_S)]
    assert (suspects(stalls) == stalls) is suspected
    assert stuck(stalls) == reason


def test_all_that_is_suspected_is_named_and_the_deadly_first():
    stalls = [
        Stall("a", "waits", 70.0, 90.0),
        Stall("b", "is dead", 5.0, 5.0),
        Stall("c", "rests", 20.0, 60.0),
        Stall("d", "waits", 99.0, 60.0),
    ]
    assert stuck(stalls) == "b: is dead for 5 s; d: waits for 99 s; a: waits for 70 s"


def test_a_worker_that_stands_still_altogether_names_some():
    stalls = [Stall(f"p{number}", "waits", 60.0, 60.0) for number in range(20)]
    assert stuck(stalls).startswith("p0: waits for 60 s; p1: ")
    assert stuck(stalls).endswith("; p5: waits for 60 s; and 14 more")


LANES = [
    # position, end, moves, ticks, mark, says, not ready (at most 10 behind)
    (None, None, 3, False, ("recovering", 3), "its recovery has made no progress", "recovering"),
    (None, 50, 3, True, ("recovering", 3), "its recovery has made no progress", "recovering"),
    (40, 50, 0, False, 40, "has stayed at 40 while 10 records waited", ""),
    (39, 50, 0, True, 39, "has stayed at 39 while 11 records waited", "11 records behind"),
    (50, 50, 0, True, 50, "has stayed at 50 without a tick", ""),
    (50, 50, 0, False, None, "", ""),
    (51, 50, 0, False, None, "", ""),
    (50, None, 0, False, None, "", "reading has not started"),
    (50, None, 0, True, 50, "has stayed at 50 without a tick", "reading has not started"),
]


@pytest.mark.parametrize(("position", "end", "moves", "ticks", "mark", "says", "why"), LANES)
def test_a_partition_is_watched_and_judged_by_what_is_left_to_do(position, end, moves, ticks, mark, says, why):
    work = PartitionWork("t[0]", position, end, moves, ticks)
    assert partition_vital(work, 7.0) == Vital("t[0]", mark, says, 7.0)
    assert late(work, 10) == why


def test_of_several_waits_the_oldest_is_watched():
    waits = Waits()
    assert waits.vital("publisher", "no answer from", 7.0) == Vital("publisher", None, "", 7.0)
    with waits.on("a"):
        first = waits.vital("publisher", "no answer from", 7.0)
        with waits.on("b"):
            assert waits.vital("publisher", "no answer from", 7.0) == first
    assert first.trouble == "no answer from a"
    with waits.on("a"):
        assert waits.vital("publisher", "no answer from", 7.0).mark != first.mark


def test_waits_that_fail_are_over():
    waits = Waits()
    with pytest.raises(ValueError, match="broken"), waits.on("a"):
        raise ValueError("broken")
    assert waits.vital("publisher", "", 7.0).mark is None


@given(st.lists(st.tuples(st.floats(0.01, 20.0), st.integers(0, 2) | st.none()), min_size=1, max_size=40))
def test_a_stall_is_the_watched_time_since_the_mark_last_changed(story):
    dog, now_s = Watchdog(), 0.0
    seen = []
    for step_s, mark in story:
        now_s += step_s
        stalls = dog.look(now_s, [Vital("part", mark, "", PATIENCE_S)])
        seen.append((min(step_s, STEP_MAX_S), mark))
    run = 0
    while run < len(seen) and seen[-1 - run][1] == story[-1][1]:
        run += 1
    stalled_s = sum(step for step, _ in seen[len(seen) - run + 1 :])
    if story[-1][1] is None or stalled_s <= 1e-9:
        assert all(stall.stalled_s <= 1e-6 for stall in stalls)
    else:
        assert stalls[0].stalled_s == pytest.approx(stalled_s)
