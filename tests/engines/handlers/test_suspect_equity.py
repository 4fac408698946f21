"""An equity that no market explains counts for nothing before another report agrees: worked out by hand."""

import orjson
import pytest
from worlds import SECOND_NS, Driver, control, last, priced, signal

BTC = "BTC-USD"


def holding() -> Driver:
    """A portfolio that holds one coin and has reported 100,000 USD."""
    driver = priced(Driver(partitions=1))
    driver.publish("signals", signal(driver.now_ns, signal_id="s-1", valid_for_s=86_400))
    driver.run()
    report(driver, 100_000.0)
    return driver


def report(driver: Driver, equity: float | None, later_s: float = 1.0) -> None:
    driver.now_ns += int(later_s * SECOND_NS)
    body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": {BTC: quantity(driver)}}
    driver.publish("positions", body if equity is None else {**body, "equity": equity})
    driver.run()


def quantity(driver: Driver) -> float:
    return last(driver)["targets"][BTC]["quantity"]


def value_usd(driver: Driver) -> float:
    return driver.processors["journal", 0][0].state.book("main").value_usd


def alerts(driver: Driver) -> list[tuple[float, float]]:
    found = [orjson.loads(record.value or b"") for record in driver.read("alerts")]
    return [(each["value"], each["threshold"]) for each in found if each["kind"] == "suspect_equity"]


@pytest.mark.parametrize(("factor", "bound"), [(10.0, 200_000.0), (0.1, 50_000.0), (2.01, 200_000.0), (0.49, 50_000.0)])
def test_one_slipped_equity_moves_nothing_and_is_told(factor, bound):
    driver = holding()
    wanted = quantity(driver)
    report(driver, 100_000.0 * factor)
    assert (quantity(driver), value_usd(driver)) == (wanted, 100_000.0)
    assert alerts(driver) == [(pytest.approx(100_000.0 * factor), pytest.approx(bound))]
    report(driver, 100_100.0)
    report(driver, 100_000.0 * factor)
    assert (quantity(driver), value_usd(driver)) == (wanted, 100_100.0)
    assert len(alerts(driver)) == 2, "a report in between ends the suspicion, so the second slip is a new one"


@pytest.mark.parametrize("equity", [50_001.0, 75_000.0, 199_999.0])
def test_what_a_market_may_do_between_two_reports_counts_at_once(equity):
    driver = holding()
    report(driver, equity)
    assert value_usd(driver) == equity
    assert alerts(driver) == []


def test_an_equity_that_stays_counts_after_a_minute_and_is_told_once():
    driver = holding()
    for _ in range(6):
        report(driver, 40_000.0, 10.0)
        assert value_usd(driver) == 100_000.0
    report(driver, 41_000.0, 10.0)
    assert value_usd(driver) == 41_000.0
    assert quantity(driver) == 0.0, "59 % down is beyond the largest drawdown"
    assert len(alerts(driver)) == 1


def test_a_report_without_equity_leaves_a_suspicion_as_it_is():
    driver = holding()
    report(driver, 40_000.0)
    report(driver, None, 30.0)
    report(driver, 40_000.0, 31.0)
    assert value_usd(driver) == 40_000.0


def test_the_first_report_is_believed_and_one_far_from_what_an_order_stated_is_not():
    driver = priced(Driver(partitions=1))
    driver.publish("signals", signal(driver.now_ns, signal_id="s-1", valid_for_s=86_400))
    driver.run()
    report(driver, 2_500_000.0)
    assert value_usd(driver) == 2_500_000.0
    order = {"portfolio_id": "main", "value_usd": 250_000.0, "reset_peak": True}
    driver.publish("control", control(driver.now_ns, "portfolio_value", order))
    driver.run()
    report(driver, 260_000.0)
    assert (value_usd(driver), alerts(driver)) == (260_000.0, [])
    driver.publish("control", control(driver.now_ns, "portfolio_value", order))
    driver.run()
    report(driver, 2_500_000.0)
    assert (value_usd(driver), alerts(driver)) == (250_000.0, [(2_500_000.0, 500_000.0)])


@pytest.mark.parametrize(
    ("factor", "reset", "applied"), [(10.0, False, False), (0.1, False, False), (10.0, True, True), (1.9, False, True)]
)
def test_an_order_that_states_another_equity_than_the_account_reports_is_rejected_unless_it_resets_the_peak(
    factor, reset, applied
):
    driver = holding()
    wanted = quantity(driver)
    order = {"portfolio_id": "main", "value_usd": 100_000.0 * factor, "reset_peak": reset}
    driver.publish("control", control(driver.now_ns, "portfolio_value", order))
    driver.run()
    (answer,) = [orjson.loads(record.value or b"") for record in driver.read("alerts")]
    assert (value_usd(driver) == 100_000.0 * factor) is applied
    assert answer["result"].startswith("applied" if applied else "rejected: value_usd must be within a factor of 2 of")
    assert applied or quantity(driver) == wanted
