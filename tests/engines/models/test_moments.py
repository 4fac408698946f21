"""Bars into moments: against weighted sums by definition, and what comes, goes, is missing or is no number."""

import math
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models import bars as candles
from engines.models import correlation, moments
from engines.parameters import CorrelationParams, MarketParams
from schemas.errors import ProcessorStopped

PARAMS = CorrelationParams()
HOUR_NS = 3_600 * 10**9
SYMBOLS = "ABCDE"

returns = st.floats(min_value=-0.2, max_value=0.2).map(lambda r: round(r, 4))
rows = st.dictionaries(st.sampled_from(SYMBOLS), returns)
books = st.lists(rows, min_size=1, max_size=40)


def observed(book, params=PARAMS, state=None):
    state = state or moments.begin()
    for row in book:
        moments.observe(state, state.bar_end_ns + HOUR_NS, row, params)
    return state


def together(n, rho, count, seed=0, missing=0.0):
    """Return bars of n symbols of one correlation, each missing by chance."""
    chance = np.random.RandomState(seed)
    common = chance.standard_normal((count, 1))
    x = 0.01 * (math.sqrt(rho) * common + math.sqrt(1 - rho) * chance.standard_normal((count, n)))
    here = chance.uniform(size=(count, n)) >= missing
    return [{f"S{i:03d}": float(x[k, i]) for i in range(n) if here[k, i]} for k in range(count)]


# -- what it is --------------------------------------------------------------------------------------------------------
def standardised(values, decay=0.97, clip=6.0):
    """Return (z or None of each bar) from a list of returns or None, the variance summed anew at each bar."""
    past, scores = [], []
    for r in values:
        weights = [(1 - decay) * decay ** (len(past) - 1 - k) for k in range(len(past))]
        variance = sum(w * x * x for w, x in zip(weights, past, strict=True))
        if past:
            variance += decay ** len(past) * past[0] ** 2
        scores.append(None if r is None or not variance else max(-clip, min(clip, r / math.sqrt(variance))))
        if r is not None and (past or r):
            past.append(r)
    return scores


def by_definition(book, decay=0.97):
    """Return {pair: weighted mean of products over the square root of those of squares}; 0 where never seen."""
    scores = {symbol: standardised([row.get(symbol) for row in book], decay) for symbol in SYMBOLS}

    def mean(one, other):
        products = [a * b for a, b in zip(scores[one], scores[other], strict=True) if None not in {a, b}]
        weights = [decay ** (len(products) - 1 - k) for k in range(len(products))]
        return sum(w * p for w, p in zip(weights, products, strict=True)) / sum(weights) if products else 0.0

    spread = {symbol: math.sqrt(mean(symbol, symbol)) or 1.0 for symbol in SYMBOLS}
    return lambda one, other: max(-1.0, min(1.0, mean(one, other) / (spread[one] * spread[other])))


@given(books)
def test_correlations_are_weighted_means_of_the_bars_both_traded_in(book):
    state = observed(book)
    matrix, oracle = correlation.raw(state, PARAMS), by_definition(book)
    for i, one in enumerate(state.symbols):
        for j, other in enumerate(state.symbols):
            expected = 1.0 if i == j else oracle(one, other)
            assert matrix[i, j] == pytest.approx(expected, abs=1e-9)


def test_the_variance_is_the_one_of_the_specification():
    state = observed([{"A": r} for r in (0.01, -0.02, 0.015, 0.0, -0.03)], CorrelationParams(decay=0.94))
    assert state.variances[0] == pytest.approx(0.000163937512, abs=1e-15)
    tenth = CorrelationParams.model_construct(**{**PARAMS.model_dump(), "decay": 0.9})
    state = observed([{"A": 0.01}, {"A": 0.02}], tenth)
    assert state.variances[0] == pytest.approx(0.00013, abs=1e-18)
    assert math.sqrt(state.variances[0]) == pytest.approx(0.011402, abs=5e-7)


