"""Stage 10: what is wanted comes through uncorrelated, and is only ever reduced; bad input has an answer."""

from itertools import pairwise
from math import isfinite, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.numerics.kelly_program import solve
from engines.pipeline import portfolio_sizing
from engines.pipeline.portfolio_sizing import Correlations, allocate, second_moment

V = 100_000.0
OPEN = 1e6
NAMES = tuple("ABCDEFGH")


def correlations(matrix, names=NAMES, mean=0.0):
    matrix = np.asarray(matrix, float)
    return Correlations(tuple(names[: len(matrix)]), matrix, mean)


def alike(n, rho):
    return correlations(np.full((n, n), rho) + (1.0 - rho) * np.eye(n))


def reduced(nets, C, variances=None, caps=None, gross=OPEN, value=V):
    return allocate(nets, variances or dict.fromkeys(nets, 1e-4), C, caps or dict.fromkeys(nets, OPEN), gross, value)


# -- by hand -----------------------------------------------------------------------------------------------------------
def test_without_correlation_everything_passes_unchanged():
    found = reduced({"A": 1_000_000, "B": -70, "C": 123_456_789}, alike(3, 0.0), {"A": 1e-8, "B": 0.3, "C": 1e-4})
    assert found.shares == {"A": 1.0, "B": 1.0, "C": 1.0}
    assert found.reason == ""
    assert found.reasons == {}


def test_two_equal_symbols_at_one_half_keep_two_thirds():
    found = reduced({"A": 1_500_000, "B": 1_500_000}, alike(2, 0.5))
    assert found.shares == pytest.approx({"A": 2 / 3, "B": 2 / 3}, rel=1e-12)
    assert found.weights == pytest.approx({"A": 0.1, "B": 0.1}, rel=1e-12)
    assert found.penalties == pytest.approx({"A": 1 / 3, "B": 1 / 3}, rel=1e-12)
    assert found.reasons == {"A": "correlation", "B": "correlation"}


def test_a_book_of_long_and_short_is_not_grown_where_they_hedge_each_other():
    found = reduced({"A": 1_500_000, "B": -1_500_000}, alike(2, 0.5))
    assert found.shares == {"A": 1.0, "B": 1.0}
    assert found.weights == {"A": 0.15, "B": -0.15}


def test_a_hedge_that_kelly_would_open_by_itself_is_not_opened():
    found = reduced({"A": 1_000_000, "B": 10_000}, alike(2, 0.9))
    assert found.shares == {"A": 1.0, "B": 0.0}


def test_the_limits_of_symbols_and_of_all_are_part_of_the_program():
    C = alike(3, 0.0)
    nets = {"A": 4_000_000, "B": 3_000_000, "C": 1_000_000}
    found = reduced(nets, C, caps={"A": 0.15, "B": 1.0, "C": 1.0}, gross=0.4)
    assert found.weights == pytest.approx({"A": 0.15, "B": 0.225, "C": 0.025})
    assert found.price == pytest.approx(1e-4 * (0.3 - 0.225))
    assert found.reasons == {"A": "position limit", "B": "gross limit", "C": "gross limit"}


def test_opposite_cells_net_and_scale_together():
    cells = [("j", "A"), ("k", "A"), ("j", "B")]
    cents = [3_000_001, -1_500_000, 1_500_001]
    nets = {"A": cents[0] + cents[1], "B": cents[2]}
    found = reduced(nets, alike(2, 0.5))
    after = portfolio_sizing.reduce(cells, cents, found.shares)
    assert after == [int(3_000_001 * found.shares["A"]), int(-1_500_000 * found.shares["A"]), 1_000_000]
    assert after[0] + after[1] == pytest.approx(1_000_000, abs=2)


def test_a_symbol_whose_cells_cancel_is_left_out_and_keeps_its_cells():
    found = reduced({"A": 1_500_000, "B": 0}, alike(2, 0.9))
    assert found.shares == {"A": 1.0, "B": 1.0}
    assert "B" not in found.weights


