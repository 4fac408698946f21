"""The Kelly program against every set of free weights tried in turn, against Clarabel and skfolio, and by its signs."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.numerics import kelly_program
from engines.numerics.kelly_program import solution, solve

ROOT = Path(__file__).parents[3]
WORLDS = {
    "caps and gross": {},
    "wide open": {"cap": 100.0, "gross": 1e3, "longs": 0.5},
    "gross alone": {"cap": 100.0},
    "small claims": {"scale": 0.003, "longs": 0.6},
    "half short": {"scale": 0.02, "longs": 0.5},
    "narrow caps": {"cap": 0.02, "longs": 0.5, "scale": 0.05},
}


def world(seed, n, rho=0.6, kappa=0.0, longs=0.7, scale=1.0, cap=0.15, gross=0.8):
    """Return (pull, M, caps, gross): n correlated symbols with Kelly sizes that their claims would justify."""
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(0.01, 0.08, n) * rng.choice([0.3, 1.0, 1.0], n)
    factors = 0.4 * rng.normal(size=(n, 3))
    covariance = factors @ factors.T + np.diag(rng.uniform(0.3, 1.0, n))
    deviations = np.sqrt(np.diag(covariance))
    matrix = (1.0 - rho) * covariance / np.outer(deviations, deviations) + rho
    matrix = 0.7 * matrix + 0.3 * matrix.mean()
    matrix = (1.0 - kappa) * matrix + kappa
    np.fill_diagonal(matrix, 1.0)
    side = np.where(rng.random(n) < longs, 1.0, -1.0)
    x = scale * side * 0.25 * rng.uniform(0.02, 0.3, n) / sigma
    M = matrix * np.outer(sigma, sigma)
    return np.diag(M) * x, M, np.minimum(abs(x), cap * rng.uniform(0.1, 1.0, n)), gross


def seeds(count):
    for name, settings in WORLDS.items():
        for seed in range(count):
            yield world(seed, **{"n": 10, "rho": (0.0, 0.3, 0.6, 0.9)[seed % 4], **settings}), f"{name}, seed {seed}"


def objective(w, pull, M):
    return pull @ w - 0.5 * w @ M @ w


def every_set(pull, M, caps, gross, hedges):
    """Try every way for each weight to be out, free or full, long or short, with the budget binding or not."""
    choices = []
    for each in pull:
        long, short = [("free", 1), ("full", 1)], [("free", -1), ("full", -1)]
        choices.append([("out", 0), *(long if hedges or each > 0 else []), *(short if hedges or each < 0 else [])])
    best, found = 0.0, np.zeros(len(pull))
    for marks in itertools.product(*choices):
        for binding in (False, True):
            w = np.array([sign * cap if mark == "full" else 0.0 for (mark, sign), cap in zip(marks, caps, strict=True)])
            free = [i for i, (mark, _) in enumerate(marks) if mark == "free"]
            if free:
                signs = np.array([marks[i][1] for i in free], float)
                system, right = M[np.ix_(free, free)], (pull - M @ w)[free]
                if binding:
                    system = np.block([[system, signs[:, None]], [signs[None, :], np.zeros((1, 1))]])
                    right = np.append(right, gross - abs(w).sum())
                w[free] = np.linalg.solve(system, right)[: len(free)]
            signs = np.array([sign for _, sign in marks])
            if (w * signs < 0).any() or (abs(w) > caps * (1 + 1e-12)).any() or abs(w).sum() > gross * (1 + 1e-12):
                continue
            if objective(w, pull, M) > best:
                best, found = objective(w, pull, M), w
    return found


def broken_conditions(found, pull, M, caps, gross, hedges):
    """Return the largest breach of the Karush-Kuhn-Tucker conditions, in the largest pull."""
    w, price = found.weights, found.price
    slope = pull - M @ w
    breaches = [abs(w) - caps, abs(w).sum() - gross * (1 + 1e-12), -price]
    free, full = (w != 0) & (abs(w) < caps), (w != 0) & (abs(w) >= caps)
    breaches.append(abs(slope[free] - price * np.sign(w[free])))
    breaches.append(price - (slope * np.sign(w))[full])
    out = (w == 0) & (caps > 0)
    breaches.append((abs(slope) if hedges else slope * np.sign(pull))[out] - price)
    if abs(w).sum() < gross * (1 - 1e-9):
        breaches.append(price)
    if not hedges:
        breaches.append(-w * np.sign(pull))
    return max(np.max(each, initial=0.0) for each in map(np.atleast_1d, breaches)) / np.abs(pull).max()


# -- by hand -----------------------------------------------------------------------------------------------------------
def test_without_limits_it_is_kf_times_the_inverse_times_the_mean():
    mu, M = np.array([0.002, -0.001]), np.array([[4e-4, 1e-4], [1e-4, 9e-4]])
    expected = 0.25 * np.linalg.solve(M, mu)
    assert solve(mu, M, np.full(2, 50.0), 100.0, 0.25) == pytest.approx(expected, rel=1e-12)


def test_one_asset_is_the_fraction_of_section_one():
    m, S, kf = 0.004, 0.0004, 0.25
    second = S + m * m
    assert solve(np.array([m]), np.array([[second]]), np.array([9.0]), 9.0, kf)[0] == pytest.approx(kf * m / second)


def test_two_equal_assets_at_correlation_one_half_hold_two_thirds_each():
    M = 1e-4 * np.array([[1.0, 0.5], [0.5, 1.0]])
    assert solve(np.array([1e-5, 1e-5]), M, np.ones(2), 2.0, 1.0) == pytest.approx([1 / 15, 1 / 15], rel=1e-12)


def test_a_budget_that_binds_goes_to_the_better_claim_and_has_a_price():
    found = solution(np.array([3e-4, 1e-4]), 1e-3 * np.eye(2), np.ones(2), 0.25, hedges=False)
    assert found.weights == pytest.approx([0.225, 0.025])
    assert found.price == pytest.approx(7.5e-5)  # 3e-4 − 1e-3·.225


def test_a_hedge_is_opened_only_where_hedges_are_wanted():
    M = 1e-4 * np.array([[1.0, 0.9], [0.9, 1.0]])
    mu = np.array([1e-4, 1e-6])
    assert solve(mu, M, np.full(2, 9.0), 20.0, 0.25)[1] == 0.0
    assert solve(mu, M, np.full(2, 9.0), 20.0, 0.25, hedges=True)[1] < -1.0


def test_nothing_to_size_is_nothing():
    assert solve(np.zeros(0), np.zeros((0, 0)), np.zeros(0), 1.0, 0.25).size == 0
    assert solve(np.zeros(3), np.eye(3), np.ones(3), 1.0, 0.25).tolist() == [0.0, 0.0, 0.0]
    assert solve(np.ones(2), np.eye(2), np.zeros(2), 1.0, 0.25).tolist() == [0.0, 0.0]


def test_caps_that_just_fill_the_budget_hold_with_a_price_that_the_next_claim_would_pay():
    pull, M = np.array([4e-3, 3e-3, 2e-3]), 1e-3 * np.eye(3)
    found = solution(pull, M, np.full(3, 0.25), 0.5, hedges=False)
    assert found.weights.tolist() == [0.25, 0.25, 0.0]
    assert found.method == 0
    assert found.price == pytest.approx(2e-3)


# -- oracles -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("hedges", [False, True])
def test_no_set_of_free_weights_does_better(hedges):
    for seed in range(40):
        settings = list(WORLDS.values())[seed % len(WORLDS)]
        pull, M, caps, gross = world(seed, 3 if hedges else 4, **{"gross": 0.3, **settings})
        found = solution(pull, M, caps, gross, hedges)
        assert found.weights == pytest.approx(every_set(pull, M, caps, gross, hedges), rel=1e-9, abs=1e-12), seed


def clarabel_weights(pull, M, caps, gross, hedges):
    """Return Clarabel's weights at tolerances of 1e-13, or None where it does not call them solved.

    Each weight is its side times a size; with hedges both sides are there.
    """
    clarabel = pytest.importorskip("clarabel", reason="the oracle of the Kelly program; it is in the dev extra")
    from scipy import sparse  # noqa: PLC0415 (only with the oracle)

    n = len(pull)
    side = np.vstack([np.eye(n), -np.eye(n)]) if hedges else np.diag(np.sign(pull))
    size = np.concatenate([caps, caps]) if hedges else caps
    scale = np.abs(pull).max()
    count = len(size)
    A = sparse.csc_matrix(np.vstack([-np.eye(count), np.eye(count), np.ones((1, count))]))
    P = sparse.csc_matrix(np.triu(side @ M @ side.T / scale))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
    right = np.concatenate([np.zeros(count), size, [gross]])
    cones = [clarabel.NonnegativeConeT(2 * count + 1)]
    answer = clarabel.DefaultSolver(P, -side @ pull / scale, A, right, cones, settings).solve()
    return side.T @ np.array(answer.x) if str(answer.status) == "Solved" else None


@pytest.mark.parametrize("hedges", [False, True])
@pytest.mark.parametrize(("n", "count"), [(10, 40), (50, 10), (200, 2)])
def test_clarabel_finds_the_same_weights(n, count, hedges):
    compared, furthest = 0, 0.0
    for name, settings in WORLDS.items():
        for seed in range(count):
            pull, M, caps, gross = world(seed, **{"n": n, "rho": (0.3, 0.6, 0.9)[seed % 3], **settings})
            expected = clarabel_weights(pull, M, caps, gross, hedges)
            if expected is not None:
                compared += 1
                apart = np.abs(solution(pull, M, caps, gross, hedges).weights - expected).max()
                furthest = max(furthest, apart)
                assert apart <= 6e-8, f"{name}, seed {seed}"
    assert compared > 0


def test_skfolio_finds_the_same_portfolio():
    optimization = pytest.importorskip("skfolio.optimization", reason="an oracle of the Kelly program (dev extra)")
    rng = np.random.default_rng(5)
    returns = rng.normal(size=(400, 6)) * rng.uniform(0.01, 0.04, 6) + 0.4 * rng.normal(size=(400, 1)) * 0.03
    returns += rng.uniform(0.0, 0.002, 6)
    model = optimization.MeanRisk(
        objective_function=optimization.ObjectiveFunction.MAXIMIZE_UTILITY,
        risk_aversion=0.5,
        min_weights=0.0,
        max_weights=0.3,
        budget=None,
        max_budget=0.8,
        solver="CLARABEL",
        solver_params={"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10},
    )
    expected = model.fit(returns).weights_
    mean, covariance = returns.mean(axis=0), np.cov(returns.T)
    found = solve(np.maximum(mean, 0.0), covariance, np.full(6, 0.3), 0.8, 1.0)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found.sum() == pytest.approx(0.8)


def test_descent_alone_comes_to_the_same_weights():
    for (pull, M, caps, gross), name in seeds(12):
        found = solution(pull, M, caps, gross, hedges=False)
        lower, upper = np.where(pull < 0, -caps, 0.0), np.where(pull > 0, caps, 0.0)
        weights = np.zeros(len(pull))
        price = kelly_program._descend(weights, pull, M, lower, upper, gross)
        assert weights == pytest.approx(found.weights, abs=1e-9), name
        assert price == pytest.approx(found.price, rel=1e-6, abs=1e-12), name


# -- properties --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("hedges", [False, True])
@pytest.mark.parametrize(("n", "count"), [(2, 60), (10, 60), (50, 30), (200, 4)])
def test_the_exact_finish_holds_and_every_sign_is_right(n, count, hedges):
    methods = []
    for name, settings in WORLDS.items():
        for seed in range(count):
            kappa = (0.0, 0.0, 0.9)[seed % 3]
            pull, M, caps, gross = world(
                seed, **{"n": n, "rho": (0.0, 0.3, 0.6, 0.9)[seed % 4], "kappa": kappa, **settings}
            )
            found = solution(pull, M, caps, gross, hedges)
            methods.append(found.method)
            assert broken_conditions(found, pull, M, caps, gross, hedges) <= 1e-12, f"{name}, seed {seed}"
    assert max(methods) < 2
    assert sum(methods) <= 1


ratios = st.floats(0.0, 2.0)


@st.composite
def programs(draw):
    n = draw(st.integers(1, 7))
    column = st.lists(st.floats(-1.0, 1.0), min_size=n, max_size=n)
    factors = np.array(draw(st.lists(column, min_size=n, max_size=n)))
    M = factors @ factors.T + np.diag(draw(st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n)))
    caps = np.array(draw(st.lists(ratios, min_size=n, max_size=n)))
    return np.array(draw(column)), M, caps, draw(st.floats(0.01, 3.0)), draw(st.booleans())


@given(programs())
def test_any_program_is_solved_to_its_conditions(program):
    pull, M, caps, gross, hedges = program
    found = solution(pull, M, caps, gross, hedges)
    assert np.isfinite(found.weights).all()
    if np.abs(pull).max() > 1e-6:
        assert broken_conditions(found, pull, M, caps, gross, hedges) <= 1e-9


@given(programs())
def test_other_signs_give_the_same_sizes_to_the_bit(program):
    pull, M, caps, gross, hedges = program
    sides = np.where(np.arange(len(pull)) % 2 == 0, 1.0, -1.0)
    turned = solution(pull * sides, M * np.outer(sides, sides), caps, gross, hedges)
    assert (turned.weights * sides == solution(pull, M, caps, gross, hedges).weights).all()


DIGEST = """
import hashlib
from tests_quadratic import WORLDS, seeds
from engines.numerics.kelly_program import solution
from engines.numerics import kelly_program
import numpy as np
digest = hashlib.sha256()
for (pull, M, caps, gross), _ in seeds(3):
    for hedges in (False, True):
        found = solution(pull, M, caps, gross, hedges)
        numbers = float(found.price), int(found.solves), int(found.method)
        digest.update(found.weights.tobytes() + repr(numbers).encode())
weights = np.zeros(len(pull))
price = kelly_program._descend(weights, pull, M, np.where(pull < 0, -caps, 0.0), np.where(pull > 0, caps, 0.0), gross)
print(digest.hexdigest(), weights.tobytes().hex(), float(price).hex())
"""


def test_compiled_equals_interpreted_bit_by_bit():
    code = DIGEST.replace(
        "from tests_quadratic import",
        "import importlib.util as u, sys\n"
        f"spec = u.spec_from_file_location('tests_quadratic', {str(Path(__file__))!r})\n"
        "module = u.module_from_spec(spec); sys.modules['tests_quadratic'] = module\n"
        "spec.loader.exec_module(module)\nfrom tests_quadratic import",
    )

    def run(**environment):
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run(NUMBA_DISABLE_JIT="1") == run()
