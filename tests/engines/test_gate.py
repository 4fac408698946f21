"""The gate: the confidence sequence beside numpy's plain formulas, and what it does to many made policies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import gate
from engines.codec import decode, encode
from engines.gate import Gate
from engines.parameters import GateParams

PARAMS = GateParams()
SD, B = 0.0028, 0.02


# -- an independent answer -------------------------------------------------------------------------------------------
def sequence(d, alpha=PARAMS.alpha, bound=PARAMS.bound, cap=PARAMS.max_bet):
    """Return lower and upper ends after each difference: Waudby-Smith and Ramdas, theorem 2, along the last axis.

    Vectorised over runs: written from the formulas of methods §10, not from the engine.
    """
    y = (np.clip(d, -bound, bound) + bound) / (2 * bound)
    t = np.arange(1, y.shape[-1] + 1)
    sums = np.cumsum(y, -1)
    mean = (0.5 + sums) / (t + 1)
    mean_before = np.concatenate([np.full((*y.shape[:-1], 1), 0.5), mean[..., :-1]], -1)
    variance = (0.25 + np.cumsum((y - mean) ** 2, -1)) / (t + 1)
    variance_before = np.concatenate([np.full((*y.shape[:-1], 1), 0.25), variance[..., :-1]], -1)
    bet = np.minimum(np.sqrt(2 * np.log(2 / alpha) / (variance_before * t * np.log(1 + t))), cap)
    psi = (-np.log(1 - bet) - bet) / 4
    v = 4 * (y - mean_before) ** 2
    bets = np.cumsum(bet, -1)
    centre = np.cumsum(bet * y, -1) / bets
    half = (np.log(2 / alpha) + np.cumsum(v * psi, -1)) / bets
    lower = np.maximum.accumulate(np.maximum(centre - half, 0), -1)
    upper = np.minimum.accumulate(np.minimum(centre + half, 1), -1)
    return bound * (2 * lower - 1), bound * (2 * upper - 1)


def opened_at(d):
    """Return after how many decisions each run's gate opens; a number past its end: never."""
    lower, _ = sequence(d)
    found = (lower > 0).argmax(-1) + 1
    return np.where((lower > 0).any(-1), found, d.shape[-1] + 1)


def closed_at(d, opened):
    """Return how many decisions after its opening each run's gate closes, by Page's CUSUM; a large number: never."""
    clipped = np.clip(d, -B, B)
    t = np.arange(1, d.shape[-1] + 1)
    deviation = np.sqrt(np.cumsum(clipped**2, -1) / t)
    cusum = np.zeros(d.shape[:-1])
    closed = np.full(d.shape[:-1], 10**9)
    for index in range(d.shape[-1]):
        running = (index >= opened) & (closed == 10**9)
        cusum = np.where(
            running, np.maximum(0, cusum - clipped[..., index] / deviation[..., index] - PARAMS.cusum_slack), cusum
        )
        closed = np.where(running & (cusum > PARAMS.cusum_threshold), index + 1 - opened, closed)
    return closed


def walk(d, params=PARAMS):
    now, seen = Gate(), []
    for each in d:
        now = gate.step(now, 0.0, float(each), params)
        seen.append(now)
    return seen


differences = st.lists(st.floats(-0.05, 0.05), min_size=1, max_size=80)


@given(differences, st.sampled_from((0.01, 0.05, 0.5)), st.sampled_from((0.001, 0.02, 1.0)))
def test_the_interval_is_that_of_the_formulas(d, alpha, bound):
    params = GateParams(alpha=alpha, bound=bound)
    lower, upper = sequence(np.array(d), alpha, bound)
    for index, now in enumerate(walk(d, params)):
        assert gate.interval(now, params) == pytest.approx((lower[index], upper[index]), rel=1e-9, abs=1e-12 * bound)


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_engine_opens_and_closes_when_the_formulas_do(seed):
    chance = np.random.default_rng(seed)
    d = np.concatenate([chance.normal(0.004, 0.004, 200), chance.normal(-0.004, 0.004, 120)])
    opened = int(opened_at(d[None])[0])
    closed = int(closed_at(d[None], np.array([opened]))[0])
    status = [now.status for now in walk(d)]
    assert status.index("open") + 1 == opened
    assert status[opened - 1 :].index("closed") == closed
    assert "open" not in status[opened - 1 + closed :]


