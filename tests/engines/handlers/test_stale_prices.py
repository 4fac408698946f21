"""A price that nobody renews is told of once, by the first partition, and again only after it was fresh."""

import orjson
import pytest
from worlds import TRUSTING, Driver, priced, tick

from engines.parameters import DecisionParams


def told(driver):
    """Return (symbol, age in seconds) of each alert, sorted."""
    alerts = [orjson.loads(record.value) for record in driver.read("alerts")]
    return sorted((each["subject"], each["value"]) for each in alerts if each["kind"] == "stale_price")


def renew(driver, symbol):
    driver.publish("prices", tick(driver.now_ns, symbol), key=symbol.encode())
    driver.advance(2.0)


def aged(max_age_s):
    tree = TRUSTING.model_dump()
    tree["validation_criteria"]["max_price_age_s"] = max_age_s
    return DecisionParams.model_validate(tree)


def test_every_price_that_is_too_old_is_told_of_once():
    driver = priced()
    driver.advance(115.0)
    assert told(driver) == []
    driver.advance(200.0)
    assert [symbol for symbol, _ in told(driver)] == ["BTC-USD", "ETH-USD", "SOL-USD"]
    assert all(age == pytest.approx(315.0, abs=3.0) for _, age in told(driver))


def test_a_price_that_comes_again_can_be_told_of_again():
    driver = priced()
    driver.advance(200.0)
    renew(driver, "ETH-USD")
    driver.advance(100.0)
    assert len(told(driver)) == 3
    driver.advance(100.0)
    assert [symbol for symbol, _ in told(driver)] == ["BTC-USD", "ETH-USD", "ETH-USD", "SOL-USD"]


def test_prices_that_are_renewed_are_never_told_of():
    driver = priced()
    for _ in range(10):
        driver.advance(50.0)
        for symbol in ("BTC-USD", "SOL-USD"):
            renew(driver, symbol)
    assert [symbol for symbol, _ in told(driver)] == ["ETH-USD"]


@pytest.mark.parametrize("max_age_s", [10.0, 600.0])
def test_the_age_is_the_setting(max_age_s):
    driver = priced(Driver(aged(max_age_s)))
    driver.advance(max_age_s - 5.0)
    assert told(driver) == []
    driver.advance(10.0)
    assert len(told(driver)) == 3


def test_what_was_told_is_remembered_over_a_restart():
    driver = priced()
    driver.advance(200.0)
    driver.checkpoint()
    driver.crash()
    driver.advance(200.0)
    assert len(told(driver)) == 3


def late_price(*, crash):
    """A price that comes 100 s late, by its own partition, beside one that is renewed; restarted after it, or not."""
    driver = Driver(partitions=3)
    renew(driver, "BTC-USD")
    driver.publish("prices", tick(driver.now_ns - 100 * 10**9, "ETH-USD"), key=b"ETH-USD")
    driver.advance(2.0)
    renew(driver, "BTC-USD")
    if crash:
        driver.checkpoint()
        driver.crash()
    for _ in range(12):
        renew(driver, "BTC-USD")
    return driver


def test_a_price_that_came_late_is_told_of_by_its_own_age():
    [(symbol, age)] = told(late_price(crash=False))
    assert symbol == "ETH-USD"
    assert age == pytest.approx(121.0, abs=2.0)


def test_a_restart_changes_nothing_of_when_a_price_is_told_of():
    assert told(late_price(crash=True)) == told(late_price(crash=False))
