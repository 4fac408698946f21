"""The waterfall of caps, sizes and trading states, against a slow one in which the order is an argument."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.pipeline import caps
from engines.pipeline.caps import Limits

LIMITS = Limits(0.15, 0.40, 0.80, 1_000, 5_000_000)
V = 100_000.0
USD = 100
ORDER = ("cell", "symbol", "strategy", "portfolio")
ACTIVE, REDUCING, HALTED = "ACTIVE", "REDUCING", "HALTED"

sizes = st.one_of(st.integers(-(10**7), 10**7), st.integers(-2_000, 2_000))
factors = st.one_of(st.just(1.0), st.floats(0.0, 1.0))
values = st.floats(1.0, 1e6)
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


def column(draw, rows):
    return lambda of: draw(st.lists(of, min_size=len(rows), max_size=len(rows)))


@st.composite
def books(draw):
    rows = draw(cells)
    take = column(draw, rows)
    return rows, take(sizes), take(factors)


@st.composite
def trades(draw):
    rows, cents, _ = draw(books())
    take = column(draw, rows)
    return rows, cents, take(sizes), take(st.sampled_from([ACTIVE, ACTIVE, REDUCING, HALTED]))


def names(level, cell):
    return {"cell": "/".join(cell), "symbol": cell[1], "strategy": cell[0], "portfolio": "all"}[level]


def slow(rows, cents, cap_factors, value, limits, order=ORDER):
    """One group after the other, in any order of levels."""
    total = 100.0 * value
    own = [int(limits.position * factor * total) for factor in cap_factors]
    out, bound = list(cents), []
    for level in order:
        for name in sorted({names(level, cell) for cell in rows}):
            members = [i for i, cell in enumerate(rows) if names(level, cell) == name]
            cap = {"strategy": int(limits.strategy * total), "portfolio": int(limits.gross * total)}.get(
                level, max(own[i] for i in members)
            )
            gross = sum(abs(out[i]) for i in members)
            if gross > cap:
                bound.append((level, name))
                for i in members:
                    out[i] = (abs(out[i]) * cap // gross) * (1 if out[i] >= 0 else -1)
    return out, bound


def total(rows, cents, level):
    gross = {}
    for cell, size in zip(rows, cents, strict=True):
        name = names(level, cell)
        gross[name] = gross.get(name, 0) + abs(size)
    return gross


def shuffled(chance, *columns):
    rows = list(zip(*columns, strict=True))
    chance.shuffle(rows)
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]


# -- stage 11 ----------------------------------------------------------------------------------------------------------
def test_one_strategy_with_three_symbols_of_15000_has_13333_33_each():
    rows = [("a", "X"), ("a", "Y"), ("a", "Z")]
    capped = caps.caps(rows, [15_000 * USD] * 3, [1.0] * 3, V, LIMITS)
    assert capped == ([1_333_333] * 3, [("strategy", "a")])


def test_five_strategies_with_15000_on_one_symbol_have_15000_in_total():
    rows = [(strategy, "X") for strategy in "abcde"]
    capped = caps.caps(rows, [15_000 * USD] * 5, [1.0] * 5, V, LIMITS)
    assert capped == ([3_000 * USD] * 5, [("symbol", "X")])


def test_the_order_of_the_caps_is_part_of_their_definition():
    rows = [("a", "X"), ("a", "Y"), ("a", "Z"), ("b", "X")]
    book = (rows, [15_000 * USD] * 4, [1.0] * 4, V, LIMITS)
    assert caps.caps(*book).cents == [750_000, 1_500_000, 1_500_000, 750_000]
    assert slow(*book, order=("cell", "strategy", "symbol", "portfolio"))[0] == [705_882, 1_333_333, 1_333_333, 794_117]


def test_what_a_cut_took_it_takes_from_the_cap_as_well():
    assert caps.caps([("a", "X")], [90_000 * USD], [0.5], V, LIMITS).cents == [7_500 * USD]
    two = caps.caps([("a", "X"), ("b", "X")], [90_000 * USD] * 2, [0.5, 0.1], V, LIMITS)
    assert two == ([6_250 * USD, 1_250 * USD], [("cell", "a/X"), ("cell", "b/X"), ("symbol", "X")])
    assert caps.caps([("a", "X")], [-90_000 * USD], [0.0], V, LIMITS).cents == [0]


def test_a_portfolio_without_value_holds_nothing():
    assert caps.caps([("a", "X"), ("b", "Y")], [5, -5], [1.0, 1.0], -10.0, LIMITS).cents == [0, 0]
    assert caps.caps([("a", "X")], [-5], [1.0], 0.0, LIMITS).cents == [0]


def test_an_empty_book_is_within_every_cap():
    assert caps.caps([], [], [], V, LIMITS) == ([], [])
    assert caps.limits([], [], [], [], LIMITS) == ([], {})
    assert caps.fits([], [], [], V, LIMITS)


@given(books(), values, limits)
def test_it_is_the_slow_waterfall_cent_for_cent(book, value, limits):
    assert caps.caps(*book, value, limits) == slow(*book, value, limits)


@given(books(), values, limits)
def test_no_cap_is_broken_nothing_grows_and_nothing_flips(book, value, limits):
    rows, cents, cap_factors = book
    capped = caps.caps(*book, value, limits).cents
    assert all(abs(now) <= abs(was) and now * was >= 0 for was, now in zip(cents, capped, strict=True))
    cents_of_value = 100.0 * value
    own = {cell: int(limits.position * c * cents_of_value) for cell, c in zip(rows, cap_factors, strict=True)}
    assert all(abs(size) <= own[cell] for cell, size in zip(rows, capped, strict=True))
    for symbol, gross in total(rows, capped, "symbol").items():
        assert gross <= max(cap for cell, cap in own.items() if cell[1] == symbol)
    assert max(total(rows, capped, "strategy").values(), default=0) <= int(limits.strategy * cents_of_value)
    assert sum(map(abs, capped)) <= int(limits.gross * cents_of_value)


@given(books(), values, limits)
def test_a_second_pass_is_the_identity(book, value, limits):
    rows, _, cap_factors = book
    once = caps.caps(*book, value, limits).cents
    assert caps.caps(rows, once, cap_factors, value, limits) == (once, [])


@given(books(), values, limits, st.randoms(use_true_random=False))
def test_permuting_rows_changes_nothing(book, value, limits, chance):
    capped = caps.caps(*book, value, limits)
    other = shuffled(chance, *book, capped.cents)
    again = caps.caps(*other[:3], value, limits)
    assert again.cents == other[3]
    assert sorted(again.bound) == sorted(capped.bound)
    assert [bind for bind in again.bound if bind[0] != "cell"] == [bind for bind in capped.bound if bind[0] != "cell"]


# -- stage 13 ----------------------------------------------------------------------------------------------------------
def test_the_long_side_and_the_short_side_of_a_symbol_have_the_maximum_each():
    rows = [("a", "X"), ("b", "X"), ("c", "X"), ("d", "Y")]
    limited = caps.limits(rows, [6_000_000, -4_000_000, 4_000_000, 4_999_999], [0] * 4, [ACTIVE] * 4, LIMITS)
    assert limited == ([3_000_000, -4_000_000, 2_000_000, 4_999_999], {0: "max_position_usd", 2: "max_position_usd"})


def test_a_symbol_whose_gross_is_under_the_minimum_is_nothing():
    rows = [("a", "X"), ("a", "Y"), ("b", "X"), ("b", "Y")]
    limited = caps.limits(rows, [500, 999, -500, 0], [0] * 4, [ACTIVE] * 4, LIMITS)
    assert limited == ([500, 0, -500, 0], {1: "min_position_usd"})


@pytest.mark.parametrize(
    ("target", "held", "left"),
    [
        (5_000, 3_000, 3_000),
        (2_000, 3_000, 2_000),
        (-5_000, 3_000, 0),
        (5_000, 0, 0),
        (-5_000, -3_000, -3_000),
        (-2_000, -3_000, -2_000),
        (5_000, -3_000, 0),
        (5_000, 800, 0),
    ],
)
def test_reducing_lets_through_only_what_lies_between_nothing_and_what_is_held(target, held, left):
    assert caps.limits([("a", "X")], [target], [held], [REDUCING], LIMITS).cents == [left]
    assert caps.limits([("a", "X")], [target], [held], [HALTED], LIMITS) == ([0], {0: HALTED})


@given(trades(), limits)
def test_limits_keep_what_they_promise(trade, limits):
    rows, cents, held, states = trade
    limited = caps.limits(*trade, limits)
    assert all(abs(now) <= abs(was) and now * was >= 0 for was, now in zip(cents, limited.cents, strict=True))
    assert set(limited.reasons) == {
        i for i, (was, now) in enumerate(zip(cents, limited.cents, strict=True)) if was != now
    }
    for size, now, state in zip(limited.cents, held, states, strict=True):
        assert state == ACTIVE or size * (size - now) <= 0
        assert state != HALTED or size == 0
    for sign in (1, -1):
        side = [max(0, sign * size) for size in limited.cents]
        assert max(total(rows, side, "symbol").values(), default=0) <= limits.maximum_cents
    assert all(gross == 0 or gross >= limits.minimum_cents for gross in total(rows, limited.cents, "symbol").values())
    assert caps.limits(rows, limited.cents, held, states, limits) == (limited.cents, {})


@given(trades(), limits, st.randoms(use_true_random=False))
def test_permuting_rows_changes_no_limit(trade, limits, chance):
    other = shuffled(chance, *trade, caps.limits(*trade, limits).cents)
    assert caps.limits(*other[:4], limits).cents == other[4]


@given(books(), values, limits)
def test_a_book_fits_if_neither_caps_nor_the_maximum_would_change_it(book, value, limits):
    rows, cents, _ = book
    roomy = limits._replace(minimum_cents=0)
    unchanged = caps.caps(*book, value, roomy, limits.tolerance).cents == cents
    states = [ACTIVE] * len(rows)
    unchanged = unchanged and caps.limits(rows, cents, cents, states, roomy, limits.tolerance).cents == cents
    assert caps.fits(*book, value, limits, limits.tolerance) == unchanged


def test_a_long_side_and_a_short_side_fit_the_maximum_one_by_one():
    rows, wide = [("a", "X"), ("b", "X")], Limits(1.0, 1.0, 1.0, 0, 5_000_000)
    assert caps.fits(rows, [5_000_000, -5_000_000], [1.0, 1.0], V, wide)
    assert not caps.fits(rows, [5_000_001, -4_000_000], [1.0, 1.0], V, wide)
    assert not caps.fits(rows, [2_500_000, 2_500_001], [1.0, 1.0], V, wide)


def test_one_cell_takes_the_short_way_to_the_same_answer():
    for size, factor, value in itertools.product([-9_999_999, -1, 0, 777, 10**8], [0.0, 0.3, 1.0], [0.01, V]):
        alone = caps.caps([("a", "X")], [size], [factor], value, LIMITS)
        beside = caps.caps([("a", "X"), ("b", "Y")], [size, 0], [factor, 1.0], value, LIMITS)
        assert (alone.cents, alone.bound) == (beside.cents[:1], [bind for bind in beside.bound if bind[1] != "b/Y"])
