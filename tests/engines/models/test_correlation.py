"""Matrices for reports and for sizing: formulas by hand, numpy and scikit-learn beside, real coins at the end."""

import csv
import gzip
import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import correlation_bits
import numpy as np
import pytest
import shrinkage
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_iris

from engines.models import correlation, moments
from engines.parameters import CorrelationParams

PARAMS = CorrelationParams()
ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
HOUR_NS = 3_600 * 10**9
SYMBOLS = "ABCDE"

rows = st.dictionaries(st.sampled_from(SYMBOLS), st.floats(min_value=-0.2, max_value=0.2))
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


def known(matrix, bars=10_000):
    """Return moments of which a correlation matrix is all there is to know."""
    n = len(matrix)
    state = moments.begin()
    moments.add(state, [f"S{i}" for i in range(n)], 0)
    state.cross[:] = np.asarray(matrix)[np.triu_indices(n)]
    state.bars[:] = bars
    return state


def pairs(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def smallest_eigenvalue(matrix):
    return np.linalg.eigvalsh(matrix).min() if len(matrix) else math.inf


# -- shrunk ------------------------------------------------------------------------------------------------------------
THREE = [[1.0, 0.8, 0.2], [0.8, 1.0, 0.5], [0.2, 0.5, 1.0]]


def test_pairs_are_drawn_by_three_tenths_to_their_mean():
    state = known(THREE)
    assert correlation.raw(state, PARAMS).tolist() == THREE
    found = correlation.shrunk(state, PARAMS)
    assert found.mean == pytest.approx(0.5)
    assert (found.shrink, found.raises) == (0.3, 0)
    assert pairs(found.matrix).tolist() == pytest.approx([0.71, 0.29, 0.5])
    assert np.diag(found.matrix).tolist() == [1.0] * 3
    assert np.array_equal(found.matrix, found.matrix.T)


@pytest.mark.parametrize(("shrink", "expected"), [(0.0, [0.8, 0.2, 0.5]), (1.0, [0.5] * 3)])
def test_the_weight_of_the_mean_goes_from_none_to_all(shrink, expected):
    found = correlation.shrunk(known(THREE), CorrelationParams(shrink=shrink))
    assert pairs(found.matrix).tolist() == pytest.approx(expected)


def test_the_mean_is_not_below_zero_nor_above_its_bound():
    found = correlation.shrunk(known([[1.0, -0.6], [-0.6, 1.0]]), PARAMS)
    assert (found.mean, found.matrix[0, 1]) == (0.0, pytest.approx(-0.42))
    found = correlation.shrunk(known(np.ones((3, 3))), PARAMS)
    assert found.mean == 0.95
    assert pairs(found.matrix).tolist() == pytest.approx([0.7 * 0.99 + 0.3 * 0.95] * 3)
    assert correlation.raw(known(np.ones((3, 3))), PARAMS).tolist() == np.ones((3, 3)).tolist()


IMPOSSIBLE = [[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]
"""No three series correlate like this; pairs that were seen in different bars may say so."""


def test_what_cannot_be_is_shrunk_until_it_can():
    found = correlation.shrunk(known(IMPOSSIBLE), CorrelationParams(shrink=0.0))
    assert smallest_eigenvalue(np.array(IMPOSSIBLE)) < 0
    assert found.shrink == pytest.approx(0.1 * found.raises)
    again = correlation.shrunk(known(IMPOSSIBLE), CorrelationParams(shrink=0.1 * (found.raises - 1)))
    assert (again.shrink, again.raises) == (pytest.approx(found.shrink), 1)  # one step less would not have done
    assert smallest_eigenvalue(found.matrix) > 0


@given(books, st.sampled_from([0.0, 0.3, 0.75, 1.0]), st.floats(min_value=0.0, max_value=0.9))
def test_what_sizes_is_always_positive_definite_under_stress_too(book, shrink, kappa):
    found = correlation.shrunk(observed(book), CorrelationParams(shrink=shrink))
    assert found.shrink <= 1.0
    for matrix in (found.matrix, correlation.stressed(found.matrix, kappa)):
        assert np.isfinite(matrix).all()
        assert np.array_equal(matrix, matrix.T)
        assert np.diag(matrix).tolist() == [1.0] * len(matrix)
        assert np.abs(matrix).max(initial=0.0) <= 1.0
        assert smallest_eigenvalue(matrix) > 0


def test_a_tenth_missing_at_nine_tenths_leaves_few_raw_matrices_and_all_shrunk_ones_positive_definite():
    """The specification's hard bars: without shrinking nine in ten are not, and shrink .3 alone mends them."""
    bare, hard, largest, failures, count = CorrelationParams(shrink=0.0), 0, 0.0, 0, 0
    for seed, missing in ((1, 0.1), (2, 0.3), (3, 0.5)):
        state = moments.begin()
        for k, row in enumerate(together(20, 0.9, 500, seed, missing)):
            observed([row], state=state)
            if k < 100:
                continue
            found = correlation.shrunk(state, PARAMS)
            largest = max(largest, found.shrink)
            failures += smallest_eigenvalue(found.matrix) <= 0
            if missing == 0.1:
                count += 1
                hard += smallest_eigenvalue(correlation.raw(state, bare)) <= 0
    assert hard / count > 0.8
    assert failures == 0
    assert 0.3 < largest < 0.95  # the guard was needed, and did not need all


# -- what is not known yet ---------------------------------------------------------------------------------------------
def test_nothing_known_is_the_identity():
    state = moments.begin()
    moments.add(state, "ABC", 0)
    found = correlation.shrunk(state, PARAMS)
    assert found.matrix.tolist() == np.eye(3).tolist()
    assert correlation.raw(state, PARAMS).tolist() == np.eye(3).tolist()


def test_a_new_symbol_moves_with_the_others_until_it_is_known():
    state = observed(together(6, 0.8, 400))
    before = correlation.shrunk(state, PARAMS)
    moments.add(state, ["NEW"], state.bar_end_ns)
    found = correlation.shrunk(state, PARAMS)
    assert found.mean == before.mean
    assert found.matrix[0, 1:].tolist() == pytest.approx([found.mean] * 6)  # NEW is the first by name
    chance = np.random.RandomState(1)
    for row in together(6, 0.8, 200, seed=5):
        observed([{**row, "NEW": 0.01 * chance.standard_normal()}], state=state)
    assert abs(correlation.shrunk(state, CorrelationParams(shrink=0.0)).matrix[0, 1:].mean()) < 0.25


def test_a_pair_counts_as_far_as_it_is_known():
    """Seen in ten bars at decay .97: weight 1 - .97^10 for its own .8, the rest for the mean."""
    state = known(np.array(THREE) * [[1, 1, 1], [1, 1, 1], [1, 1, 1]])
    weight = 1 - 0.97**10
    state.bars[1], state.cross[1] = 10, 0.8 * weight
    found = correlation.shrunk(state, CorrelationParams(shrink=0.0))
    mean = (weight * 0.8 + 0.2 + 0.5) / (weight + 2)
    assert found.mean == pytest.approx(mean)
    assert found.matrix[0, 1] == pytest.approx(weight * 0.8 + (1 - weight) * mean)
    assert correlation.raw(state, PARAMS)[0, 1] == pytest.approx(0.8)


def test_the_mean_grows_with_what_is_known_at_all():
    means = [correlation.shrunk(observed(together(5, 0.8, count)), PARAMS).mean for count in (1, 2, 10, 40, 200)]
    assert means[0] == 0.0
    assert means == sorted(means)
    assert means[1] <= 0.03
    assert means[-1] == pytest.approx(0.8, abs=0.08)


# -- stress and diversification ----------------------------------------------------------------------------------------
def test_stress_moves_every_pair_part_of_its_way_to_one():
    stressed = correlation.stressed(np.array(THREE), 0.5)
    assert stressed == pytest.approx(np.array([[1.0, 0.9, 0.6], [0.9, 1.0, 0.75], [0.6, 0.75, 1.0]]))
    assert correlation.stressed(np.array(THREE), 0.0).tolist() == THREE


def test_the_diversification_ratio_is_the_one_of_the_specification():
    covariance = np.array([[0.04, 0.018, 0.0], [0.018, 0.09, 0.012], [0.0, 0.012, 0.01]])
    sigma = np.sqrt(np.diag(covariance))
    found = correlation.diversification(np.array([0.5, 0.3, 0.2]), sigma, covariance / np.outer(sigma, sigma))
    assert found.ratio == pytest.approx(1.319216, abs=5e-7)
    assert found.score == pytest.approx(1.319216**2 / 3, abs=1e-6)
    halves = np.full((4, 4), 0.5) + 0.5 * np.eye(4)
    found = correlation.diversification(np.ones(4), np.ones(4), halves)
    assert found.ratio * found.ratio == pytest.approx(1.6)
    assert found.score == pytest.approx(0.4)


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0.01, 3)), min_size=1, max_size=6), st.floats(0, 0.95))
def test_diversification_is_the_quotient_that_numpy_gives(held, rho):
    weights, sigma = (np.array(column) for column in zip(*held, strict=True))
    weights = np.round(weights, 3)
    matrix = np.full((len(held),) * 2, rho) + (1 - rho) * np.eye(len(held))
    found = correlation.diversification(weights, sigma, matrix)
    if not weights.any():
        assert found is None
        return
    variance = (weights * sigma) @ matrix @ (weights * sigma)
    assert found.ratio == pytest.approx(np.abs(weights) @ sigma / math.sqrt(variance))
    assert found.score == pytest.approx(found.ratio**2 / np.count_nonzero(weights))
    if (weights >= 0).all():
        assert found.ratio >= 1 - 1e-9
        assert found.score <= 1 + 1e-9


