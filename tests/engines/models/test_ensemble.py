"""Stage 9: k alike forecasts are not k bets, weights follow outcomes and forget nobody, and slow drift is seen."""

from fractions import Fraction
from itertools import pairwise
from math import inf, log, nan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.models import ensemble
from engines.models.ensemble import ForecastCorrelation, StrategyWeight
from engines.parameters import EnsembleParams

PARAMS = EnsembleParams()
BARE = EnsembleParams(fixed_share=0.0, weight_floor=0.0)
FIVE = [(name, "BTC") for name in "abcde"]
EQUAL = dict.fromkeys("abcde", 0.2)


# -- the stage ---------------------------------------------------------------------------------------------------------
def test_five_forecasts_alike_at_seven_tenths_are_worth_one_and_a_third():
    after = ensemble.aggregate(FIVE, [1_000_000_000] * 5, EQUAL, 0.7)
    assert sum(after) / 1e9 == pytest.approx(1.3158, abs=5e-5)
    assert after == [263_157_894] * 5


def test_the_regression_of_a_return_on_five_such_forecasts_bets_as_much():
    """Oracle: forecasts f_j = edge + noise that correlate .7; what least squares makes of their sum is the multiple."""
    rng = np.random.default_rng(1)
    edge, noise = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, 5))
    forecasts = sqrt(0.7) * edge + sqrt(0.3) * noise
    returns = sqrt(0.7) * edge[:, 0] + 0.01 * rng.normal(size=20_000)
    alone = (forecasts[:, 0] @ returns) / (forecasts[:, 0] @ forecasts[:, 0])
    together = np.linalg.lstsq(forecasts, returns, rcond=None)[0].sum()
    assert together / alone == pytest.approx(5 / (1 + 4 * 0.7), rel=0.02)


def test_one_strategy_alone_comes_through_as_it_is():
    assert ensemble.aggregate([("a", "BTC")], [-123_457], {"a": 1.0}, 0.7) == [-123_457]


def test_cells_without_a_size_are_not_counted():
    cells = [("a", "BTC"), ("b", "BTC"), ("a", "ETH")]
    assert ensemble.aggregate(cells, [500, 0, -700], {"a": 0.5, "b": 0.5}, 0.7) == [500, 0, -700]


def test_opposite_sides_net_after_both_have_shrunk():
    after = ensemble.aggregate([("a", "BTC"), ("b", "BTC")], [1_700_000, -850_000], {"a": 0.5, "b": 0.5}, 0.7)
    assert after == [1_000_000, -500_000]


def test_a_light_strategy_counts_less_and_a_heavy_one_no_more_than_it_wants():
    cells = [("a", "BTC"), ("b", "ETH"), ("c", "XRP")]
    after = ensemble.aggregate(cells, [900, 900, -900], {"a": 0.625, "b": 0.25, "c": 0.125}, 0.7)
    assert after == [900, 675, -337]


def test_weights_need_not_sum_to_one():
    cells = [("a", "BTC"), ("b", "ETH")]
    for scale in (0.01, 1.0, 7.0):
        assert ensemble.aggregate(cells, [900, 900], {"a": 3 * scale, "b": scale}, 0.7) == [900, 450]


def test_a_strategy_without_a_weight_gets_nothing():
    assert ensemble.aggregate([("a", "BTC"), ("x", "BTC")], [900, 900], {"a": 1.0}, 0.5) == [600, 0]
    assert ensemble.aggregate([("a", "BTC")], [900], {"a": 0.0}, 0.5) == [0]


# -- opposite sides ----------------------------------------------------------------------------------------------------
def test_the_larger_side_keeps_the_net_in_proportion():
    cells = [("a", "BTC"), ("b", "BTC"), ("c", "BTC"), ("a", "ETH")]
    assert ensemble.netted(cells, [300, 100, -120, -50]) == [210, 70, 0, -50]
    assert ensemble.netted(cells, [-300, -100, 120, 0]) == [-210, -70, 0, 0]
    assert ensemble.netted(cells, [100, 100, -101, 50]) == [49, 49, 0, 50], "toward zero"
    assert ensemble.netted(cells, [100, 20, -120, -50]) == [0, 0, 0, -50]
    assert ensemble.netted([], []) == []