def test_all_signals_zero_is_a_book_of_nothing():
    assert reduced({"A": 0, "B": 0}, alike(2, 0.9)).shares == {"A": 1.0, "B": 1.0}
    assert reduced({}, alike(0, 0.0)).shares == {}


def test_less_than_a_billionth_is_not_taken():
    nets = {"A": 100_000_000, "B": 100_000_000}
    assert reduced(nets, alike(2, 5e-10)).shares == {"A": 1.0, "B": 1.0}
    assert reduced(nets, alike(2, 5e-9)).shares["A"] == pytest.approx(1.0 - 5e-9, abs=1e-12)
    assert reduced(nets, alike(2, 5e-9)).shares["A"] < 1.0


def test_a_new_symbol_takes_the_mean_correlation():
    known = correlations(np.eye(1), names=("B",), mean=0.5)
    assert reduced({"A": 1_500_000, "B": 1_500_000}, known).shares == pytest.approx({"A": 2 / 3, "B": 2 / 3})


def test_rows_are_found_by_name():
    matrix = np.eye(4)
    matrix[1, 3] = matrix[3, 1] = 0.5
    found = reduced({"D": 1_500_000, "B": 1_500_000, "A": 1_500_000}, correlations(matrix))
    assert found.shares == pytest.approx({"A": 1.0, "B": 2 / 3, "D": 2 / 3})


def test_it_is_the_program_of_section_seven_whatever_kf():
    rng = np.random.default_rng(3)
    names, C = NAMES[:6], alike(6, 0.4)
    nets = dict(zip(names, rng.integers(-4_000_000, 4_000_000, 6).tolist(), strict=True))
    variances = dict(zip(names, rng.uniform(1e-5, 1e-3, 6).tolist(), strict=True))
    caps = dict(zip(names, rng.uniform(0.05, 0.15, 6).tolist(), strict=True))
    x = np.array([nets[name] / (100 * V) for name in names])
    sigma = np.sqrt([variances[name] for name in names])
    M = C.matrix * np.outer(sigma, sigma)
    found = reduced(nets, C, variances, caps, 0.4)
    for kf in (0.1, 0.25, 0.5):
        limits = np.minimum(abs(x), list(caps.values()))
        expected = solve(np.diag(M) * x / kf, M, limits, 0.4, kf)
        assert list(found.weights.values()) == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-15)


# -- variances ---------------------------------------------------------------------------------------------------------
def test_the_variance_of_a_symbol_is_the_mean_over_its_cells_by_size():
    cells = [("j", "A"), ("k", "A"), ("l", "A"), ("j", "B")]
    moments = [second_moment(4e-4, 0.01, 3_600.0), second_moment(9e-4, 0.0, 7_200.0), nan, 1e-4]
    assert moments[:2] == pytest.approx([5e-4, 4.5e-4])
    found = portfolio_sizing.variances(cells, [100, -300, 0, 5], moments)
    assert found == pytest.approx({"A": (100 * 5e-4 + 300 * 4.5e-4) / 400, "B": 1e-4})


@pytest.mark.parametrize("bad", [nan, float("inf"), -1e-4, 0.0, 1e-40, 1e40])
def test_a_cell_without_a_sound_risk_leaves_its_symbol_without_a_variance(bad):
    variances = portfolio_sizing.variances([("j", "A"), ("k", "A"), ("j", "B")], [1, 1, 1], [1e-4, bad, 1e-4])
    assert not isfinite(variances["A"])
    found = reduced({"A": 1_000_000, "B": 1_000_000}, alike(2, 0.0), variances)
    assert found.shares == {"A": 0.0, "B": 1.0}
    assert found.reasons == {"A": "variance must be positive, was nan"}


