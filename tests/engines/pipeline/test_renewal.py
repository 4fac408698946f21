"""Signals that repeat renew what is held: no expiry between them, no selling and buying back."""

import pytest
from worlds import Driver, last, signal, targets, tick

from engines.parameters import DecisionParams

HOUR_NS = 3_600_000_000_000


def hourly(count, side_of=lambda _: "buy", **given):
    """Send a claim of a volatility's fifth each hour, at standing prices; return the driver."""
    driver = Driver(DecisionParams(), partitions=1)
    for number in range(count):
        driver.publish("prices", tick(driver.now_ns), key=b"BTC-USD")
        driver.advance(2.0)
        claim = {"expected_return": 0.0075, "action": side_of(number), "signal_id": f"s-{number}", **given}
        if claim["action"] == "sell":
            claim["expected_return"] = -claim["expected_return"]
        driver.publish("signals", signal(driver.now_ns, **claim))
        driver.advance(2.0)
        driver.advance(3_596.0)
    return driver


def turned(driver):
    """Return the value traded, in USD, at a standing price."""
    total, before = 0.0, 0.0
    for fields in driver.allocations():
        now = targets(fields).get("BTC-USD", 0.0)
        total, before = total + abs(now - before), now
    return total


def cell(driver):
    return driver.processors["journal", 0][0].state.predictions["main", "momentum", "BTC-USD"]


def test_a_hundred_hourly_repeats_are_a_hundred_allocations_one_position_and_no_expiry():
    driver = hourly(100)
    kinds = [fields["trigger"]["kind"] for fields in driver.allocations()]
    assert kinds == ["signal"] * 100
    assert turned(driver) < 0.13 * 100_000
    assert last(driver)["targets"]["BTC-USD"]["quantity"] > 0.0


def test_validity_of_one_horizon_closes_and_opens_again_each_hour():
    driver = hourly(20, valid_for_s=3_590)
    kinds = [fields["trigger"]["kind"] for fields in driver.allocations()]
    assert kinds.count("expiry") == 20
    assert turned(driver) > 1.5 * 20 * targets(driver.allocations()[0])["BTC-USD"]


def test_a_signal_is_valid_for_one_and_a_half_horizons_unless_it_says():
    driver = hourly(1)
    made = cell(driver).forecast
    assert made.expires_ns == made.timestamp_ns + 3 * HOUR_NS // 2
    assert cell(hourly(1, valid_for_s=7_200)).forecast.expires_ns - made.timestamp_ns == 2 * HOUR_NS


@pytest.mark.parametrize(
    ("side_of", "given"),
    [
        (lambda _: "buy", {}),
        (lambda number: "buy" if number % 2 else "sell", {}),
        (lambda number: "buy" if number < 7 else "sell", {}),
        (lambda _: "buy", {"valid_for_s": 600}),
        (lambda _: "buy", {"horizon_s": 36_000}),
    ],
)
def test_renewal_is_one_less_turns_over_horizons(side_of, given):
    turns = horizons = 1.0
    for number in range(1, 12):
        over = side_of(number) != side_of(number - 1) or given.get("valid_for_s") == 600
        turns = 0.99 * turns + over
        horizons = 0.99 * horizons + (0.1 if "horizon_s" in given else 1.0)
    driver = hourly(12, side_of, **given)
    assert cell(driver).turns == pytest.approx(turns)
    assert cell(driver).horizons == pytest.approx(horizons, rel=1e-3)
    renewal = max(0.0, 1.0 - turns / horizons)
    size = last(driver) if last(driver)["trigger"]["kind"] == "signal" else driver.allocations()[-2]
    kelly = size["diagnostics"]["kelly"]
    assert kelly["buying"] == pytest.approx(kelly["gross"] - 0.001 * (1.0 - renewal), rel=1e-3)
    assert kelly["keeping"] == pytest.approx(kelly["gross"] + 0.001 * renewal, rel=1e-3)


def test_what_stands_is_cut_where_the_target_is_cut_and_gone_where_nothing_is_held():
    driver = hourly(1)
    state = driver.processors["journal", 0][0].state
    key = ("main", "momentum", "BTC-USD")
    before = state.targets[key]
    driver.publish("prices", tick(driver.now_ns), key=b"BTC-USD")
    driver.advance(2.0)
    reading = {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, "onchain_whale_pressure": 0.65}
    driver.publish("cascade-indicators", reading)
    driver.advance(2.0)
    after = state.targets[key]
    assert after.cents * 2 == pytest.approx(before.cents, rel=1e-3)
    assert after.bet == pytest.approx(before.bet / 2, rel=1e-3)
    driver.advance(7_200.0)
    assert key not in state.targets
    assert last(driver)["trigger"]["kind"] == "expiry"