def check_netted(cells, cents):
    """Hold what netting promises of any book, beside fractions."""
    after = ensemble.netted(cells, cents)
    for symbol in {symbol for _, symbol in cells}:
        rows = [index for index, cell in enumerate(cells) if cell[1] == symbol]
        before = [cents[index] for index in rows]
        long, short = sum(size for size in before if size > 0), -sum(size for size in before if size < 0)
        net, gross = long - short, max(long, short)
        for index in rows:
            kept = (
                Fraction(abs(net), gross) if cents[index] * net > 0 and long and short else 0 if long and short else 1
            )
            assert after[index] == int(cents[index] * Fraction(kept))
            assert abs(after[index]) <= abs(cents[index]), "nothing grows"
            assert after[index] * cents[index] >= 0, "nothing flips"
        left = sum(after[index] for index in rows)
        assert left * net >= 0
        assert 0 <= abs(net) - abs(left) < max(len(rows), 1), "the net is kept, to the cents that truncation takes"
        assert sum(abs(after[index]) for index in rows) == abs(left), "one side is left"
    assert ensemble.netted(cells, after) == after, "once is enough"
    for group in range(2):
        names = {cell[group] for cell in cells}
        for name in names:
            rows = [index for index, cell in enumerate(cells) if cell[group] == name]
            assert sum(abs(after[row]) for row in rows) <= sum(abs(cents[row]) for row in rows), "what a cap allowed"
    order = sorted(range(len(cells)), key=lambda index: (cells[index][1], -index))
    turned = ensemble.netted([cells[index] for index in order], [cents[index] for index in order])
    assert turned == [after[index] for index in order], "the order of rows changes nothing"


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(("BTC", "ETH", "SOL"))),
        st.one_of(st.integers(-5, 5), st.integers(-(10**14), 10**14)),
        max_size=24,
    )
)
def test_netting_promises_of_any_book(book):
    check_netted(list(book), list(book.values()))


def test_netting_promises_of_four_thousand_books_like_real_ones():
    chance = np.random.default_rng(9)
    for _ in range(4_000):
        cells = [
            (s, y) for s in "abcdef"[: chance.integers(1, 7)] for y in ("BTC", "ETH", "SOL") if chance.random() < 0.7
        ]
        check_netted(cells, chance.integers(-3_000_000, 3_000_000, len(cells)).tolist())


# -- weights of the stage ----------------------------------------------------------------------------------------------
def test_equal_weights_take_no_cent_however_many_there_are():
    for count in range(1, 80):
        weights = ensemble.begin([f"s{i}" for i in range(count)])
        live = ensemble.renormalised(weights, list(weights))
        assert ensemble.aggregate([("s0", "BTC")], [10**9], live, 0.7) == [10**9]


books = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("XYZ"), st.integers(-(10**9), 10**9) | st.just(0)),
    unique_by=lambda row: row[:2],
    max_size=12,
)
scales = st.fixed_dictionaries({name: st.floats(0.0, 1.0) for name in "abcd"})


@given(books, scales, st.floats(0.0, 1.0))
def test_nothing_grows_or_flips_and_a_symbol_is_at_most_what_likeness_allows(book, weights, rho):
    cells, cents = [row[:2] for row in book], [row[2] for row in book]
    after = ensemble.aggregate(cells, cents, weights, rho)
    assert all(abs(now) <= abs(was) and now * was >= 0 for was, now in zip(cents, after, strict=True))
    for symbol in "XYZ":
        rows = [i for i, cell in enumerate(cells) if cell[1] == symbol and cents[i]]
        most = max((abs(cents[i]) for i in rows), default=0) * len(rows) / (1 + max(len(rows) - 1, 0) * rho)
        assert sum(abs(after[i]) for i in rows) <= most * (1 + 1e-12)


@given(books, scales, st.floats(0.0, 1.0), st.randoms(use_true_random=False))
def test_the_order_of_cells_and_of_weights_changes_nothing(book, weights, rho, chance):
    order = list(range(len(book)))
    chance.shuffle(order)
    cells, cents = [row[:2] for row in book], [row[2] for row in book]
    turned = dict(sorted(weights.items(), reverse=True))
    after = ensemble.aggregate(cells, cents, weights, rho)
    assert ensemble.aggregate([cells[i] for i in order], [cents[i] for i in order], turned, rho) == [
        after[i] for i in order
    ]


