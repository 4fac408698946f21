"""Reports and outcomes that stop are missed once, claims that are clipped for long are told: worked out by hand."""

import orjson
import pytest
from worlds import SECOND_NS, TRUSTING, Driver, priced, signal, tick, with_

BTC = "BTC-USD"
HORIZON_S = 600


def told(driver: Driver, kind: str) -> list[tuple[str, float | None, float | None]]:
    found = [orjson.loads(record.value or b"") for record in driver.read("alerts")]
    return [(each["subject"], each["value"], each["threshold"]) for each in found if each["kind"] == kind]


def claim(driver: Driver, name: str, **given) -> None:
    driver.publish("signals", signal(driver.now_ns, signal_id=name, horizon_s=HORIZON_S, valid_for_s=86_400, **given))
    driver.run()


def report(driver: Driver, quantity: float = 0.0, **given) -> None:
    driver.now_ns += SECOND_NS
    body = {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": {BTC: quantity}, **given}
    driver.publish("positions", body)
    driver.run()


def settle(driver: Driver, name: str, realised: float = 0.001) -> None:
    body = {"strategy_id": "momentum", "symbol": BTC, "side": "buy", "signal_id": name, "realized_return": realised}
    driver.publish("outcomes", body | {"timestamp_ns": driver.now_ns})
    driver.run()


def wait(driver: Driver, seconds: float) -> None:
    """Let journal time pass, with a fresh price at its end."""
    driver.advance(seconds)
    driver.publish("prices", tick(driver.now_ns, BTC), key=BTC.encode())
    driver.advance(2.0)


def test_a_portfolio_that_never_reports_is_not_missed():
    driver = priced(Driver(partitions=1))
    claim(driver, "s-1")
    wait(driver, 1_000.0)
    assert told(driver, "missing_report") == []


def test_a_report_that_does_not_come_after_a_change_is_missed_once_until_the_next():
    driver = priced(Driver(partitions=1))
    report(driver)
    claim(driver, "s-1")
    wait(driver, 290.0)
    assert told(driver, "missing_report") == []
    wait(driver, 30.0)
    ((subject, age_s, due_s),) = told(driver, "missing_report")
    assert (subject, due_s) == ("main", 300.0)
    assert age_s == pytest.approx(324.0, abs=3.0)
    wait(driver, 1_000.0)
    assert len(told(driver, "missing_report")) == 1
    report(driver)
    claim(driver, "s-2", action="sell")
    wait(driver, 1_000.0)
    assert len(told(driver, "missing_report")) == 2


def test_a_report_after_the_change_ends_the_waiting_and_no_change_needs_no_report():
    driver = priced(Driver(partitions=1))
    report(driver)
    claim(driver, "s-1")
    report(driver)
    wait(driver, 5_000.0)
    assert told(driver, "missing_report") == []


def test_a_report_that_names_an_older_allocation_does_not_end_the_waiting():
    driver = priced(Driver(partitions=1))
    report(driver)
    claim(driver, "s-1")
    report(driver, as_of_sequence=0)
    wait(driver, 400.0)
    assert [subject for subject, *_ in told(driver, "missing_report")] == ["main"]


def test_the_time_is_the_settings():
    driver = priced(Driver(with_(TRUSTING, ("portfolio.report_due_s", 20.0)), partitions=1))
    report(driver)
    claim(driver, "s-1")
    wait(driver, 25.0)
    assert [due_s for *_, due_s in told(driver, "missing_report")] == [20.0]


def test_a_strategy_without_outcomes_is_not_missed():
    driver = priced(Driver(partitions=1))
    for number in range(10):
        claim(driver, f"s-{number}")
        wait(driver, HORIZON_S)
    assert told(driver, "missing_outcome") == []


def test_an_outcome_is_missed_once_its_claim_is_two_horizons_old():
    driver = priced(Driver(partitions=1))
    claim(driver, "s-0")
    wait(driver, HORIZON_S)
    settle(driver, "s-0")
    claim(driver, "s-1")
    wait(driver, 2 * HORIZON_S - 5)
    claim(driver, "s-2")
    assert told(driver, "missing_outcome") == []
    wait(driver, 10.0)
    claim(driver, "s-3")
    claim(driver, "s-4")
    ((subject, age_s, due_s),) = told(driver, "missing_outcome")
    assert (subject, due_s) == ("main/momentum/BTC-USD", 2.0 * HORIZON_S)
    assert age_s == pytest.approx(2 * HORIZON_S + 9, abs=3.0)
    settle(driver, "s-1")
    wait(driver, 2 * HORIZON_S)
    claim(driver, "s-5")
    assert len(told(driver, "missing_outcome")) == 2


def test_three_clipped_claims_in_a_row_are_told_once():
    driver = priced(Driver(partitions=1))
    for number in range(2):
        claim(driver, f"large-{number}", expected_return=0.5)
    claim(driver, "usual", expected_return=0.001)
    assert told(driver, "clipped_claims") == []
    for number in range(8):
        driver.now_ns += SECOND_NS
        claim(driver, f"again-{number}", expected_return=0.5)
        assert len(told(driver, "clipped_claims")) == (number >= 2)
    claim(driver, "last", expected_return=0.001)
    for number in range(3):
        claim(driver, f"anew-{number}", expected_return=0.5)
    assert [subject for subject, *_ in told(driver, "clipped_claims")] == ["main/momentum/BTC-USD"] * 2


@pytest.mark.parametrize("kind", ["missing_report", "clipped_claims"])
def test_a_restart_in_between_changes_nothing(kind):
    """What waits is derived from records: a worker that starts again misses what the other one would have missed."""
    found = []
    for restarts in (False, True):
        driver = priced(Driver(partitions=1))
        report(driver)
        claim(driver, "s-1", expected_return=0.5)
        claim(driver, "s-2", expected_return=0.5)
        wait(driver, 100.0)
        if restarts:
            driver.crash()
            driver.start()
        claim(driver, "s-3", expected_return=0.5)
        wait(driver, 3_600.0)
        found.append(told(driver, kind))
    assert found[0] == found[1] != []
