"""The gate: the confidence sequence beside numpy's plain formulas, and what it does to many made policies."""

from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gate import GROSS_SD, NEVER, made, one_by_one, simulate, summed, windows
from engines.models import policy_gate
from engines.models.policy_gate import Gate
from engines.parameters import GateParams
from engines.state.codec import decode, encode

PARAMS = GateParams()
SD, B = 0.0028, 0.02


# -- an independent answer -------------------------------------------------------------------------------------------
def sequence(d, alpha=PARAMS.alpha, bound=PARAMS.bound, cap=PARAMS.max_bet):
    """Return lower and upper ends after each difference: Waudby-Smith and Ramdas 2024, written from methods §10."""
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


def closed_at(d, opened):
    """Return after how many decisions a run's gate closes: Page's sum from its opening on, as plain numbers."""
    cusum = squares = 0.0
    for t, each in enumerate(np.clip(d, -B, B).tolist(), 1):
        squares += each * each
        if t > opened:
            cusum = max(0.0, cusum - each / np.sqrt(squares / t) - PARAMS.cusum_slack)
            if cusum > PARAMS.cusum_threshold:
                return t
    return NEVER


def walk(d, params=PARAMS):
    now, seen = Gate(), []
    for each in d:
        now = policy_gate.step(now, 0.0, float(each), params)
        seen.append(now)
    return seen


differences = st.lists(st.floats(-0.05, 0.05), min_size=1, max_size=80)
seeds = st.integers(0, 10**6)


@given(
    differences, st.sampled_from((0.01, 0.05, 0.5)), st.sampled_from((0.001, 0.02, 1.0)), st.sampled_from((0.1, 0.5))
)
def test_the_interval_is_that_of_the_formulas(d, alpha, bound, cap):
    params = GateParams(alpha=alpha, bound=bound, max_bet=cap)
    lower, upper = sequence(np.array(d), alpha, bound, cap)
    for index, now in enumerate(walk(d, params)):
        assert policy_gate.interval(now, params) == pytest.approx(
            (lower[index], upper[index]), rel=1e-12, abs=1e-12 * bound
        )


@given(seeds, st.floats(-0.002, 0.002), st.floats(1e-4, 0.02))
@settings(max_examples=15, deadline=None)
def test_the_interval_is_that_of_the_formulas_over_long_runs(seed, mean, sd):
    d = np.random.default_rng(seed).normal(mean, sd, 2_000)
    found = np.array([policy_gate.interval(now, PARAMS) for now in walk(d)])
    assert np.abs(found - np.array(sequence(d)).T).max() <= 1e-12


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_engine_opens_and_closes_when_the_formulas_do_and_so_do_runs_side_by_side(seed):
    chance = np.random.default_rng(seed)
    d = np.concatenate([chance.normal(0.004, 0.004, (3, 200)), chance.normal(-0.004, 0.004, (3, 120))], -1)
    opened, closed = simulate(iter(d.T))
    for run, each in enumerate(d):
        status = [now.status for now in walk(each)]
        assert int((sequence(each)[0] > 0).argmax()) + 1 == status.index("open") + 1 == opened[run]
        assert closed_at(each, opened[run]) == status.index("closed") + 1 == closed[run]
        assert "open" not in status[closed[run] - 1 :]


def test_runs_side_by_side_that_never_open_are_those_of_the_engine():
    d = np.random.default_rng(6).normal(0.0, SD, (5, 600))
    assert simulate(iter(d.T))[0].tolist() == [NEVER] * 5
    assert {now.status for each in d for now in walk(each)} == {"collecting"}