# -- how alike forecasts are -------------------------------------------------------------------------------------------
def observed(samples, params=PARAMS):
    moments = None
    for forecasts in samples:
        moments = ensemble.observe_forecasts(moments, forecasts, params)
    return moments


def test_a_forecast_is_signed_by_its_side():
    assert ensemble.forecast(1, 0.004, 0.02) == pytest.approx(0.2)
    assert ensemble.forecast(-1, 0.004, 0.02) == pytest.approx(-0.2)


def test_the_mean_over_pairs_is_decayed_and_divided_by_the_mean_square():
    one, two = [0.3, 0.1, -0.2], [0.5, 0.4]
    pairs = [(0.3 * 0.1 - 0.3 * 0.2 - 0.1 * 0.2) / 3, 0.2]
    squares = [0.14 / 3, 0.41 / 2]
    moments = observed([one, two])
    assert moments.product == pytest.approx(0.01 * (0.99 * pairs[0] + pairs[1]))
    assert moments.square == pytest.approx(0.01 * (0.99 * squares[0] + squares[1]))
    quick = EnsembleParams(correlation_samples=2)
    assert ensemble.correlation(moments, quick) == pytest.approx(
        (0.99 * pairs[0] + pairs[1]) / (0.99 * squares[0] + squares[1])
    )


def test_it_is_the_prior_until_fifty_samples():
    assert ensemble.correlation(None, PARAMS) == 0.7
    assert ensemble.correlation(observed([[0.1, 0.1]] * 49), PARAMS) == 0.7
    assert ensemble.correlation(observed([[0.1, 0.1]] * 50), PARAMS) == pytest.approx(1.0)


def test_it_finds_the_correlation_that_forecasts_have():
    rng = np.random.default_rng(2)
    for rho in (0.0, 0.4, 0.7, 1.0):
        common, own = rng.normal(size=(4_000, 1)), rng.normal(size=(4_000, 4))
        found = ensemble.correlation(
            observed((sqrt(rho) * common + sqrt(1 - rho) * own).tolist(), EnsembleParams(correlation_decay=0.999)),
            PARAMS,
        )
        assert found == pytest.approx(rho, abs=0.06)


def test_forecasts_that_contradict_each_other_count_as_unlike_not_as_less():
    assert ensemble.correlation(observed([[0.1, -0.1]] * 60), PARAMS) == 0.0


@pytest.mark.parametrize("forecasts", [[], [0.3], [0.0, 0.0], [nan, 0.1], [inf, 0.1], [1e200, -1e200], [1e-200, 0.0]])
def test_what_says_nothing_of_likeness_changes_nothing(forecasts):
    before = ForecastCorrelation(0.1, 0.2, 60)
    assert ensemble.observe_forecasts(before, forecasts, PARAMS) == before
    assert ensemble.observe_forecasts(None, forecasts, PARAMS) is None


@given(st.lists(st.lists(st.floats(-3.0, 3.0), min_size=2, max_size=6), min_size=50, max_size=60))
def test_it_is_a_ratio_whatever_is_forecast_in_whatever_order(samples):
    found = ensemble.correlation(observed(samples), PARAMS)
    assert 0.0 <= found <= 1.0
    assert ensemble.correlation(observed([sorted(each) for each in samples]), PARAMS) == found


# -- how good strategies are -------------------------------------------------------------------------------------------
def test_the_loss_is_zero_for_three_volatilities_gained_and_one_for_three_lost():
    assert [ensemble.loss(1, r, 0.02) for r in (0.1, 0.06, 0.03, 0.0, -0.03, -0.06, -0.1)] == pytest.approx(
        [0, 0, 0.25, 0.5, 0.75, 1, 1]
    )
    assert ensemble.loss(-1, -0.06, 0.02) == pytest.approx(0.0)


@pytest.mark.parametrize(("r", "s"), [(nan, 0.02), (inf, 0.02), (0.1, 0.0), (0.1, nan), (0.1, inf), (0.1, -1.0)])
def test_an_outcome_that_is_no_number_is_neutral(r, s):
    assert ensemble.loss(1, r, s) == 0.5


