"""Stages 9 and 10 joined to what is known: equal strategies, common risk, stress, and what cannot be sized."""

import numpy as np
import orjson
import pytest
from worlds import PRICES, START_NS, SYMBOLS, TRUSTING, Driver, control, last, priced, signal, targets, tick, with_

from engines.handlers import returns
from engines.handlers.effects import FoldResult
from engines.models import correlation
from engines.models.correlation import Diversification
from engines.parameters import DecisionParams
from engines.pipeline import aggregation, cache
from engines.state.partition import MARKET_WIDE, State
from engines.state.records import Latch, Market

HOUR_NS = 3_600 * 10**9
CLAIM = 0.004


def roomy():
    """Return settings in which no cap is near."""
    tree = TRUSTING.model_dump()
    tree["risk_management"] |= {
        "max_position_pct": 3.0,
        "max_strategy_allocation": 3.0,
        "max_portfolio_allocation": 3.0,
        "max_leverage": 3.0,
    }
    tree["validation_criteria"]["max_position_usd"] = 1e9
    return DecisionParams.model_validate(tree)


def world():
    return priced(Driver(roomy(), partitions=1))


def state_of(driver):
    return driver.processors["journal", 0][0].state


def ask(driver, strategy="momentum", symbol="BTC-USD", side=1, claim=CLAIM, **given_):
    fields = signal(
        driver.now_ns,
        strategy_id=strategy,
        symbol=symbol,
        signal_id=f"s-{len(driver.read('signals'))}",
        action="buy" if side > 0 else "sell",
        expected_return=claim * side,
        **given_,
    )
    driver.publish("signals", fields)
    driver.run()
    return last(driver)


def stage(fields, name, what="gross_cents"):
    return next(row[what] for row in fields["portfolio_waterfall"] if row["stage"] == name)


# -- stage 9 ---------------------------------------------------------------------------------------------------------
def test_five_equal_strategies_are_worth_one_and_a_third_of_one():
    driver = world()
    alone = stage(ask(driver, "a"), "ensemble")
    for name in "bcde":
        found = ask(driver, name)
    assert stage(found, "drawdown") == pytest.approx(5 * alone, abs=5)
    assert stage(found, "ensemble") == pytest.approx(1.3158 * alone, rel=1e-4)
    assert found["strategy_weights"] == pytest.approx(dict.fromkeys("abcde", 0.2))


def test_two_strategies_alike_at_seven_tenths_are_worth_two_over_one_and_seven_tenths():
    driver = world()
    alone = stage(ask(driver, "a"), "ensemble")
    assert stage(ask(driver, "b"), "ensemble") == pytest.approx(2 / 1.7 * alone, abs=2)


def test_equal_opposite_sides_are_set_off_to_nothing_with_a_reason():
    driver = world()
    ask(driver, "a")
    found = ask(driver, "b", side=-1)
    assert stage(found, "drawdown") > 0
    assert stage(found, "ensemble") == 0
    assert reason(found) == "netted"
    assert targets(found)["BTC-USD"] == 0.0
    assert found["correlation_penalties"] == {"BTC-USD": 0.0}


def reason(fields, name="ensemble"):
    return next(row["reason"] for row in fields["waterfall"] if row["stage"] == name)


def test_a_buy_of_two_percent_against_a_sell_of_one_point_two_is_the_cap_and_not_what_two_caps_leave():
    """V = 100,000, confidence .7, s = 2 %. Both sides clipped by the caps first, 1,951.11 USD would be left."""
    driver = priced(Driver(with_(TRUSTING, ("position_sizing.bayesian_kelly.prior_calibration", 1.0)), partitions=1))
    fields = {"confidence": 0.7, "risk_score": 0.0}
    for name, action, claimed in (("a", "buy", 0.02), ("b", "sell", -0.012)):
        rest = {"strategy_id": name, "signal_id": name, "action": action, "expected_return": claimed}
        driver.publish("signals", signal(driver.now_ns, **fields, **rest))
        driver.run()
    found = last(driver)
    assert targets(found) == {"BTC-USD": pytest.approx(15_000.0, abs=0.011)}
    assert [(row["strategy_id"], row["cents"] > 0) for row in found["cells"]] == [("a", True)]
    assert reason(found) == "netted"
    assert stage(found, "ensemble") == stage(found, "ensemble", "net_cents")


def test_the_larger_side_shrinks_to_the_net_and_other_symbols_stay():
    driver = world()
    ask(driver, "a", "ETH-USD", claim=0.01)
    alone = ask(driver, "a", claim=0.01)
    found = ask(driver, "b", side=-1, claim=0.008)
    long, short = stage(alone, "ensemble") / 2, stage(found, "drawdown") - stage(alone, "drawdown")
    assert 0 < short < long
    assert stage(found, "ensemble") == pytest.approx(long + (long - short) / 1.7, abs=3)
    assert reason(found) == "netted"