# -- bad input ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [0.0, -5.0, nan, float("inf")])
def test_without_a_value_nothing_is_held(value):
    found = reduced({"A": 1_000, "B": 0}, alike(2, 0.0), value=value)
    assert found.shares == {"A": 0.0, "B": 1.0}
    assert found.reason == f"value must be positive, was {value}"


@pytest.mark.parametrize("gross", [0.0, nan, -1.0])
def test_without_a_budget_nothing_is_held(gross):
    found = reduced({"A": 1_000}, alike(1, 0.0), gross=gross)
    assert found.shares == {"A": 0.0}
    assert found.reason == f"gross must be positive, was {gross}"


@pytest.mark.parametrize("cap", [0.0, nan, -1.0])
def test_without_a_cap_nothing_is_held_of_a_symbol(cap):
    found = reduced({"A": 1_000, "B": 1_000}, alike(2, 0.0), caps={"A": cap, "B": 1.0})
    assert found.shares == {"A": 0.0, "B": 1.0}
    assert reduced({"A": 1_000}, alike(1, 0.0), caps={"Z": 1.0}).shares == {"A": 0.0}


def test_nearly_equal_symbols_get_a_ridge_and_a_reason():
    found = reduced({"A": 1_000_000, "B": 1_000_000}, alike(2, 1.0))
    assert found.reason == "correlations nearly singular: ridge added"
    assert found.shares == pytest.approx({"A": 0.5, "B": 0.5}, abs=1e-4)


@pytest.mark.parametrize(
    "matrix", [np.full((2, 2), 1.5), np.full((2, 2), nan), np.full((2, 2), float("inf")), -np.full((2, 2), 3.0)]
)
def test_correlations_that_are_none_size_all_as_one(matrix):
    found = reduced({"A": 2_000_000, "B": -1_000_000}, correlations(matrix), {"A": 1e-4, "B": 16e-4})
    # risks .01·.2 and .04·.1: (4 + 16)/36 of each
    assert found.shares == pytest.approx({"A": 20 / 36, "B": 20 / 36})
    assert found.weights == pytest.approx({"A": 0.2 * 20 / 36, "B": -0.1 * 20 / 36})
    assert found.reason == "correlations not positive definite: sized as one"
    assert found.reasons == {"A": "taken to move as one", "B": "taken to move as one"}


def test_sized_as_one_keeps_the_limits_and_the_budget():
    bad = correlations(np.full((3, 3), nan))
    nets = {"A": 9_000_000, "B": 9_000_000, "C": -9_000_000}
    found = reduced(nets, bad, caps={"A": 0.1, "B": 1.0, "C": 1.0}, gross=0.5)
    assert found.weights == pytest.approx({"A": 0.1 * 0.5 / 0.7, "B": 0.3 * 0.5 / 0.7, "C": -0.3 * 0.5 / 0.7})


def test_a_correlated_stablecoin_beside_a_wild_one_needs_no_ridge():
    found = reduced({"A": 1_500_000, "B": 1_500_000}, alike(2, 0.0), {"A": 1e-12, "B": 1e-2})
    assert found.shares == {"A": 1.0, "B": 1.0}
    assert found.reason == ""


# -- properties --------------------------------------------------------------------------------------------------------
cents = st.integers(-(10**8), 10**8)
odd = st.sampled_from([nan, float("inf"), 0.0, -1.0, 1e-40, 1e40])