def test_one_outcome_by_hand():
    weights = ensemble.begin(["a", "b"])
    after = ensemble.observe(weights, "a", 0.0, BARE)
    grown = 0.5 * np.exp(sqrt(8 * log(2) / 2_000) * 0.5)
    assert after["a"].weight == pytest.approx(grown / (grown + 0.5), rel=1e-14)
    assert after["b"].weight == pytest.approx(0.5 / (grown + 0.5), rel=1e-14)
    assert after["a"].reference == pytest.approx(0.5 + (after["a"].weight - 0.5) / 200, rel=1e-14)


def test_the_fixed_share_lifts_a_strategy_that_was_written_off():
    assert ensemble.hedge([1.0, 0.0], [0.5, 0.5], EnsembleParams(weight_floor=0.0)) == pytest.approx([0.9995, 0.0005])


def test_no_weight_is_below_the_floor_and_the_others_keep_their_proportions():
    after = ensemble.hedge([0.6, 0.39, 0.01], [0.5] * 3, EnsembleParams(fixed_share=0.0))
    assert after == pytest.approx([0.95 * 60 / 99, 0.95 * 39 / 99, 0.05])
    many = ensemble.hedge([1.0] + [0.0] * 9, [0.5] * 10, EnsembleParams(fixed_share=0.0))
    assert many == pytest.approx([1 - 9 * 0.025] + [0.025] * 9)


def test_giving_to_the_floor_can_bring_another_to_it():
    after = ensemble.hedge([0.9395, 0.0505, 0.005, 0.005], [0.5] * 4, EnsembleParams(fixed_share=0.0))
    assert after == pytest.approx([0.85, 0.05, 0.05, 0.05])


def regret(losses, params=BARE):
    """Play all losses; return Hedge's loss over that of the best strategy."""
    count = losses.shape[1]
    weights, lost = [1.0 / count] * count, 0.0
    for row in losses.tolist():
        lost += sum(weight * each for weight, each in zip(weights, row, strict=True))
        weights = ensemble.hedge(weights, row, params)
    return lost - losses.sum(axis=0).min()


def hard_losses():
    """Sequences that make Hedge regret: fair coins, one a little better, leaders that change, and one that is right."""
    rng = np.random.default_rng(4)
    coins = (rng.random((2_000, 10)) < 0.5).astype(float)
    better = coins.copy()
    better[:, 3] = (rng.random(2_000) < 0.45).astype(float)
    turns = np.ones((2_000, 10))
    turns[np.arange(2_000), np.arange(2_000) // 200] = 0.0
    right = np.ones((2_000, 10))
    right[:, 0] = 0.0
    return {"coins": coins, "better": better, "turns": turns, "right": right}


@pytest.mark.parametrize("name", ["coins", "better", "turns", "right"])
def test_the_regret_of_hedge_is_within_its_bound(name):
    bound = sqrt(2_000 * log(10) / 2)
    assert bound == pytest.approx(48.0, abs=0.02)
    assert regret(hard_losses()[name]) <= bound


def test_an_adversary_who_hits_the_heaviest_stays_within_the_bound():
    weights, losses, lost = [0.1] * 10, [], 0.0
    for _ in range(2_000):
        heaviest = max(range(10), key=weights.__getitem__)
        row = [1.0 if i == heaviest else 0.0 for i in range(10)]
        lost += weights[heaviest]
        losses.append(row)
        weights = ensemble.hedge(weights, row, BARE)
    assert lost - np.array(losses).sum(axis=0).min() <= sqrt(2_000 * log(10) / 2)


def test_a_larger_share_and_the_floor_cost_what_the_specification_says():
    right = hard_losses()["right"]
    assert regret(right, EnsembleParams(weight_floor=0.0)) == pytest.approx(44, abs=6)
    assert regret(right, EnsembleParams(weight_floor=0.0, fixed_share=0.01)) == pytest.approx(217, abs=20)
    assert regret(right, PARAMS) == pytest.approx(464, abs=20)


def test_a_strategy_that_joins_takes_an_equal_part_of_each_and_nothing_drifts():
    weights = {"a": StrategyWeight(0.75, 0.5), "c": StrategyWeight(0.25, 0.5)}
    joined = ensemble.join(weights, "b")
    assert list(joined) == ["a", "b", "c"]
    assert joined["b"] == pytest.approx((1 / 3, 1 / 3))
    assert joined["a"] == pytest.approx((0.5, 1 / 3))
    assert ensemble.drift(joined, 0.2).ratio == pytest.approx(ensemble.drift(weights, 0.2).ratio * 2 / 3)
    assert ensemble.join(joined, "b") == joined
    assert ensemble.join({}, "a") == {"a": StrategyWeight(1.0, 1.0)}


def test_a_strategy_that_leaves_gives_to_the_others_in_proportion():
    left = ensemble.leave(ensemble.join({"a": StrategyWeight(0.75, 0.5), "c": StrategyWeight(0.25, 0.5)}, "b"), "b")
    assert left["a"] == pytest.approx((0.75, 0.5))
    assert left["c"] == pytest.approx((0.25, 0.5))
    assert ensemble.leave({"a": StrategyWeight(1.0, 1.0)}, "a") == {}


def test_only_live_strategies_share_the_capital():
    weights = {name: StrategyWeight(weight, 0.25) for name, weight in zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True)}
    assert ensemble.renormalised(weights, ["d", "b"]) == pytest.approx({"b": 1 / 3, "d": 2 / 3})
    assert ensemble.renormalised(weights, []) == {}
    assert ensemble.renormalised({}, ["b", "a"]) == {"a": 0.5, "b": 0.5}


