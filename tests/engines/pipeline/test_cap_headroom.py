"""Headroom against the caps themselves: below 1 where they cut, and no rise of prices below it makes them cut."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.pipeline.cap_headroom import headroom
from engines.pipeline.caps import Limits, fits

LIMITS = Limits(position=0.15, strategy=0.4, gross=0.8, minimum_cents=1_000, maximum_cents=1_200_000)
VALUE_USD = 100_000.0

books = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from(("BTC", "ETH", "SOL", "ADA"))),
    st.tuples(st.one_of(st.just(0), st.integers(-2_000_000, 2_000_000)), st.floats(0, 1)),
    min_size=1,
    max_size=9,
)


def of(book, value_usd=VALUE_USD, limits=LIMITS):
    cells = sorted(book)
    return cells, [book[cell][0] for cell in cells], [book[cell][1] for cell in cells], value_usd, limits


@pytest.mark.parametrize(
    ("book", "room"),
    [
        ({("a", "BTC"): (750_000, 1.0)}, 1_200_000 / 750_000),  # the largest size of one symbol
        ({("a", "BTC"): (-750_000, 0.5)}, 1.0),  # the cell's cap, cut to half
        ({("a", "BTC"): (600_000, 1.0), ("b", "BTC"): (-600_000, 1.0)}, 1_500_000 / 1_200_000),  # the symbol's gross
        ({("a", "BTC"): (700_000, 0.5), ("b", "BTC"): (-700_000, 0.5), ("c", "BTC"): (0, 1.0)}, 1_500 / 1_400),  # of c
        ({("a", s): (1_000_000, 1.0) for s in ("BTC", "ETH", "SOL", "ADA")}, 1.0),  # the strategy's
        ({("a", "BTC"): (0, 1.0)}, 1e9),  # nothing is held
        ({("a", "BTC"): (1, 0.0)}, 0.0),  # no room at all
    ],
)
def test_headroom_by_hand(book, room):
    assert headroom(*of(book)) == room


@given(books)
def test_below_one_is_where_the_caps_or_the_maximum_would_cut(book):
    assert (headroom(*of(book)) < 1.0) == (not fits(*of(book)))


@given(books, st.floats(0, 1))
def test_no_rise_of_all_prices_below_it_breaks_a_cap(book, share):
    room = headroom(*of(book))
    if 1.0 <= room < 1e6:
        rise = 1 + Fraction(share) * (Fraction(room) - 1)
        higher = {cell: (int(cents * rise), factor) for cell, (cents, factor) in book.items()}
        assert fits(*of(higher))


@given(books)
def test_just_above_it_a_cap_is_broken(book):
    room = headroom(*of(book))
    if 1.0 <= room < 1e6:
        rise = Fraction(room) * Fraction(101, 100)
        higher = {
            cell: (int(cents * rise) + (cents > 0) - (cents < 0), factor) for cell, (cents, factor) in book.items()
        }
        assert not fits(*of(higher))