def test_two_bars_by_hand():
    """z = 2 and -3 in the second bar: S_AB = -.18, which its weight .03 makes -6, over 2·3."""
    state = observed([{"A": 0.01, "B": 0.02}, {"A": 0.02, "B": -0.06}])
    assert state.cross.tolist() == pytest.approx([0.03 * 4, 0.03 * -6, 0.03 * 9])
    assert state.bars.tolist() == [1, 1, 1]
    assert correlation.raw(state, PARAMS)[0, 1] == pytest.approx(-1.0)


def test_a_wild_return_counts_as_six_volatilities():
    state = observed([{"A": 0.01, "B": 0.01}, {"A": 5.0, "B": 0.01}])
    assert state.cross.tolist() == pytest.approx([0.03 * 36, 0.03 * 6, 0.03 * 1])


# -- missing -----------------------------------------------------------------------------------------------------------
def test_only_pairs_that_are_there_move():
    state = observed([{"A": 0.01, "B": 0.02, "C": 0.01}] * 3)
    before = state.cross.copy()
    moments.observe(state, 4 * HOUR_NS, {"A": 0.03, "C": 0.01}, PARAMS)
    moved = (state.cross != before).tolist()
    assert moved == [True, False, True, False, False, True]  # AA AB AC BB BC CC
    assert state.bars.tolist() == [3, 2, 3, 2, 2, 3]


def test_one_missed_tick_does_not_matter():
    """Prices that go together at .92, one symbol's tick missing: previous ticks keep the bars in step.

    Aligned by index, as if the shorter list had lost its last return and not one in the middle, nothing would be left.
    """
    count, market, chance = 400, MarketParams(), np.random.RandomState(3)
    common, own = chance.standard_normal(count), chance.standard_normal(count)
    x = {"A": common, "B": 0.92 * common + math.sqrt(1 - 0.92**2) * own}
    prices = {symbol: 100.0 * np.exp(np.cumsum(0.01 * r)) for symbol, r in x.items()}
    full = observed(_bars_of(prices, market, gap=None))
    gap = observed(_bars_of(prices, market, gap=380))
    true, found = (correlation.raw(state, PARAMS)[0, 1] for state in (full, gap))
    assert found == pytest.approx(true, abs=0.05)
    assert found > 0.87
    shifted = np.corrcoef(x["A"][1:], x["B"][:-1])[0, 1]
    assert abs(shifted) < 0.1


def _bars_of(prices, market, gap):
    """Return each bar's returns as the bars engine sees them; B has no tick in the bar `gap`."""
    known, book = {}, []
    for k in range(len(prices["A"])):
        row = {}
        for symbol, path in prices.items():
            if symbol == "B" and k == gap:
                continue
            close = float(path[k])
            before = known.get(symbol)
            known[symbol] = candles.fold(before, close, close, close, close, 1.0, (k + 1) * HOUR_NS, market)
            if before is not None:
                row[symbol] = math.log(close / before.last_price)
        book.append(row)
    return book


@given(books, st.sampled_from([math.nan, math.inf, -math.inf, 1e101]))
def test_what_is_no_return_is_missing(book, bad):
    full = [{**row, **{symbol: bad for symbol in SYMBOLS if symbol not in row}} for row in book]
    everybody = [dict.fromkeys(SYMBOLS, bad), *book]
    assert moments.to_parts(observed([everybody[0], *full])) == moments.to_parts(observed(everybody))


@given(books)
def test_a_flat_symbol_gives_no_nan_and_correlates_with_nobody(book):
    flat = observed([{**row, "FLAT": 0.0} for row in book])
    matrix = correlation.raw(flat, PARAMS)
    at = flat.symbols.index("FLAT")
    assert np.isfinite(matrix).all()
    assert [x for i, x in enumerate(matrix[at]) if i != at] == [0.0] * (len(flat.symbols) - 1)
    assert np.isfinite(correlation.shrunk(flat, PARAMS).matrix).all()