def test_three_differences_by_hand():
    """y = .75, .5, 1 with B = 2 %; λ is capped at ½ each time, so Σλ = 1.5 and the centre is their mean."""
    seen = walk([0.01, 0.0, 0.02])
    assert [each.decisions for each in seen] == [1, 2, 3]
    assert seen[2].centre_sum / seen[2].bet_sum == pytest.approx(0.75)
    psi = (np.log(2) - 0.5) / 4
    misses = (0.75 - 0.5, 0.5 - 1.25 / 2, 1.0 - 1.75 / 3)
    half = (np.log(40) + psi * sum(4 * miss**2 for miss in misses)) / 1.5
    assert seen[2].width_sum == pytest.approx(psi * sum(4 * miss**2 for miss in misses))
    assert half > 0.75
    assert gate.interval(seen[2], PARAMS) == (-0.02, 0.02)


# -- promises --------------------------------------------------------------------------------------------------------
@given(differences)
def test_an_interval_never_grows_and_a_gate_comes_back_from_its_bytes(d):
    before = Gate()
    for now in walk(d):
        assert before.lower <= now.lower
        assert now.upper <= before.upper
        assert decode("gates", encode(now)) == now
        before = now


def test_a_gate_that_has_closed_stays_closed_whatever_comes():
    chance = np.random.default_rng(3)
    d = np.concatenate([np.full(300, 0.004), np.full(200, -0.01), chance.normal(0.01, 0.001, 2_000)])
    status = [now.status for now in walk(d)]
    first = status.index("closed")
    assert set(status[first:]) == {"closed"}


def test_differences_are_clipped_and_equal_returns_are_no_evidence():
    huge, bound = walk([5.0] * 50)[-1], walk([0.02] * 50)[-1]
    assert huge[:11] == bound[:11]
    assert walk([0.0] * 5_000)[-1].status == "collecting"
    still = walk([0.02] * 60 + [0.0] * 10)[-1]
    assert (still.status, still.cusum) == ("open", 0.0)


def test_the_comparison_has_means_of_both_paths():
    now = gate.step(gate.step(Gate(), 0.01, 0.03, PARAMS), -0.02, -0.01, PARAMS)
    found = gate.comparison(now, PARAMS)
    assert (found.decisions, found.status) == (2, "collecting")
    assert found.base_mean == pytest.approx(-0.005)
    assert found.policy_mean == pytest.approx(0.01)
    assert found.advantage == pytest.approx(0.015)
    assert gate.comparison(Gate(), PARAMS).advantage == 0.0


# -- many made policies (`himari bench gate` has more runs) ----------------------------------------------------------
def test_a_policy_that_is_no_better_hardly_ever_opens_the_gate():
    d = np.random.default_rng(11).normal(0.0, SD, (2_000, 5_000)).astype(np.float64)
    assert (opened_at(d) <= 5_000).mean() <= PARAMS.alpha


def test_an_edge_of_four_basis_points_opens_it_after_a_thousand_decisions():
    d = np.random.default_rng(12).normal(0.0004, SD, (400, 6_000))
    opened = opened_at(d)
    assert 850 <= np.median(opened) <= 1_050
    wrongly = (closed_at(d, opened) < 10**9).mean()
    assert 0.06 <= wrongly <= 0.17


def test_an_edge_that_turns_is_closed_within_a_hundred_decisions():
    chance = np.random.default_rng(13)
    d = np.concatenate([chance.normal(0.0004, SD, (400, 3_000)), chance.normal(-0.0008, SD, (400, 400))], -1)
    opened = opened_at(d)
    running = opened <= 3_000
    closed = closed_at(d, opened) + opened - 3_000
    after = closed[running & (closed > 0)]
    assert 55 <= np.median(after) <= 80


def test_decisions_that_overlap_would_close_it_wrongly_most_of_the_time():
    """Why one open decision a cell is scored at a time: with an autocorrelation of .2 most gates close wrongly."""
    chance = np.random.default_rng(14)
    noise = chance.normal(0.0, 1.0, (300, 6_000))
    for index in range(1, noise.shape[-1]):
        noise[:, index] = 0.2 * noise[:, index - 1] + np.sqrt(1 - 0.04) * noise[:, index]
    d = 0.0004 + SD * noise
    wrongly = (closed_at(d, opened_at(d)) < 10**9).mean()
    assert 0.5 <= wrongly <= 0.78