def test_who_may_open_nothing_closes_nothing_of_the_others():
    """Strategy b is REDUCING and holds nothing: its SELL would be cut to nothing, so it takes nothing from a's BUY."""
    driver = world()
    ask(driver, "a")
    order = {"scope": "strategy:b", "state": "REDUCING"}
    driver.publish("control", control(driver.now_ns, "trading_state", order))
    driver.run()
    found = ask(driver, "b", side=-1)
    assert targets(found)["BTC-USD"] > 0.0
    assert reason(found) == ""
    assert reason(found, "limits") == "REDUCING"


def test_who_reduces_counts_with_what_it_still_holds():
    driver = world()
    held = targets(ask(driver, "b", side=-1, claim=0.006))["BTC-USD"]
    order = {"scope": "strategy:b", "state": "REDUCING"}
    driver.publish("control", control(driver.now_ns, "trading_state", order))
    driver.run()
    ask(driver, "b", side=-1, claim=0.01)
    found = ask(driver, "a", claim=0.01)
    whole = stage(found, "drawdown") / 2
    assert held < 0.0
    assert targets(found)["BTC-USD"] == pytest.approx(whole / 170 + held, abs=0.03)


def test_a_strategy_that_a_gate_sizes_to_nothing_is_live_all_the_same():
    driver = world()
    ask(driver, "a")
    driver.publish("signals", signal(driver.now_ns, strategy_id="b", signal_id="b", expected_return=0.0))
    driver.run()
    assert last(driver)["strategy_weights"] == {"a": 0.5, "b": 0.5}


# -- stage 10 --------------------------------------------------------------------------------------------------------
def test_without_correlations_every_symbol_keeps_what_it_wants():
    driver = world()
    for symbol in SYMBOLS:
        found = ask(driver, symbol=symbol)
    assert found["correlation_penalties"] == dict.fromkeys(SYMBOLS, 0.0)
    assert stage(found, "portfolio") == stage(found, "ensemble")


def correlate(driver, symbols, rho, bars=200):
    """Let symbols move with a common factor so that their correlations come to rho, each bar an hour."""
    chance = np.random.default_rng(2)
    state = state_of(driver)
    for bar in range(bars):
        shared = chance.normal()
        rows = {s: 0.01 * (rho**0.5 * shared + (1 - rho) ** 0.5 * chance.normal()) for s in symbols}
        returns.take(state, {s: float(r) for s, r in rows.items()}, START_NS + bar * HOUR_NS, 0, FoldResult())


def test_two_equal_claims_share_as_the_inverse_of_their_correlation_says():
    driver = world()
    correlate(driver, SYMBOLS[:2], 0.6)
    rho = float(cache.correlations(state_of(driver)).matrix[0, 1])
    ask(driver)
    found = ask(driver, symbol="ETH-USD")
    assert 0.4 < rho < 0.7
    for symbol in SYMBOLS[:2]:
        assert found["correlation_penalties"][symbol] == pytest.approx(1.0 - 1.0 / (1.0 + rho), rel=1e-6)
    assert found["waterfall"][8]["reason"] == "correlation"


def test_a_long_and_a_short_that_hedge_each_other_are_not_grown():
    driver = world()
    correlate(driver, SYMBOLS[:2], 0.6)
    ask(driver)
    found = ask(driver, symbol="ETH-USD", side=-1)
    assert found["correlation_penalties"] == dict.fromkeys(SYMBOLS[:2], 0.0)


def test_bounds_of_the_program_are_told_as_caps():
    driver = priced(Driver(partitions=1))
    for symbol in SYMBOLS:
        driver.publish("signals", signal(driver.now_ns, symbol=symbol, signal_id=symbol, expected_return=0.05))
        driver.run()
    found = last(driver)
    assert [bound for bound in found["bound"] if bound.startswith("symbol")] == [f"symbol:{s}" for s in SYMBOLS]


def test_correlations_that_are_not_positive_definite_are_answered_not_raised():
    driver = world()
    state = state_of(driver)
    correlate(driver, SYMBOLS, 0.9, bars=40)
    cache.correlations(state)
    bad = np.array([[1.0, 0.99, -0.99], [0.99, 1.0, 0.99], [-0.99, 0.99, 1.0]])
    memo = cache.of(state)
    memo.correlations = memo.correlations._replace(matrix=bad)
    for symbol in SYMBOLS:
        found = ask(driver, symbol=symbol)
    assert all(0.0 <= taken <= 1.0 for taken in found["correlation_penalties"].values())
    assert "taken to move as one" in {row["reason"] for row in found["waterfall"]}