def test_three_differences_by_hand():
    """y = .75, .5, 1 with B = 2 %; λ is capped at ½ each time, so Σλ = 1.5 and the centre is their mean."""
    seen = walk([0.01, 0.0, 0.02])
    assert [each.windows for each in seen] == [1, 2, 3]
    assert seen[2].centre_sum / seen[2].bet_sum == pytest.approx(0.75)
    psi = (np.log(2) - 0.5) / 4
    misses = (0.75 - 0.5, 0.5 - 1.25 / 2, 1.0 - 1.75 / 3)
    half = (np.log(40) + psi * sum(4 * miss**2 for miss in misses)) / 1.5
    assert seen[2].width_sum == pytest.approx(psi * sum(4 * miss**2 for miss in misses))
    assert half > 0.75
    assert policy_gate.interval(seen[2], PARAMS) == (-0.02, 0.02)


def test_a_fresh_gate_is_no_evidence_in_plain_numbers():
    assert Gate() == ("collecting", 0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, *(0,) * 8)
    assert policy_gate.interval(Gate(), PARAMS) == (-0.02, 0.02)


@given(differences, st.floats(-0.05, 0.05))
def test_only_the_difference_of_the_two_returns_is_evidence(d, base):
    now = Gate()
    for each in d:
        now = policy_gate.step(now, base, base + each, PARAMS)
    assert now[1:11] == pytest.approx(walk(d)[-1][1:11], rel=1e-9, abs=1e-12)
    assert now.base_return == pytest.approx(base * len(d))


def test_edges_are_not_beyond_themselves():
    """At 0 the lower end is no evidence, at its threshold the sum does not close, and no difference is no loss."""
    assert policy_gate.step(Gate(lower=0.0), 0.0, 0.0, PARAMS).status == "collecting"
    at_the_edge = Gate("open", cusum=PARAMS.cusum_threshold)
    kept = policy_gate.step(at_the_edge, 0.0, 0.0, GateParams(cusum_slack=0.0))
    assert (kept.status, kept.cusum) == ("open", PARAMS.cusum_threshold)
    opened = next(now for now in walk([0.02] * 100) if now.status == "open")
    assert opened.cusum == 0.0


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
    now = policy_gate.step(policy_gate.step(Gate(), 0.01, 0.03, PARAMS), -0.02, -0.01, PARAMS)
    found = policy_gate.comparison(now, PARAMS)
    assert (found.windows, found.status) == (2, "collecting")
    assert found.base_mean == pytest.approx(-0.005)
    assert found.policy_mean == pytest.approx(0.01)
    assert found.advantage == pytest.approx(0.015)
    assert policy_gate.comparison(Gate(), PARAMS).advantage == 0.0


# -- many made policies (`himari bench gate` has more runs) ----------------------------------------------------------
def test_a_policy_that_is_no_better_hardly_ever_opens_the_gate():
    opened, _ = simulate(made(11, 2_000, 5_000, 0.0))
    assert (opened != NEVER).mean() <= 0.005  # tried: .001; promised: .05


def test_an_edge_of_four_basis_points_opens_it_after_nine_hundred_decisions():
    opened, closed = simulate(made(12, 1_000, 6_000, 0.0004))
    assert 850 <= np.median(opened) <= 1_000
    assert 0.09 <= (closed != NEVER).mean() <= 0.145


def test_an_edge_that_turns_is_closed_within_a_hundred_decisions():
    opened, closed = simulate(chain(made(13, 400, 3_000, 0.0004), made(14, 400, 400, -0.0008)))
    running = (opened != NEVER) & (opened <= 3_000) & (closed > 3_000)
    assert running.sum() > 350
    assert 62 <= np.median(closed[running] - 3_000) <= 75


def test_windows_that_overlap_would_close_it_wrongly_most_of_the_time():
    """Why decisions between two windows are not scored: with an autocorrelation of .2 most gates close wrongly."""
    _, closed = simulate(made(15, 500, 6_000, 0.0004, 0.2))
    assert 0.55 <= (closed != NEVER).mean() <= 0.72


