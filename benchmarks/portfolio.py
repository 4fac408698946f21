"""The portfolio engines: the Kelly program against Clarabel, and stages 9 and 10; medians in one process.

Symbols are correlated at 0.3 to 0.9, with caps and gross limit active. Without Clarabel its column is left out.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from engines.models import ensemble
from engines.numerics import kelly_program
from engines.parameters import EnsembleParams
from engines.pipeline import portfolio_sizing

TARGETS_US = {10: 20.0, 50: 100.0, 200: 1_500.0}
RHOS = (0.3, 0.6, 0.9)


def world(n: int, seed: int) -> dict[str, Any]:
    """Return n correlated symbols with claims strong enough that the caps and the gross limit bind."""
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(0.01, 0.08, n)
    factors = 0.4 * rng.normal(size=(n, 3))
    covariance = factors @ factors.T + np.diag(rng.uniform(0.3, 1.0, n))
    deviations = np.sqrt(np.diag(covariance))
    rho = RHOS[seed % len(RHOS)]
    matrix = 0.7 * ((1.0 - rho) * covariance / np.outer(deviations, deviations) + rho) + 0.3 * rho
    np.fill_diagonal(matrix, 1.0)
    x = np.where(rng.random(n) < 0.6, 1.0, -1.0) * 0.25 * rng.uniform(0.05, 0.3, n) / sigma
    caps = np.minimum(abs(x), min(0.15, 4.0 / n) * rng.uniform(0.5, 1.0, n))
    M = matrix * np.outer(sigma, sigma)
    return {"x": x, "sigma": sigma, "matrix": matrix, "M": M, "pull": np.diag(M) * x, "caps": caps, "gross": 0.8}


def median_us(calls: Iterable[Callable[[], Any]], repeats: int = 7) -> float:
    """Return the median over the calls of each call's median time, µs."""
    medians = []
    for call in calls:
        call()
        taken = []
        for _ in range(repeats):
            begin = time.perf_counter_ns()
            call()
            taken.append(time.perf_counter_ns() - begin)
        medians.append(statistics.median(taken) / 1e3)
    return statistics.median(medians)


def program(at: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that solves the Kelly program."""
    return lambda: kelly_program.solution(at["pull"], at["M"], at["caps"], at["gross"], hedges=False)


def clarabel_program(clarabel: Any, at: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that solves it with Clarabel, with prebuilt matrices."""
    sparse = importlib.import_module("scipy.sparse")
    n, side = len(at["x"]), np.sign(at["x"])
    P = sparse.csc_matrix(np.triu(at["M"] * np.outer(side, side)) * 1e3)
    A = sparse.csc_matrix(np.vstack([-np.eye(n), np.eye(n), np.ones((1, n))]))
    right = np.concatenate([np.zeros(n), at["caps"], [at["gross"]]])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    cones = [clarabel.NonnegativeConeT(2 * n + 1)]
    return lambda: clarabel.DefaultSolver(P, -side * at["pull"] * 1e3, A, right, cones, settings).solve()


def stage_10(at: dict[str, Any]) -> Callable[[], Any]:
    """Return a function that runs stage 10, from nets in cents to shares."""
    n = len(at["x"])
    names = tuple(f"S{i:03}" for i in range(n))
    nets = {name: int(1e7 * each) for name, each in zip(names, at["x"].tolist(), strict=True)}
    variances = {name: each * each for name, each in zip(names, at["sigma"].tolist(), strict=True)}
    caps = dict(zip(names, at["caps"].tolist(), strict=True))
    correlations = portfolio_sizing.Correlations(names, at["matrix"], 0.5)
    return lambda: portfolio_sizing.allocate(nets, variances, correlations, caps, at["gross"], 100_000.0)


def stage_9(strategies: int, symbols: int) -> Callable[[], Any]:
    """Return a function that aggregates the cells of all strategies on all symbols."""
    cells = [(f"j{j:02}", f"S{i:03}") for j in range(strategies) for i in range(symbols)]
    cents = [(-1) ** k * 1_000_000 for k in range(len(cells))]
    names = [f"j{j:02}" for j in range(strategies)]
    weights = ensemble.renormalised(ensemble.begin(names), names)
    return lambda: ensemble.aggregate(cells, cents, weights, 0.7)


def outcome(strategies: int) -> Callable[[], Any]:
    """Return a function that updates the weights with one outcome."""
    params = EnsembleParams()
    weights = ensemble.begin([f"j{j:02}" for j in range(strategies)])
    return lambda: ensemble.observe(weights, "j01", 0.4, params)


def bound(at: dict[str, Any]) -> dict[str, float]:
    """Return which constraints are active in a solution."""
    found = program(at)()
    sizes = abs(found.weights)
    return {
        "solves": found.solves,
        "free": int(((sizes > 0) & (sizes < at["caps"])).sum()),
        "capped": int((sizes >= at["caps"]).sum()),
        "gross_binds": float(found.price > 0),
    }


def run(*, quick: bool = False) -> dict[str, Any]:
    """Return medians in µs with their targets and the yardstick."""
    count = 4 if quick else 60
    try:
        clarabel = importlib.import_module("clarabel")
    except ImportError:
        clarabel = None
    product = np.random.default_rng(0).normal(size=(200, 200))
    report: dict[str, Any] = {"yardstick_200x200_product_us": median_us([lambda: product @ product], 51)}
    report["clarabel"] = clarabel.__version__ if clarabel else "not installed"
    for n, target in TARGETS_US.items():
        worlds = [world(n, seed) for seed in range(count if n < 200 else count // 2)]
        of = [bound(at) for at in worlds]
        row = {"target_us": target, "program_us": median_us(map(program, worlds))}
        if clarabel:
            row["clarabel_us"] = median_us((clarabel_program(clarabel, at) for at in worlds), 3)
        row["stage_10_us"] = median_us(map(stage_10, worlds))
        row |= {f"mean_{name}": round(statistics.mean(each[name] for each in of), 2) for name in of[0]}
        report[f"{n}_symbols"] = row
    report["stage_10_2_symbols_us"] = median_us(stage_10(world(2, seed)) for seed in range(count))
    report["stage_9_us"] = {
        f"{j}_strategies_{i}_symbols": median_us([stage_9(j, i)], 51) for j, i in ((2, 2), (5, 10), (20, 10))
    }
    report["outcome_us"] = {f"{j}_strategies": median_us([outcome(j)], 51) for j in (2, 20)}
    return report