def test_contradicting_returns_are_drawn_to_their_mean_until_they_can_be_sized_with():
    driver = world()
    state = state_of(driver)
    for bar in range(120):
        returns.take(state, gaps(bar), START_NS + bar * HOUR_NS, 0, FoldResult())
    params = state.params.risk_management.correlation
    assert np.linalg.eigvalsh(correlation.raw(state.moments, params)).min() < -0.5
    assert correlation.shrunk(state.moments, params).raises > 0


# -- stress ----------------------------------------------------------------------------------------------------------
def stressed(side, net, level=2, score=0.7, symbol="BTC-USD"):
    state = State(0)
    latch = Latch(score=score, at_ns=0, level=level, raw=score, breaches=2, peak=score, peak_ns=0)
    market = Market(None, (None,) * 7, latch if side > 0 else None, latch if side < 0 else None, -1)
    state.put_market(symbol, market)
    return aggregation._stress(state, {"BTC-USD": net, "ETH-USD": 0})


@pytest.mark.parametrize(
    ("given", "kappa"),
    [
        ({"side": 1, "net": 5}, 0.7),
        ({"side": -1, "net": -5}, 0.7),
        ({"side": 1, "net": -5}, 0.0),
        ({"side": -1, "net": 5}, 0.0),
        ({"side": 1, "net": 0}, 0.0),
        ({"side": 1, "net": 5, "level": 0}, 0.0),
        ({"side": 1, "net": 5, "score": 0.99}, 0.9),
        ({"side": 1, "net": 5, "symbol": MARKET_WIDE}, 0.7),
        ({"side": 1, "net": 5, "symbol": "SOL-USD"}, 0.0),
    ],
)
def test_stress_is_the_worst_score_in_force_on_the_side_of_the_book(given, kappa):
    assert stressed(**given) == kappa


def test_a_cascade_takes_more_of_what_moves_together():
    driver = world()
    correlate(driver, SYMBOLS[:2], 0.3)
    ask(driver, symbol="ETH-USD")
    calm = ask(driver)["correlation_penalties"]["ETH-USD"]
    driver.publish("cascade-indicators", {"timestamp_ns": driver.now_ns, "onchain_whale_pressure": 0.84})
    driver.run()
    wild = ask(driver)["correlation_penalties"]["ETH-USD"]
    assert wild > calm + 0.1


def test_symbols_whose_correlations_are_not_known_are_stressed_too():
    driver = world()
    driver.publish("cascade-indicators", {"timestamp_ns": driver.now_ns, "onchain_whale_pressure": 0.84})
    driver.run()
    ask(driver, symbol="ETH-USD")
    found = ask(driver)
    latch = state_of(driver).markets.get((MARKET_WIDE,)).long
    assert found["correlation_penalties"]["BTC-USD"] == pytest.approx(1.0 - 1.0 / (1.0 + latch.score), rel=1e-6)


# -- diversification -------------------------------------------------------------------------------------------------
def test_one_symbol_is_not_diversified_and_nothing_held_has_no_number():
    driver = world()
    assert ask(driver)["diversification"] == {"ratio": 1.0, "score": 1.0}
    assert aggregation.diversification(state_of(driver), {"BTC-USD": 0}) is None
    assert aggregation.diversification(State(0), {"BTC-USD": 1, "ETH-USD": 1}) is None


def test_the_ratio_is_that_of_the_volatilities_of_bars():
    driver = Driver(partitions=1)
    for number in range(40):
        for place, symbol in enumerate(SYMBOLS[:2]):
            move = 1.0 + 0.01 * (place + 1) * ((number * (place + 3)) % 5 - 2)
            driver.publish("prices", tick(driver.now_ns, symbol, PRICES[symbol] * move), key=symbol.encode())
        driver.advance(3_600.0)
    state = state_of(driver)
    sigma = np.sqrt([state.markets.get((symbol,)).bars.variance for symbol in SYMBOLS[:2]])
    C = cache.correlations(state).matrix
    w = np.array([300.0, -200.0])
    found = aggregation.diversification(state, {"BTC-USD": 300, "ETH-USD": -200})
    ratio = abs(w) @ sigma / np.sqrt((w * sigma) @ C @ (w * sigma))
    assert found == pytest.approx(Diversification(ratio, ratio**2 / 2))