def test_a_symbol_that_stands_still_for_years_and_moves_again_gives_no_nan():
    state = observed([{"A": 0.01, "B": 0.01}, {"A": -0.01, "B": 0.01}])
    for _ in range(27_000):  # its variance becomes the smallest number there is
        moments.observe(state, state.bar_end_ns + HOUR_NS, {"A": 0.0, "B": 0.01}, PARAMS)
    assert 0.0 <= state.variances[0] < 1e-300
    observed([{"A": 0.02, "B": 0.01}, {"A": 1e-9, "B": -0.01}], state=state)
    assert np.isfinite(correlation.raw(state, PARAMS)).all()


# -- symbols come and go -----------------------------------------------------------------------------------------------
@given(books, st.sampled_from(["0", "BB", "Z"]))
def test_adding_an_absent_symbol_changes_nothing_of_the_others(book, name):
    alone, state = observed(book), observed(book[: len(book) // 2])
    moments.add(state, [name], state.bar_end_ns)
    observed(book[len(book) // 2 :], state=state)
    kept = [i for i, symbol in enumerate(state.symbols) if symbol != name]
    assert name in state.symbols
    for matrix_of in (correlation.raw, lambda *a: correlation.shrunk(*a).matrix):
        assert np.array_equal(matrix_of(state, PARAMS)[np.ix_(kept, kept)], matrix_of(alone, PARAMS))
    moments.remove(state, [name, "never heard of"])
    assert moments.to_parts(state) == moments.to_parts(alone)


@given(books, st.permutations(SYMBOLS))
def test_other_names_only_permute(book, names):
    names = dict(zip(SYMBOLS, names, strict=True))
    one, other = observed(book), observed([{names[s]: r for s, r in row.items()} for row in book])
    places = [other.symbols.index(names[symbol]) for symbol in one.symbols]
    cut = np.ix_(places, places)
    assert np.array_equal(correlation.raw(other, PARAMS)[cut], correlation.raw(one, PARAMS))
    first, second = correlation.shrunk(one, PARAMS), correlation.shrunk(other, PARAMS)
    assert first.mean == pytest.approx(second.mean, abs=1e-12)
    if first.raises == second.raises:  # a pivot is one of an order
        assert second.matrix[cut] == pytest.approx(first.matrix, abs=1e-12)


@given(books)
def test_the_order_in_which_returns_are_told_changes_no_bit(book):
    backwards = [dict(reversed(row.items())) for row in book]
    assert moments.to_parts(observed(backwards)) == moments.to_parts(observed(book))


def test_a_symbol_without_bars_for_long_is_forgotten_by_event_time():
    params = CorrelationParams(inactive_after_s=10 * 3_600)
    state = observed([{"A": 0.01, "B": 0.01, "C": -0.01}] * 5, params)
    observed([{"A": 0.01, "C": 0.02}] * 10, params, state)
    assert state.symbols == ("A", "B", "C")  # just as long as it may
    kept = correlation.raw(state, params)[0, 2]
    observed([{}], params, state)
    assert state.symbols == ("A", "C")
    assert correlation.raw(state, params)[0, 1] == kept
    moments.observe(state, state.bar_end_ns + 11 * HOUR_NS, {}, params)
    assert state.symbols == ()
    assert correlation.shrunk(state, params).matrix.shape == (0, 0)


def test_one_symbol_is_forgotten_and_the_next_has_its_last_hour():
    params = CorrelationParams(inactive_after_s=2 * 3_600)
    first, second, third = {"A": 0.01, "B": 0.01, "C": 0.01}, {"B": 0.01, "C": 0.01}, {"C": 0.01}
    state = observed([first, second, third, third], params)
    assert state.symbols == ("B", "C")


def test_a_symbol_that_comes_back_after_it_was_forgotten_begins_anew():
    params = CorrelationParams(inactive_after_s=3_600)
    state = observed([{"A": 0.01, "B": 0.01}] * 3 + [{"A": 0.01}] * 3 + [{"A": 0.01, "B": 0.04}], params)
    assert state.symbols == ("A", "B")
    assert state.variances[1] == 0.04 * 0.04
    assert state.bars.tolist()[1:] == [0, 0]


def test_a_symbol_that_was_added_before_any_bar_is_not_forgotten_at_the_first():
    state = moments.begin()
    moments.add(state, ["X"], 1_700_000_000 * 10**9)
    moments.observe(state, 1_700_000_000 * 10**9 + HOUR_NS, {"A": 0.01}, PARAMS)
    assert state.symbols == ("A", "X")


def test_time_does_not_go_back():
    state = observed([{"A": 0.01, "B": 0.02}] * 3)
    moments.observe(state, HOUR_NS, {"A": 0.02, "B": 0.01}, PARAMS)
    assert state.bar_end_ns == 3 * HOUR_NS
    assert state.last_ns.tolist() == [3 * HOUR_NS] * 2
    assert state.bars.tolist() == [3, 3, 3]


def test_bars_are_counted_up_to_what_a_counter_holds():
    state = observed([{"A": 0.01, "B": 0.02}] * 2)
    state.bars[:] = 65_534
    observed([{"A": 0.01, "B": 0.02}] * 3, state=state)
    assert state.bars.tolist() == [65_535] * 3


# -- checkpoint --------------------------------------------------------------------------------------------------------
names = st.text(string.ascii_uppercase + "-éß", min_size=1, max_size=8)


@given(st.lists(st.dictionaries(names, returns, max_size=6), max_size=12), st.lists(rows, max_size=5))
def test_parts_come_back_to_the_bit_and_go_on_as_if_nothing_had_been(book, more):
    state = observed(book)
    back = moments.from_parts(moments.to_parts(state))
    for name in ("symbols", "bar_end_ns"):
        assert getattr(back, name) == getattr(state, name)
    for name in ("last_ns", "variances", "cross", "bars", "high"):
        one, other = getattr(back, name), getattr(state, name)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    assert moments.to_parts(observed(more, state=back)) == moments.to_parts(observed(more, state=state))


@pytest.mark.parametrize(("n", "expected"), [(0, 1), (4, 4), (200, 4), (300, 5)])
def test_parts_are_short_and_few(n, expected):
    state = observed(together(n, 0.5, 3)) if n else moments.begin()
    parts = moments.to_parts(state)
    assert len(parts) == expected
    assert all(0 < len(part) < 250_000 for part in parts.values())
    assert moments.to_parts(moments.from_parts(parts)) == parts


def test_parts_of_a_larger_checkpoint_before_do_no_harm():
    large, small = observed(together(300, 0.5, 3)), observed(together(3, 0.5, 3))
    parts = {**moments.to_parts(large), **moments.to_parts(small)}
    assert moments.to_parts(moments.from_parts(parts)) == moments.to_parts(small)


@pytest.mark.parametrize("harm", ["head", "cross-0", "bars-0", "high-0"])
def test_a_part_that_is_missing_or_cut_short_stops_the_worker(harm):
    parts = moments.to_parts(observed(together(5, 0.5, 3)))
    with pytest.raises(ProcessorStopped, match=harm.split("-", maxsplit=1)[0]):
        moments.from_parts({name: part for name, part in parts.items() if name != harm})
    if harm != "head":
        with pytest.raises(ProcessorStopped, match="elements"):
            moments.from_parts({**parts, harm: parts[harm][:-1]})


def test_nobody_else_holds_the_arrays():
    state = observed(together(4, 0.5, 30))
    parts = moments.to_parts(state)
    for given_out in (correlation.raw(state, PARAMS), correlation.shrunk(state, PARAMS).matrix):
        given_out[:] = 9.0
    back = moments.from_parts(parts)
    observed(together(4, 0.1, 5), state=back)
    assert moments.to_parts(state) == parts
    first, second = moments.begin(), moments.begin()
    observed(together(3, 0.5, 3), state=first)
    assert moments.to_parts(second) == moments.to_parts(moments.begin())