@st.composite
def books(draw, *, broken=False):
    n = draw(st.integers(1, 6))
    names = draw(st.permutations(NAMES[:n]))

    def of(elements):
        return dict(zip(names, draw(st.lists(elements, min_size=n, max_size=n)), strict=True))

    numbers = st.floats(-1.0, 1.0) | odd if broken else st.floats(-1.0, 1.0)
    factors = np.array(draw(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=n, max_size=n)))
    if broken:
        matrix = np.outer(factors[:, 0], factors[:, 1])
    else:
        matrix = factors @ factors.T + 0.05 * np.eye(n)
        deviations = np.sqrt(np.diag(matrix))
        matrix = matrix / np.outer(deviations, deviations)
    sizes = of(cents | st.just(0))
    variances = of(st.floats(1e-9, 1e-1) | odd if broken else st.floats(1e-9, 1e-1))
    caps = of(st.floats(0.0, 1.0) | odd if broken else st.floats(0.0, 1.0))
    gross = draw(st.floats(0.01, 3.0) | odd if broken else st.floats(0.01, 3.0))
    value = draw(st.floats(1.0, 1e9) | odd if broken else st.floats(1e3, 1e6))
    return sizes, variances, correlations(matrix), caps, gross, value


@given(books() | books(broken=True))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the input is broken, not the engine
def test_nothing_grows_flips_or_is_no_number_and_no_limit_breaks(book):
    sizes, variances, C, caps, gross, value = book
    found = allocate(sizes, variances, C, caps, gross, value)
    assert list(found.shares) == sorted(sizes)
    assert all(0.0 <= share <= 1.0 for share in found.shares.values())
    assert all(isfinite(weight) and weight * sizes[symbol] >= 0 for symbol, weight in found.weights.items())
    assert sum(abs(weight) for weight in found.weights.values()) <= max(gross, 0.0) * (1 + 1e-9) or isnan(gross)
    for symbol, weight in found.weights.items():
        assert abs(weight) <= max(caps[symbol], 0.0) or weight == 0.0
        after = portfolio_sizing.reduce([("j", symbol)], [sizes[symbol]], found.shares)[0]
        assert abs(after) <= abs(sizes[symbol])
        assert after * sizes[symbol] >= 0
    for symbol, share in found.shares.items():
        assert (share < 1.0) <= bool(found.reason or found.reasons.get(symbol))


@given(books())
def test_the_order_of_symbols_changes_nothing(book):
    sizes, variances, C, caps, gross, value = book
    turned = dict(reversed(list(sizes.items())))
    one, other = allocate(sizes, variances, C, caps, gross, value), allocate(turned, variances, C, caps, gross, value)
    assert one == other
    assert list(one.shares) == list(other.shares)


@given(books())
def test_where_nothing_is_correlated_it_is_the_identity_up_to_its_caps(book):
    sizes, variances, C, caps, _, value = book
    found = allocate(sizes, variances, C._replace(matrix=np.eye(len(C.symbols))), caps, OPEN * OPEN, value)
    for symbol, size in sizes.items():
        if size:
            x = abs(size) / (100 * value)
            assert found.shares[symbol] == pytest.approx(min(1.0, caps[symbol] / x), rel=2e-9)
            if caps[symbol] >= x:
                assert found.shares[symbol] == 1.0


@given(books())
def test_more_stress_gives_a_long_book_no_more_kelly_growth(book):
    """The growth that the program maximises cannot rise where every pair of a long book moves closer together."""
    sizes, variances, C, caps, gross, value = book
    sizes = {symbol: abs(size) for symbol, size in sizes.items()}
    names = [symbol for symbol in sorted(sizes) if sizes[symbol]]
    at = [C.symbols.index(symbol) for symbol in names]
    x = np.array([sizes[symbol] / (100 * value) for symbol in names])
    sigma = np.sqrt([variances[symbol] for symbol in names])
    growths = []
    for kappa in (0.0, 0.5, 0.9):
        matrix = C.matrix + kappa * (1.0 - C.matrix)
        found = allocate(sizes, variances, C._replace(matrix=matrix), caps, gross, value)
        w = np.array([found.weights[symbol] for symbol in names])
        M = matrix[np.ix_(at, at)] * np.outer(sigma, sigma)
        growths.append((sigma * sigma * x) @ w - 0.5 * w @ M @ w)
    for calm, stressed in pairwise(growths):
        assert stressed <= calm + 1e-9 * abs(calm)