# -- what cannot be sized --------------------------------------------------------------------------------------------
def test_each_cause_of_nothing_has_its_reason_and_no_number_is_none():
    driver = world()
    ask(driver)
    assert ask(driver, symbol="XRP-USD")["waterfall"][0]["reason"] == "no price"
    halt = {"scope": "symbol:ETH-USD", "state": "HALTED"}
    driver.publish("control", control(driver.now_ns, "trading_state", halt))
    driver.run()
    assert ask(driver, symbol="ETH-USD")["waterfall"][0]["reason"] == "halted"
    driver.advance(200.0)
    found = ask(driver, "carry", "SOL-USD")
    assert found["waterfall"][0]["reason"] == "stale price"
    assert found["targets"]["SOL-USD"]["quantity"] == 0.0, "nothing is opened"
    assert {each["symbol"]: each["code"] for each in found["reasons"]} == {
        **dict.fromkeys(("BTC-USD", "ETH-USD", "SOL-USD"), "stale_price"),
        "XRP-USD": "no_price",
    }
    for record in driver.read("allocations"):
        assert b"NaN" not in record.value
        assert b"Infinity" not in record.value
        assert orjson.loads(record.value)["totals"]["gross_usd"] is not None


def test_a_strategy_that_is_not_on_record_any_more_counts_as_one_that_joins():
    driver = world()
    for name in "ab":
        ask(driver, name)
    state = state_of(driver)
    state.strategies.drop(("main",))
    for number, word in enumerate(("REDUCING", "ACTIVE")):
        order = {"scope": "all", "state": word}
        driver.publish("control", control(driver.now_ns, "trading_state", order, f"c-{number}"))
    driver.run()
    assert last(driver)["strategy_weights"] == {"a": 0.5, "b": 0.5}
    assert stage(last(driver), "ensemble") == pytest.approx(stage(last(driver), "drawdown") / 1.7, abs=2)


def test_a_book_of_gated_signals_alone_is_nothing_with_a_reason():
    driver = world()
    for symbol in SYMBOLS[:2]:
        for name in "ab":
            fields = signal(driver.now_ns, strategy_id=name, symbol=symbol, signal_id=name + symbol, confidence=0.0)
            driver.publish("signals", fields)
    driver.run()
    found = last(driver)
    assert found["totals"] == {"gross_usd": 0.0, "net_usd": 0.0, "utilization_ratio": 0.0}
    assert found["waterfall"][0]["reason"]
    assert found["correlation_penalties"] == dict.fromkeys(SYMBOLS[:2], 0.0)
    assert found["diversification"] is None
    assert found["strategy_weights"] == {"a": 0.5, "b": 0.5}


def gaps(bar):
    """Two of three coins trade in each bar: BTC and ETH as one, ETH and SOL as one, BTC and SOL against each other."""
    move = 0.01 * (bar * 7 % 5 - 2) + 0.001
    missing = bar % 3
    rows = {"BTC-USD": move, "ETH-USD": move, "SOL-USD": -move if missing == 1 else move}
    del rows[SYMBOLS[missing]]
    return rows


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("pairs that contradict each other", gaps),
        ("one and the same", lambda bar: dict.fromkeys(SYMBOLS, 0.01 * (bar * 7 % 5 - 2))),
        ("nothing moves", lambda _: dict.fromkeys(SYMBOLS, 0.0)),
        ("one is flat", lambda bar: {"BTC-USD": 0.0, "ETH-USD": 0.01 * (-1) ** bar, "SOL-USD": 0.02}),
        ("huge", lambda bar: dict.fromkeys(SYMBOLS, 1e150 * (-1) ** bar)),
        ("tiny", lambda bar: dict.fromkeys(SYMBOLS, 1e-160 * (-1) ** bar)),
        ("only one ever", lambda bar: {"BTC-USD": 0.01 * (-1) ** bar}),
    ],
)
@pytest.mark.parametrize("stress", [0.0, 1.0])
def test_whatever_returns_were_fed_the_answer_is_a_number(what, rows, stress):
    driver = world()
    state = state_of(driver)
    for bar in range(120):
        returns.take(state, rows(bar), START_NS + bar * HOUR_NS, 0, FoldResult())
    driver.publish("cascade-indicators", {"timestamp_ns": driver.now_ns, "onchain_whale_pressure": stress})
    driver.run()
    for number, symbol in enumerate(SYMBOLS * 2):
        found = ask(driver, "ab"[number // 3], symbol, side=-1 if number == 1 else 1)
    matrix = cache.correlations(state).matrix
    assert np.linalg.eigvalsh(matrix).min() > 0.0, what
    assert all(0.0 <= taken < 1.0 for taken in found["correlation_penalties"].values()), what
    assert stage(found, "portfolio") > 0, what
    assert b"NaN" not in driver.read("allocations")[-1].value