# -- cells that move together ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("cells", "one_by_one_opens"), [(5, 0.05), (10, 0.15), (20, 0.3)])
def test_correlated_cells_open_it_wrongly_one_by_one_and_not_by_window(cells, one_by_one_opens):
    """ρ = .7, 5,000 decisions without an edge: of single decisions .09/.27/.43 open, of windows .006 at most."""
    count = 5_000 // cells
    alone, _ = simulate(one_by_one(windows(21, 300, count, cells, 0.0, SD)))
    assert (alone != NEVER).mean() > one_by_one_opens
    together, _ = simulate(summed(windows(21, 2_000, count, cells, 0.0, SD)))
    assert (together != NEVER).mean() <= 0.02


@pytest.mark.parametrize("cells", [5, 10, 20])
def test_an_edge_of_correlated_cells_opens_it_after_about_five_hundred_windows(cells):
    sd = GROSS_SD / cells
    opened, _ = simulate(summed(windows(22, 400, 1_200, cells, sd / 7.0, sd)))
    assert 440 <= np.median(np.where(opened == NEVER, 10_000, opened)) <= 580


# -- windows -----------------------------------------------------------------------------------------------------------
H = 3_600 * 10**9


class Decision(NamedTuple):
    at_ns: int
    horizon_ns: int
    late_ns: int
    base: float
    policy: float


def scored(decisions):
    """Let the gate admit decisions as they are made, and score their outcomes as they come."""
    now, windows, events = Gate(), {}, []
    for index, each in enumerate(decisions):
        events += [(each.at_ns, 0, index), (each.at_ns + each.horizon_ns + each.late_ns, 1, index)]
    for _, is_outcome, index in sorted(events):
        each = decisions[index]
        if is_outcome:
            now = policy_gate.score(now, windows[index], each.base, each.policy, PARAMS)
        else:
            now, windows[index] = policy_gate.admit(now, each.at_ns, each.horizon_ns)
    return now, [windows[index] for index in range(len(decisions))]