def test_nothing_held_and_everything_hedged_have_no_diversification():
    assert correlation.diversification(np.zeros(3), np.ones(3), np.eye(3)) is None
    assert correlation.diversification(np.zeros(0), np.zeros(0), np.zeros((0, 0))) is None
    assert correlation.diversification(np.array([1.0, -1.0]), np.ones(2), np.ones((2, 2))) is None


def test_symbols_that_are_not_held_do_not_count():
    alone = correlation.diversification(np.array([0.0, 0.4, 0.0]), np.ones(3), np.array(THREE))
    assert alone == (1.0, 1.0)


# -- alerts ------------------------------------------------------------------------------------------------------------
def alerted(state, rho, params=PARAMS):
    matrix = np.array(THREE)
    matrix[0, 1] = matrix[1, 0] = rho
    return correlation.alerts(state, matrix, params)


def test_an_alert_is_raised_once_and_is_over_at_a_margin_below():
    state = known(np.eye(3))
    steps = [0.69, 0.70, 0.75, 0.66, 0.70, 0.65, 0.6499, 0.69, -0.7]
    told = [[(c.first, c.second, c.correlation, c.above) for c in alerted(state, rho)] for rho in steps]
    assert told == [
        [],
        [("S0", "S1", 0.70, True)],
        [],
        [],
        [],
        [],
        [("S0", "S1", 0.6499, False)],
        [],
        [("S0", "S1", -0.7, True)],
    ]


