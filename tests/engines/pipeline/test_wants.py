"""Unknown is never zero: what has no fresh price is held, said so, and decided again when the price comes."""

import pytest
from worlds import PRICES, TRUSTING, Driver, control, last, priced, signal, targets, tick

from engines.parameters import DecisionParams


def buy(driver, symbol="BTC-USD", **given):
    given = {"valid_for_s": 86_400, "signal_id": f"{symbol}-{driver.now_ns}", **given}
    driver.publish("signals", signal(driver.now_ns, symbol=symbol, **given))
    driver.run()


def price(driver, symbol, price=None):
    driver.publish("prices", tick(driver.now_ns, symbol, price), key=symbol.encode())
    driver.advance(2.0)


def quantities(driver):
    return {symbol: target["quantity"] for symbol, target in last(driver)["targets"].items()}


def kinds(driver):
    return [each["trigger"]["kind"] for each in driver.allocations()]


def lonely():
    """A position in BTC-USD whose price has been silent for 200 s, while that of ETH-USD goes on."""
    driver = priced()
    buy(driver)
    before = quantities(driver)["BTC-USD"]
    driver.advance(200.0)
    price(driver, "ETH-USD")
    return driver, before


def test_a_signal_before_its_first_price_is_decided_again_when_the_price_comes():
    driver = Driver(partitions=1)
    buy(driver)
    assert quantities(driver) == {"BTC-USD": 0.0}
    assert last(driver)["reasons"] == [{"symbol": "BTC-USD", "code": "no_price", "text": "BTC-USD has no price yet"}]
    price(driver, "ETH-USD")
    assert kinds(driver) == ["signal"], "another symbol's price is no news"
    price(driver, "BTC-USD")
    assert last(driver)["trigger"] == {"kind": "price", "id": "BTC-USD"}
    assert targets(last(driver)) == {"BTC-USD": 13_500.0}
    assert (last(driver)["strategy_id"], last(driver)["position_size_usd"]) == ("momentum", 13_500.0), "what waited"
    assert last(driver)["reasons"] == []
    price(driver, "BTC-USD")
    assert kinds(driver) == ["signal", "price"]


def test_a_forecast_that_has_ended_waits_for_no_price():
    driver = Driver(partitions=1)
    buy(driver, valid_for_s=10)
    driver.advance(11.0)
    driver.advance(1.0)
    price(driver, "BTC-USD")
    assert "price" not in kinds(driver)


def test_what_waits_is_remembered_over_a_restart():
    driver = Driver(partitions=1)
    buy(driver)
    driver.checkpoint()
    driver.crash()
    price(driver, "BTC-USD")
    assert kinds(driver) == ["signal", "price"]


def test_a_stale_price_sells_nothing_and_buys_nothing():
    driver, before = lonely()
    buy(driver, "ETH-USD")
    found = last(driver)
    assert quantities(driver)["BTC-USD"] == before
    assert quantities(driver)["ETH-USD"] > 0.0
    assert found["reasons"] == [
        {"symbol": "BTC-USD", "code": "stale_price", "text": "the price of BTC-USD is 204 s old"}
    ]
    assert [row["stage"] for row in found["portfolio_waterfall"]].count("unpriced") == 1
    buy(driver, "BTC-USD", expected_return=0.05)
    assert quantities(driver)["BTC-USD"] == before, "no more of it"
    buy(driver, "BTC-USD", action="sell", expected_return=-0.01, signal_id="short")
    assert quantities(driver)["BTC-USD"] == before, "and no less"
    price(driver, "BTC-USD")
    assert last(driver)["trigger"] == {"kind": "price", "id": "BTC-USD"}
    assert quantities(driver)["BTC-USD"] < 0.0


def test_a_stale_price_goes_flat_where_the_settings_say_so():
    tree = TRUSTING.model_dump()
    tree["portfolio"]["stale_price"] = "flat"
    driver = priced(Driver(DecisionParams.model_validate(tree)))
    buy(driver)
    driver.advance(200.0)
    price(driver, "ETH-USD")
    buy(driver, "ETH-USD")
    assert quantities(driver)["BTC-USD"] == 0.0
    assert last(driver)["reasons"][0]["symbol"] == "BTC-USD"


@pytest.mark.parametrize("state", ["HALTED", "REDUCING"])
def test_orders_act_on_the_last_price(state):
    driver, before = lonely()
    order = control(driver.now_ns, "trading_state", {"scope": "all", "state": state})
    driver.publish("control", order)
    driver.run()
    assert quantities(driver)["BTC-USD"] == (0.0 if state == "HALTED" else before)


def test_the_end_of_a_forecast_acts_on_the_last_price():
    driver = priced()
    buy(driver, valid_for_s=200)
    driver.advance(201.0)
    driver.advance(1.0)
    assert (last(driver)["trigger"]["kind"], quantities(driver)) == ("expiry", {"BTC-USD": 0.0})


def test_a_cut_acts_on_the_last_price_in_a_full_decision_too():
    driver, before = lonely()
    reading = {"symbol": "BTC-USD", "timestamp_ns": driver.now_ns, "oi_change_pct": -0.10}
    driver.publish("cascade-indicators", reading)
    driver.run()
    half = quantities(driver)["BTC-USD"]
    assert half == pytest.approx(before / 2, rel=1e-5)
    buy(driver, "ETH-USD")
    assert quantities(driver)["BTC-USD"] == half, "taken once"


def test_bars_that_begin_again_leave_what_is_held_as_it_is():
    driver = priced(Driver(partitions=1))
    buy(driver)
    before = last(driver)["targets"]["BTC-USD"]
    state = driver.processors["journal", 0][0].state
    state.put_market("BTC-USD", state.markets["BTC-USD",]._replace(bars=None))
    buy(driver, "ETH-USD")
    assert last(driver)["targets"]["BTC-USD"] == before, "quantity, notional and weight of the last price"
    assert last(driver)["totals"]["gross_usd"] == pytest.approx(27_000.0, abs=0.1)
    price(driver, "BTC-USD", PRICES["BTC-USD"])
    assert last(driver)["trigger"]["kind"] == "price"