outcomes = st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.0, 1.0)), max_size=60)


@given(outcomes)
def test_weights_and_references_always_sum_to_one_and_keep_the_floor(rows):
    weights = ensemble.begin(["a", "b"])
    for strategy, lost in rows:
        weights = ensemble.observe(weights, strategy, lost, PARAMS)
        assert sum(each.weight for each in weights.values()) == pytest.approx(1.0, abs=1e-12)
        assert sum(each.reference for each in weights.values()) == pytest.approx(1.0, abs=1e-12)
        assert min(each.weight for each in weights.values()) >= min(0.05, 0.25 / len(weights))
        assert 0.0 <= ensemble.drift(weights, 0.2).ratio <= 1.0
        assert list(weights) == sorted(weights)


def test_a_strategy_that_gains_is_heavier_than_one_that_loses():
    weights = ensemble.begin(["bad", "good", "idle"])
    for _ in range(200):
        weights = ensemble.observe(weights, "good", 0.3, PARAMS)
        weights = ensemble.observe(weights, "bad", 0.7, PARAMS)
    assert weights["bad"].weight < weights["idle"].weight < weights["good"].weight


# -- drift -------------------------------------------------------------------------------------------------------------
def walk():
    """One of five strategies from 10 % to 48 % in nine steps; the reference follows slowly."""
    reference, decay = [0.1] + [0.225] * 4, 1 - 1 / PARAMS.reference_outcomes
    for step in range(10):
        first = 0.1 + 0.38 * step / 9
        weights = [first] + [(1 - first) / 4] * 4
        if step:
            reference = [decay * slow + (1 - decay) * now for slow, now in zip(reference, weights, strict=True)]
        yield {
            name: StrategyWeight(*pair)
            for name, pair in zip("abcde", zip(weights, reference, strict=True), strict=True)
        }


def test_a_walk_from_ten_to_forty_eight_percent_alarms_at_the_fifth_of_nine_steps():
    alerts = [ensemble.drift(weights, 0.2).alert for weights in walk()]
    assert alerts == [False] * 5 + [True] * 5


def test_comparing_step_with_step_would_never_alarm():
    for one, other in pairwise(walk()):
        assert 0.5 * sum(abs(other[name].weight - one[name].weight) for name in one) < 0.05


def test_it_names_the_strategies_that_drifted_themselves():
    last = list(walk())[-1]
    found = ensemble.drift(last, 0.2)
    assert found.drifted == ("a",)
    assert found.ratio == pytest.approx(last["a"].weight - last["a"].reference)
    assert found.largest == last["a"].weight - last["a"].reference
    assert ensemble.drift({}, 0.2) == (0.0, False, (), 0.0)


def test_the_alert_is_at_the_threshold_itself():
    weights = {"a": StrategyWeight(0.75, 0.5), "b": StrategyWeight(0.25, 0.5)}
    assert ensemble.drift(weights, 0.25).alert
    assert not ensemble.drift(weights, 0.2500001).alert