def test_a_pair_that_was_hardly_seen_raises_no_alert():
    state = known(np.eye(3), bars=23)
    assert alerted(state, 0.99) == []
    state.bars[1] = 24
    assert len(alerted(state, 0.99)) == 1


def test_alerts_hold_the_threshold_in_force():
    state = known(np.eye(3))
    assert [c.second for c in alerted(state, 0.3, CorrelationParams(alert_threshold=0.5))] == ["S2"]
    assert [c.above for c in alerted(state, 0.3, CorrelationParams(alert_threshold=0.6))] == [False]


def test_a_raised_alert_stays_with_its_pair_when_symbols_come_and_go():
    state = observed(together(3, 0.9, 100))
    first = correlation.alerts(state, correlation.raw(state, PARAMS), PARAMS)
    assert [(c.first, c.second) for c in first] == [("S000", "S001"), ("S000", "S002"), ("S001", "S002")]
    moments.add(state, ["A", "S0005", "Z"], state.bar_end_ns)
    moments.remove(state, ["S001"])
    state = moments.from_parts(moments.to_parts(state))
    assert correlation.alerts(state, correlation.raw(state, PARAMS), PARAMS) == []
    calm = correlation.alerts(state, np.eye(5), PARAMS)
    assert [(c.first, c.second, c.above) for c in calm] == [("S000", "S002", False)]


# -- the same bits -----------------------------------------------------------------------------------------------------
def test_compiled_loops_give_the_bits_of_interpreted_ones():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, correlation_bits.SCRIPT], env=environment, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == correlation_bits.bits()


# -- Ledoit and Wolf ---------------------------------------------------------------------------------------------------
def window():
    chance = np.random.RandomState(0)
    factors = chance.standard_normal((120, 2)) @ np.array([[1, 1, 0, 0, 1], [0, 0, 1, 1, -1]])
    return 0.01 * (chance.standard_normal((120, 5)) + factors) * np.array([1, 2, 0.5, 3, 1.5])


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (np.s_[:], 0.0782167030579985),
        (np.s_[:40], 0.22397419876673844),
        (np.s_[:, 1:4], 0.3242874269956372),
    ],
)
def test_the_intensity_is_pyportfolioopts(cut, expected):
    """Expected: pyportfolioopt 1.6.0 on these windows, its covariance at ddof 0."""
    assert shrinkage.constant_correlation_intensity(window()[cut]) == pytest.approx(expected, abs=1e-10)


def test_the_intensity_is_that_of_an_installed_pyportfolioopt():
    risk_models = pytest.importorskip("pypfopt.risk_models", reason="pyportfolioopt is not installed")
    pandas = pytest.importorskip("pandas")
    shrink = risk_models.CovarianceShrinkage(pandas.DataFrame(window()), returns_data=True, frequency=1)
    shrink.S = np.cov(window().T, ddof=0)
    assert shrinkage.constant_correlation_intensity(window()) == pytest.approx(
        shrink._ledoit_wolf_constant_correlation()[1], abs=1e-10
    )