def members(decisions):
    """Return the window of each decision, looked up slowly: who is in the first one, then in the next, and so on."""
    order = sorted(range(len(decisions)), key=lambda index: (decisions[index].at_ns, index))
    found = dict.fromkeys(order, 0)
    while order:
        first = decisions[order[0]]
        taken = [index for index in order if decisions[index].at_ns - first.at_ns <= first.horizon_ns // 2]
        closed = first.at_ns + first.horizon_ns
        inside = []
        for index in taken:
            if decisions[index].at_ns >= closed:
                break
            inside.append(index)
            closed = max(closed, decisions[index].at_ns + decisions[index].horizon_ns)
        found |= dict.fromkeys(inside, first.at_ns)
        order = [index for index in order if decisions[index].at_ns >= closed]
    return [found[index] for index in range(len(decisions))]


decision = st.builds(
    Decision,
    st.integers(1, 40 * 4).map(lambda quarters: quarters * H // 4),
    st.sampled_from((H // 4, H, 2 * H)),
    st.just(0),
    st.floats(-0.01, 0.01),
    st.floats(-0.01, 0.01),
)
made_decisions = st.lists(decision, min_size=1, max_size=40)


@given(made_decisions)
def test_windows_take_half_a_horizon_and_never_overlap(decisions):
    _, found = scored(decisions)
    assert found == members(decisions)
    spans = {
        window: [
            (each.at_ns, each.at_ns + each.horizon_ns)
            for each, its in zip(decisions, found, strict=True)
            if its == window
        ]
        for window in sorted(set(found) - {0})
    }
    for (_, earlier), (later, _) in pairwise(spans.items()):
        assert max(due for _, due in earlier) <= later


@given(made_decisions)
def test_one_sum_a_window_enters_the_test_and_the_newest_waits(decisions):
    now, found = scored(decisions)
    sums = {}
    for each, window in zip(decisions, found, strict=True):
        if window:
            base, policy, count = sums.get(window, (0.0, 0.0, 0))
            sums[window] = (base + each.base, policy + each.policy, count + 1)
    *tested, newest = [sums[window] for window in sorted(sums)]
    alone = Gate()
    for base, policy, _ in tested:
        alone = policy_gate.step(alone, base, policy, PARAMS)
    assert now.status == alone.status
    assert now[1:13] == pytest.approx(alone[1:13], rel=1e-9, abs=1e-12)
    assert now.decisions == sum(count for *_, count in sums.values())
    assert (now.summed_base, now.summed_policy, now.summed_decisions) == pytest.approx(newest)
    assert decode("gates", encode(now)) == now


def at(hours, late=0.0, horizon=1.0, policy=0.001):
    return Decision(int((100 + hours) * H), int(horizon * H), int(late * H), 0.0, policy)


def test_a_window_by_hand():
    """From 0 h on: .5 h is the last it takes and due at 1.5 h; .75 and 1.25 h lie between; 1.5 h opens the next."""
    now, found = scored([at(0), at(0.5), at(0.75), at(1.25), at(1.5), at(2.4)])
    first, second = int(100 * H), int(101.5 * H)
    assert found == [first, first, 0, 0, second, 0]
    assert (now.windows, now.decisions, now.summed_decisions) == (1, 3, 1)
    assert now.policy_return == pytest.approx(0.002)


def test_the_last_window_waits_for_an_outcome_of_a_later_one():
    alone, _ = scored([at(0), at(0.25)])
    assert (alone.windows, alone.decisions, alone.summed_policy) == (0, 2, pytest.approx(0.002))
    undecided, _ = policy_gate.admit(alone, int(110 * H), H)
    assert undecided.windows == 0, "a decision alone says nothing of what it will have earned"


def test_an_outcome_after_that_of_a_later_window_is_not_scored():
    """Until then a late one counts: the later window's outcome comes an hour after its decision at the earliest."""
    in_time, _ = scored([at(0), at(0.25, late=1.0), at(1.5)])
    late, _ = scored([at(0), at(0.25, late=1.3), at(1.5)])
    assert (in_time.policy_return, in_time.decisions) == (pytest.approx(0.002), 3)
    assert (late.policy_return, late.decisions) == (pytest.approx(0.001), 2)


def test_a_window_of_which_no_outcome_came_is_no_evidence():
    now, first = policy_gate.admit(Gate(), 100 * H, H)
    now, second = policy_gate.admit(now, 102 * H, H)
    assert policy_gate.score(now, second, 0.0, 0.001, PARAMS).windows == 0
    now, third = policy_gate.admit(now, 104 * H, H)
    now = policy_gate.score(now, first, 0.0, 0.001, PARAMS)
    now = policy_gate.score(now, third, 0.0, 0.001, PARAMS)
    assert (now.windows, now.summed_ns) == (1, third)
    assert policy_gate.score(now, second, 0.0, 0.001, PARAMS) is now


def test_what_was_decided_before_the_evidence_began_anew_is_not_scored():
    now, old = policy_gate.admit(Gate(), 100 * H, H)
    assert policy_gate.score(Gate(), old, 0.0, 0.001, PARAMS) == Gate()
    now, new = policy_gate.admit(Gate(), 100 * H + 1, H)
    assert policy_gate.score(now, old, 0.0, 0.001, PARAMS) is now
    assert policy_gate.score(now, new, 0.0, 0.001, PARAMS).decisions == 1
    assert policy_gate.score(now, 0, 0.0, 0.001, PARAMS) is now


def test_a_slip_in_a_horizon_does_not_hold_a_window_open_for_years():
    month = 30 * 24
    assert policy_gate.admit(Gate(), 100 * H, month * H + 1) == (Gate(), 0)
    _, found = scored([at(0), at(0.25, horizon=10 * 365 * 24), at(1.0)])
    assert found == [100 * H, 0, 101 * H]
    assert scored([at(0, horizon=month)])[1] == [100 * H]
