"""A price that has moved beyond a factor of 2 may be true or wrong: for an hour its symbol is only reduced."""

import pytest
from worlds import PRICES, SECOND_NS, Driver, control, last, priced, signal, tick

BTC = "BTC-USD"
MINUTE_S = 60


def claim(driver: Driver, name: str, **given) -> dict:
    driver.publish("signals", signal(driver.now_ns, signal_id=name, valid_for_s=86_400, **given))
    driver.run()
    return last(driver)


def prices(driver: Driver, factor: float, seconds: int) -> None:
    """Publish a price of BTC-USD, so many times its first one, twice a minute."""
    for _ in range(max(1, seconds // 30)):
        driver.publish("prices", tick(driver.now_ns, BTC, PRICES[BTC] * factor), key=BTC.encode())
        driver.advance(30.0)
    driver.publish("prices", tick(driver.now_ns, BTC, PRICES[BTC] * factor), key=BTC.encode())
    driver.advance(2.0)


@pytest.mark.parametrize("factor", [1 / 1_000, 1 / 10, 0.4, 2.5])
def test_no_coin_is_added_for_an_hour_after_a_leap_and_the_allocation_says_why(factor):
    driver = priced(Driver(partitions=1))
    before = claim(driver, "s-1")["targets"][BTC]["quantity"]
    assert before > 0.0
    prices(driver, factor, 5 * MINUTE_S)
    during = claim(driver, "s-2", expected_return=0.02)
    assert 0.0 <= during["targets"][BTC]["quantity"] <= before
    assert [(each["symbol"], each["code"]) for each in during["reasons"]] == [(BTC, "price_leap")]
    prices(driver, factor, 61 * MINUTE_S)
    after = claim(driver, "s-3", expected_return=0.02)
    assert after["reasons"] == []
    if factor < 1.0:
        assert after["targets"][BTC]["quantity"] > before


def test_a_position_is_not_opened_after_a_leap_either_and_other_symbols_are():
    driver = priced(Driver(partitions=1))
    prices(driver, 1 / 100, 3 * MINUTE_S)
    assert claim(driver, "s-1")["targets"][BTC]["quantity"] == 0.0
    driver.publish("prices", tick(driver.now_ns, "ETH-USD"), key=b"ETH-USD")
    driver.advance(2.0)
    assert claim(driver, "s-2", symbol="ETH-USD")["targets"]["ETH-USD"]["quantity"] > 0.0


def test_it_may_be_closed_after_a_leap():
    driver = priced(Driver(partitions=1))
    claim(driver, "s-1")
    prices(driver, 0.4, 3 * MINUTE_S)
    driver.now_ns += SECOND_NS
    assert claim(driver, "s-2", action="sell")["targets"][BTC]["quantity"] == 0.0


@pytest.mark.parametrize("factor", [0.55, 1.9])
def test_a_smaller_move_is_no_leap(factor):
    driver = priced(Driver(partitions=1))
    prices(driver, factor, 5 * MINUTE_S)
    assert claim(driver, "s-1")["targets"][BTC]["quantity"] > 0.0


# -- equity ----------------------------------------------------------------------------------------------------------
def report(driver: Driver, equity: float, *, later_s: float) -> None:
    driver.advance(later_s)
    body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": {}, "equity": equity}
    driver.publish("positions", body)
    driver.publish("prices", tick(driver.now_ns, BTC), key=BTC.encode())
    driver.advance(2.0)


def leapt(factor: float) -> Driver:
    """Return a driver whose portfolio has reported an equity that leapt, and stayed."""
    driver = priced(Driver(partitions=1))
    report(driver, 100_000.0, later_s=1.0)
    for _ in range(3):
        report(driver, 100_000.0 * factor, later_s=61.0)
    assert driver.processors["journal", 0][0].state.book("main").value_usd == 100_000.0 * factor
    return driver


def test_nothing_is_opened_for_an_hour_after_the_equity_leapt_upwards():
    driver = leapt(10.0)
    during = claim(driver, "s-1")
    assert during["targets"][BTC]["quantity"] == 0.0
    assert [(each["symbol"], each["code"]) for each in during["reasons"]] == [(BTC, "equity_leap")]
    report(driver, 1_000_000.0, later_s=61.0 * MINUTE_S)
    after = claim(driver, "s-2")
    assert (after["targets"][BTC]["quantity"] > 0.0, after["reasons"]) == (True, [])


def test_an_operator_who_states_the_value_ends_it():
    driver = leapt(10.0)
    value = {"portfolio_id": "main", "value_usd": 1_000_000.0, "reset_peak": True}
    driver.publish("control", control(driver.now_ns, "portfolio_value", value))
    driver.run()
    assert claim(driver, "s-1")["targets"][BTC]["quantity"] > 0.0


@pytest.mark.parametrize("factor", [1.9, 0.2])
def test_less_or_downwards_is_no_leap_of_the_equity(factor):
    driver = leapt(factor)
    assert claim(driver, "s-1")["reasons"] == []