def test_the_moments_under_it_are_scikit_learns():
    iris = load_iris().data
    assert shrinkage.identity_intensity(iris) == pytest.approx(ledoit_wolf_shrinkage(iris), abs=1e-12)
    assert shrinkage.identity_intensity(iris) == pytest.approx(0.00757880145407865, abs=1e-12)


# -- four real coins ---------------------------------------------------------------------------------------------------
SCORED_FROM = 300


def closes(coin):
    path = DATA / f"{coin}USDT_1h_2020-08_2022-06.csv.gz"
    if not path.exists():
        pytest.skip(f"real market data is absent: no {path.name} in ../shared/data beside the project")
    with gzip.open(path, "rt") as file:
        return {int(row["unix"]): float(row["close"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def real():
    """Hourly log returns of the four coins, and the same in volatilities known before, clipped at 6: (bars, 4)."""
    paths = [closes(coin) for coin in ("ADA", "BNB", "BTC", "ETH")]
    hours = sorted(set.intersection(*map(set, paths)))
    logs = [[math.log(path[hour]) for hour in hours] for path in paths]
    returns = np.array([[b - a for a, b in pairwise(path)] for path in logs]).T
    variance, z = returns[0] ** 2, np.zeros_like(returns)
    for k in range(1, len(returns)):
        z[k] = np.clip(returns[k] / np.sqrt(variance), -6, 6)
        variance = 0.97 * variance + 0.03 * returns[k] ** 2
    return returns, z


def likelihood(matrices, z):
    """Return the mean Gaussian log-likelihood of each bar under the matrix known before it."""
    matrices, z = np.array(matrices), np.asarray(z)
    _, logs = np.linalg.slogdet(matrices)
    forms = np.einsum("ki,ki->k", z, np.linalg.solve(matrices, z[:, :, None])[:, :, 0])
    return float(np.mean(-0.5 * (logs + forms)))


def windows(z, width=60):
    """Return the correlations of the last 60 bars before each."""
    squares = [z[k - width : k].T @ z[k - width : k] for k in range(SCORED_FROM, len(z))]
    spreads = [np.sqrt(np.diag(square)) for square in squares]
    return [square / np.outer(spread, spread) for square, spread in zip(squares, spreads, strict=True)]


def test_real_bars_are_as_likely_as_the_specification_says(real):
    returns, z = real
    state, bare, fixed = moments.begin(), [], []
    for k, row in enumerate(returns.tolist()):
        if k >= SCORED_FROM:
            bare.append(correlation.raw(state, PARAMS))
            fixed.append(correlation.shrunk(state, PARAMS))
        moments.observe(state, (k + 1) * HOUR_NS, dict(zip(("ADA", "BNB", "BTC", "ETH"), row, strict=True)), PARAMS)
    assert likelihood(windows(z), z[SCORED_FROM:]) == pytest.approx(-0.578, abs=5e-4)
    assert likelihood(bare, z[SCORED_FROM:]) == pytest.approx(-0.519, abs=5e-4)
    assert likelihood([found.matrix for found in fixed], z[SCORED_FROM:]) >= -0.4775
    assert {found.raises for found in fixed} == {0}


def test_ledoit_and_wolfs_intensity_is_too_strong_for_real_bars(real):
    returns, z = real
    deltas, strong, fixed, scored = [], [], [], range(SCORED_FROM, len(z))
    state = moments.begin()
    for k, row in enumerate(returns.tolist()):
        if k in scored:
            deltas.append(shrinkage.constant_correlation_intensity(z[k - 60 : k]))
            strong.append(correlation.shrunk(state, CorrelationParams(shrink=deltas[-1])).matrix)
            fixed.append(correlation.shrunk(state, PARAMS).matrix)
        moments.observe(state, (k + 1) * HOUR_NS, dict(zip("ABCD", row, strict=True)), PARAMS)
    assert np.mean(deltas) == pytest.approx(0.88, abs=0.005)
    assert likelihood(strong, z[scored]) == pytest.approx(-0.534, abs=5e-4)
    assert likelihood(fixed, z[scored]) > likelihood(strong, z[scored]) + 0.05


def test_on_a_real_day_of_falls_all_coins_go_together(real):
    """2021-05-19, hours since 2020-08-02: .40 to .88 in the week before, .87 to .96 on the day."""
    returns, _ = real
    day = 290 * 24
    state, means = moments.begin(), []
    for k, row in enumerate(returns.tolist()[: day + 24]):
        moments.observe(state, (k + 1) * HOUR_NS, dict(zip("ABCD", row, strict=True)), PARAMS)
        means.append(pairs(correlation.raw(state, PARAMS)).mean())
    assert 0.40 < np.mean(means[day - 7 * 24 : day]) < 0.88
    assert 0.87 < max(means[day:]) < 0.96
