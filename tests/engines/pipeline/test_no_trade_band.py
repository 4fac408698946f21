"""What is left as it is held, and the whole end of the pipeline: caps, limits, band."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.pipeline import caps, no_trade_band
from engines.pipeline.caps import Limits

LIMITS = Limits(0.15, 0.40, 0.80, 1_000, 5_000_000)
V = 100_000.0
ACTIVE, REDUCING, HALTED = "ACTIVE", "REDUCING", "HALTED"

limits = st.builds(
    Limits,
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.integers(0, 5_000),
    st.integers(5_000, 10**7),
    st.sampled_from((0.0, 0.01)),
)
cells = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("WXYZ")), unique=True, max_size=12).map(sorted)
targets = st.one_of(st.integers(-(10**7), 10**7), st.integers(-20_000, 20_000), st.just(0))


@st.composite
def worlds(draw):
    """Cells with (target, held, cap factor, state), what is held mostly close to the target."""
    rows = []
    for cell in draw(cells):
        target = draw(targets)
        near = st.integers(-abs(target) // 8, abs(target) // 8).map(lambda off, target=target: target + off)
        rows.append(
            (
                cell,
                target,
                draw(st.one_of(near, targets)),
                draw(st.sampled_from([1.0, 1.0, 0.5, 0.0])),
                draw(st.sampled_from([ACTIVE] * 5 + [REDUCING, HALTED])),
            )
        )
    return rows


def settle(target, held):
    """One symbol, one cell."""
    return no_trade_band.settle([("a", "X")], [target], [held], [1.0], V, LIMITS, 0.1).cents[0]


def decided(rows, held, value, limits):
    """Stages 11, 13 and 14 as the pipeline joins them."""
    if not rows:
        return [], []
    names, before, _, factors, states = (list(column) for column in zip(*rows, strict=True))
    capped = caps.caps(names, before, factors, value, limits).cents
    limited = caps.limits(names, capped, held, states, limits).cents
    return limited, no_trade_band.settle(names, limited, held, factors, value, limits, 0.1)


# -- one symbol --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "held", "comes_out"),
    [
        (100_000, 95_000, 95_000),
        (100_000, 90_000, 90_000),
        (100_000, 89_999, 100_000),
        (100_000, 110_000, 110_000),
        (100_000, 110_001, 100_000),
        (5_000, 4_001, 4_001),
        (5_000, 3_999, 5_000),
        (-100_000, -95_000, -95_000),
        (0, 500, 0),
        (500, -400, 500),
        (100_000, 100_900, 100_900),
        (0, 0, 0),
    ],
)
def test_a_change_of_a_tenth_or_of_the_minimum_is_not_traded(target, held, comes_out):
    assert settle(target, held) == comes_out


def test_a_cut_waits_for_the_band_unless_it_ends_or_turns_the_position():
    assert settle(100_000, 105_000) == 105_000
    assert settle(0, 1) == 0
    assert settle(-200, 300) == -200


def test_a_cell_that_must_close_moves_its_whole_symbol():
    rows = [("a", "X"), ("b", "X"), ("c", "Y")]
    common = ([1.0] * 3, V, LIMITS, 0.1)
    closing = no_trade_band.settle(rows, [100_000, 0, 50_000], [96_000, 2_000, 51_000], *common)
    assert closing == ([100_000, 0, 51_000], ["Y"])
    turning = no_trade_band.settle(rows, [100_000, -3_000, 50_000], [96_000, 2_000, 51_000], *common)
    assert turning.cents == [100_000, -3_000, 51_000]
    opening = no_trade_band.settle(rows, [100_000, 3_000, 50_000], [100_000, 0, 51_000], *common)
    assert opening == ([100_000, 0, 51_000], ["X", "Y"])


def test_opposite_cells_that_cancel_take_their_targets():
    rows = [("a", "X"), ("b", "X")]
    common = ([1.0] * 2, V, LIMITS, 0.1)
    assert no_trade_band.settle(rows, [100_000, -100_000], [101_000, -101_000], *common) == ([100_000, -100_000], [])


def test_a_mixed_book_over_a_cap_or_a_maximum_is_settled_without_the_band():
    rows = [("a", "X"), ("a", "Y"), ("a", "Z")]
    wanted, held = [1_400_000, 1_200_000, 1_400_000], [1_400_000, 1_210_000, 1_400_000]
    assert no_trade_band.settle(rows, wanted, held, [1.0] * 3, V, LIMITS, 0.1) == (wanted, [])
    wide = Limits(1.0, 3.0, 3.0, 1_000, 1_205_000)
    assert no_trade_band.settle(rows, [1_200_000] * 3, [1_210_000] * 3, [1.0] * 3, V, wide, 0.1) == (
        [1_200_000] * 3,
        [],
    )


def test_a_book_that_adds_is_within_its_caps_to_the_cent():
    rows = [("a", "X"), ("a", "Y"), ("a", "Z")]
    wanted, held = [1_400_000, 1_200_000, 1_400_000], [1_400_000, 1_200_001, 0]
    tolerant = LIMITS._replace(tolerance=0.01)
    assert no_trade_band.settle(rows, wanted, held, [1.0] * 3, V, tolerant, 0.1) == (wanted, [])
    held[1] = 1_200_000
    assert no_trade_band.settle(rows, wanted, held, [1.0] * 3, V, tolerant, 0.1) == (wanted, ["X", "Y"])


def test_a_mixed_book_within_the_tolerance_of_its_caps_is_kept():
    rows = [("a", "X"), ("a", "Y"), ("a", "Z")]
    wanted, held = [1_400_000, 1_200_000, 1_400_000], [1_400_000, 1_240_000, 1_400_000]
    assert sum(held) == 4_040_000, "exactly 1 % above 40 % of the value"
    tolerant = LIMITS._replace(tolerance=0.01)
    assert no_trade_band.settle(rows, wanted, held, [1.0] * 3, V, tolerant, 0.1) == (held, ["X", "Y", "Z"])
    held[1] += 1
    assert no_trade_band.settle(rows, wanted, held, [1.0] * 3, V, tolerant, 0.1) == (wanted, [])


# -- the chain ---------------------------------------------------------------------------------------------------------
@given(worlds(), st.floats(1.0, 1e6), limits)
def test_deciding_again_decides_the_same(rows, value, limits):
    held = [row[2] for row in rows]
    once = decided(rows, held, value, limits)[1]
    if rows:
        assert decided(rows, once.cents, value, limits)[1].cents == once.cents


@given(worlds(), st.floats(1.0, 1e6), limits)
def test_what_comes_out_is_within_every_cap_and_each_symbol_is_moved_or_held_whole(rows, value, limits):
    if not rows:
        return
    held = [row[2] for row in rows]
    limited, settled = decided(rows, held, value, limits)
    names = [row[0] for row in rows]
    adds = any(abs(final) > abs(now) for final, now in zip(settled.cents, held, strict=True))
    assert caps.fits(names, settled.cents, [row[3] for row in rows], value, limits, 0.0 if adds else limits.tolerance)
    for (_, symbol), target, now, final, (*_, state) in zip(names, limited, held, settled.cents, rows, strict=True):
        assert final == (now if symbol in settled.kept else target)
        if symbol in settled.kept:
            assert final * target >= 0
        if state == REDUCING:
            assert final * (final - now) <= 0
        if state == HALTED:
            assert final == 0


@given(worlds(), st.floats(1.0, 1e6), limits, st.randoms(use_true_random=False))
def test_permuting_the_cells_of_a_decision_changes_nothing(rows, value, limits, chance):
    if not rows:
        return
    result = decided(rows, [row[2] for row in rows], value, limits)[1]
    order = chance.sample(range(len(rows)), len(rows))
    again = decided([rows[i] for i in order], [rows[i][2] for i in order], value, limits)[1]
    assert again == ([result.cents[i] for i in order], result.kept)
