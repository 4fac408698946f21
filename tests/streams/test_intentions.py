"""Targets are intentions: what a report of positions may change, and what it may not. One test a sentence of §0."""

import orjson
import pytest
from worlds import PRICES, TRUSTING, Driver, control, last, priced, signal, tick, with_

from streams.backtest.account import Account

BTC, ETH, BNB = "BTC-USD", "ETH-USD", "BNB-USD"


def started(params=None, **claim) -> Driver:
    """A portfolio that was told to hold one symbol, 13,500 USD of it."""
    driver = priced(Driver(params, partitions=1))
    ask(driver, **claim)
    return driver


def ask(driver: Driver, signal_id="s-1", **claim) -> None:
    driver.publish("signals", signal(driver.now_ns, signal_id=signal_id, valid_for_s=86_400, **claim))
    driver.run()


def report(driver: Driver, quantities, later_s=0.0, **given) -> None:
    """Let time pass, prices standing, and report what is held then."""
    wait(driver, later_s)
    driver.publish(
        "positions", {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": quantities, **given}
    )
    driver.advance(0.001)


def wait(driver: Driver, seconds: float, prices=PRICES) -> None:
    """Let time pass; prices stand."""
    for left in range(int(seconds), 0, -30):
        driver.advance(min(30.0, float(left)))
        for symbol, price in prices.items():
            driver.publish("prices", tick(driver.now_ns, symbol, price))
    driver.advance(1.5)


def crash(driver: Driver, symbol=BTC) -> None:
    """Readings that call for REDUCE_75."""
    body = {"symbol": symbol, "timestamp_ns": driver.now_ns, "funding_rate": 0.004, "oi_change_pct": -0.12}
    driver.publish("cascade-indicators", body)
    driver.advance(0.001)


def quantity(driver: Driver, symbol=BTC) -> float:
    return last(driver)["targets"].get(symbol, {"quantity": 0.0})["quantity"]


def sequence(driver: Driver) -> int:
    return last(driver)["sequence"]


def alerts(driver: Driver, name: str):
    found = [orjson.loads(record.value or b"") for record in driver.read("alerts")]
    return [each for each in found if each["kind"] == name]


# -- cases that were seen ----------------------------------------------------------------------------------------------
def test_an_engine_that_fills_exactly_and_reports_after_each_fill_is_not_made_to_trade_in_circles():
    """`cases/closed_loop.py`: 366 allocations and 3.8 million USD traded on 100,000, prices standing still."""
    prices = {BTC: 43_500.0, ETH: 2_300.0, "SOL-USD": 150.0}
    driver = Driver(partitions=1)
    for _ in range(5):
        for symbol, price in prices.items():
            driver.publish("prices", tick(driver.now_ns, symbol, price))
        driver.advance(1.0)
    for number, (strategy, symbol) in enumerate((name, symbol) for name in ("a", "b") for symbol in prices):
        claim = {"action": "buy", "expected_return": 0.012} if strategy == "a" else {"action": "sell"}
        body = {"expected_return": 0.008, **claim, "strategy_id": strategy, "symbol": symbol, "horizon_s": 86_400.0}
        name = f"s{number}"
        driver.publish("signals", signal(driver.now_ns + number, signal_id=name, risk_score=0.0, **body))
    driver.run()
    account, taken = Account(100_000.0, prices), 0
    for round_ in range(60):
        fresh = driver.allocations()[taken:]
        taken += len(fresh)
        for fields in fresh:
            account.take(fields, 0.0)
            for symbol in account.due(0.0):
                account.fill(symbol)
            told = account.report("main", driver.now_ns + taken)
            del told["as_of_sequence"]
            driver.publish("positions", told)
            driver.now_ns += 1000
        driver.run()
        if round_ % 10 == 9:
            for symbol, price in prices.items():
                driver.publish("prices", tick(driver.now_ns, symbol, price))
            driver.advance(1.0)
    assert account.allocations["signal"] == 6
    assert taken <= 6 + 6 + 2
    assert account.asked_usd.keys() <= {"signal"} or sum(account.asked_usd.values()) == account.asked_usd["signal"]
    assert account.traded_usd == pytest.approx(account.asked_usd["signal"])
    assert account.traded_usd < 100_000.0


@pytest.mark.parametrize("first", ["positions", "prices"])
def test_positions_told_before_the_first_price_are_not_sold_for_want_of_one(first):
    """`cases/positions_first.py`: every target was 0, and stayed 0 when prices came."""
    driver, held = Driver(partitions=1), {ETH: 4.0, BTC: 0.2}
    for what in (first, "prices", "positions"):
        if what == "positions":
            report(driver, held, equity=100_000.0)
        else:
            for symbol, price in ((ETH, 2_300.0), (BTC, 43_500.0)):
                driver.publish("prices", tick(driver.now_ns, symbol, price))
            driver.advance(2.0)
    assert driver.allocations()
    for fields in driver.allocations():
        assert {symbol: each["quantity"] for symbol, each in fields["targets"].items()} == held
        assert fields["unmanaged"] == [BTC, ETH]
        assert (fields["cells"], fields["allocations"], fields["total_allocated_usd"]) == ([], {}, 0.0)


# -- a report moves no target ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("as_of", [None, 0, 1])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.999, 1.0, 1.3, -0.5])
@pytest.mark.parametrize("later_s", [0.0, 10.0, 60.0])
def test_a_report_never_raises_or_lowers_a_target_by_itself(share, as_of, later_s):
    driver = started()
    wanted, known = quantity(driver), sequence(driver)
    given = {} if as_of is None else {"as_of_sequence": as_of}
    report(driver, {BTC: wanted * share}, later_s, equity=100_000.0, **given)
    wait(driver, 200.0)
    assert (sequence(driver), quantity(driver)) == (known, wanted)


def test_a_report_that_lowers_equity_cuts_the_target_last_published_and_not_what_is_held():
    driver = started()
    wanted = quantity(driver)
    report(driver, {BTC: wanted}, equity=80_000.0, as_of_sequence=1)
    fall = (1 - 0.7 / 0.8) / 0.3
    cut = pytest.approx(wanted * fall * 0.8 * 0.99, rel=1e-4)
    assert quantity(driver) == cut, "the fall takes its part of size and cap; the cap is a share of a smaller value too"
    assert last(driver)["trigger"] == {"id": "positions", "kind": "value"}
    known = sequence(driver)
    report(driver, {BTC: wanted * 0.7}, 1.0, equity=80_000.0, as_of_sequence=1)
    assert (sequence(driver), quantity(driver)) == (known, cut)


# -- which report covers -----------------------------------------------------------------------------------------------
def test_a_report_as_of_an_older_allocation_counts_for_equity_alone():
    driver = started()
    ask(driver, "s-2", symbol=ETH)
    wanted = {BTC: quantity(driver), ETH: quantity(driver, ETH)}
    report(driver, {}, 100.0, equity=100_500.0, as_of_sequence=1)
    ask(driver, "s-3")
    newest = last(driver)
    assert (newest["portfolio_value"], newest["basis"], newest["kept"]) == (100_500.0, "targets", [BTC, ETH])
    assert {symbol: each["quantity"] for symbol, each in newest["targets"].items()} == wanted


def test_what_changed_no_target_need_not_be_covered():
    driver = started()
    ask(driver, "s-2")
    assert last(driver)["kept"] == [BTC]
    report(driver, {BTC: quantity(driver)}, as_of_sequence=1)
    ask(driver, "s-3")
    assert last(driver)["basis"] == "positions"


@pytest.mark.parametrize(
    ("share", "later_s", "basis"), [(1.0, 0.0, "positions"), (0.9, 20.0, "targets"), (0.9, 32.0, "positions")]
)
def test_without_as_of_a_report_covers_once_it_equals_the_targets_or_they_have_settled(share, later_s, basis):
    driver = started()
    report(driver, {BTC: quantity(driver) * share}, later_s)
    ask(driver, "s-2")
    assert last(driver)["basis"] == basis


def test_the_time_to_settle_is_a_setting():
    driver = started(with_(TRUSTING, ("portfolio.settle_s", 300.0)))
    report(driver, {BTC: quantity(driver) * 0.9}, 120.0)
    ask(driver, "s-2")
    assert last(driver)["basis"] == "targets"


def test_a_report_as_of_what_was_not_published_yet_is_a_dead_letter():
    driver = started()
    report(driver, {}, equity=50_000.0, as_of_sequence=2)
    [letter] = driver.read("positions.dlq")
    text = dict(letter.headers)["__streams.errors.message"].decode()
    assert "as_of_sequence must be at most 1" in text
    assert "was 2" in text
    assert sequence(driver) == 1
    ask(driver, "s-2")
    assert last(driver)["portfolio_value"] == 100_000.0


# -- a cut never buys --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("as_of", "told_s", "share"),
    [(1, 40.0, 0.0), (None, 40.0, 0.0), (0, 40.0, 0.25), (None, 10.0, 0.25), (1, 3.0, 0.25)],
)
def test_a_stop_that_was_hit_at_the_exchange_is_not_bought_back_by_a_cut(as_of, told_s, share):
    """The report says that nothing is held; a cut to a quarter asks for nothing once it covers and has settled."""
    driver = started()
    wanted = quantity(driver)
    report(driver, {}, told_s, **({} if as_of is None else {"as_of_sequence": as_of}))
    crash(driver)
    assert quantity(driver) == pytest.approx(wanted * share, rel=1e-4)
    assert last(driver)["trigger"]["kind"] == "cascade"


def test_the_next_signal_may_buy_back_what_a_cut_may_not():
    driver = started()
    report(driver, {}, 40.0)
    ask(driver, "s-2")
    assert last(driver)["targets"][BTC]["notional_usd"] == pytest.approx(13_500.0, abs=1.0)


def test_who_closes_by_hand_without_a_halt_sees_the_target_stand_and_with_one_sees_it_end():
    driver = started()
    wanted = quantity(driver)
    report(driver, {}, 40.0)
    wait(driver, 60.0)
    assert quantity(driver) == wanted
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": f"symbol:{BTC}", "state": "HALTED"}))
    driver.advance(1.0)
    assert quantity(driver) == 0.0


# -- dust --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("equity", [99_999.0, 99_990.0, 99_950.0])
def test_a_forced_cut_below_the_minimum_is_not_published(equity):
    driver = started()
    report(driver, {BTC: quantity(driver)}, equity=equity, as_of_sequence=1)
    assert sequence(driver) == 1


def test_cuts_too_small_to_publish_add_up_until_they_are_published():
    """A claim far below every cap, and a value that falls by 20 % a hundredth at a time."""
    wide = with_(TRUSTING, ("risk_management.max_position_pct", 1.0))
    driver = started(wide, confidence=1.0, expected_return=0.02, predicted_volatility=0.1)
    wanted = quantity(driver)
    assert last(driver)["bound"] == []
    for step in range(1, 21):
        held = {BTC: quantity(driver)}
        report(driver, held, 1.0, equity=100_000.0 - 1_000.0 * step, as_of_sequence=sequence(driver))
    fall = (1 - 0.7 / 0.8) / 0.3
    assert wanted * fall * 0.9999 <= quantity(driver) <= wanted * fall * 1.1 + 10.0 / PRICES[BTC]
    assert 3 <= sequence(driver) <= 10


def test_a_halt_ends_what_is_below_the_minimum():
    driver = started(with_(TRUSTING, ("portfolio.initial_value_usd", 100.0)))
    wait(driver, 1.0, {BTC: PRICES[BTC] * 0.7})
    assert (sequence(driver), quantity(driver) * PRICES[BTC] * 0.7 < 10.0) == (1, True)
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": "all", "state": "HALTED"}))
    driver.advance(1.0)
    assert (sequence(driver), quantity(driver)) == (2, 0.0)


# -- caps --------------------------------------------------------------------------------------------------------------
def test_a_cap_cuts_at_a_percent_over_it_to_a_percent_below_and_warns_once_a_breach():
    driver = started()
    cap = 13_500.0
    found = []
    for ratio in (1.005, 1.0095, 1.0105, 1.0115, 1.02, 1.0311, 1.0312):
        wait(driver, 1.0, {BTC: PRICES[BTC] * ratio})
        found.append((sequence(driver), len(alerts(driver, "risk_budget"))))
    assert found == [(1, 0), (1, 0), (2, 1), (2, 1), (2, 1), (3, 2), (3, 2)]
    first, second = driver.allocations("main")[1:]
    for fields in (first, second):
        assert fields["trigger"]["kind"] == "cap"
        assert fields["targets"][BTC]["notional_usd"] == pytest.approx(0.99 * cap, abs=0.02)


def test_a_price_that_goes_back_and_forth_over_a_cap_is_one_cut_and_one_alert():
    driver = started()
    for number in range(40):
        wait(driver, 1.0, {BTC: PRICES[BTC] * (1.011 if number % 2 else 0.995)})
    assert (sequence(driver), len(alerts(driver, "risk_budget"))) == (2, 1)


# -- for want of a price -----------------------------------------------------------------------------------------------
def test_a_signal_before_its_price_is_decided_again_when_the_price_comes():
    driver = Driver(partitions=1)
    ask(driver)
    first = last(driver)
    assert [(each["symbol"], each["code"]) for each in first["reasons"]] == [(BTC, "no_price")]
    assert BTC in first["reasons"][0]["text"]
    assert quantity(driver) == 0.0
    priced(driver)
    second = last(driver)
    assert second["trigger"] == {"id": BTC, "kind": "price"}
    assert (second["reasons"], second["targets"][BTC]["notional_usd"]) == ([], 13_500.0)
    wait(driver, 60.0)
    assert sequence(driver) == 2


def test_a_price_that_comes_when_the_forecast_is_over_decides_nothing():
    driver = Driver(partitions=1)
    driver.publish("signals", signal(driver.now_ns, signal_id="s-1", valid_for_s=30))
    driver.advance(60.0)
    known = sequence(driver)
    priced(driver)
    assert sequence(driver) == known


def test_a_signal_on_a_stale_price_holds_says_so_and_is_decided_again_when_a_fresh_one_comes():
    driver = started()
    wanted = quantity(driver)
    driver.advance(200.0)
    ask(driver, "s-2", action="sell", expected_return=-0.01)
    newest = last(driver)
    assert [(each["symbol"], each["code"]) for each in newest["reasons"]] == [(BTC, "stale_price")]
    assert quantity(driver) == wanted
    priced(driver)
    newest = last(driver)
    assert (newest["trigger"], newest["reasons"]) == ({"id": BTC, "kind": "price"}, [])
    assert quantity(driver) < 0.0


def test_who_wants_to_be_flat_without_a_fresh_price_says_so_in_the_settings():
    driver = started(with_(TRUSTING, ("portfolio.stale_price", "flat")))
    driver.advance(200.0)
    ask(driver, "s-2", symbol=ETH)
    assert quantity(driver) == 0.0


def test_a_halt_acts_on_the_last_price_however_old():
    driver = started()
    driver.advance(1_000.0)
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": "all", "state": "HALTED"}))
    driver.advance(1.0)
    assert quantity(driver) == 0.0


# -- what is not ours --------------------------------------------------------------------------------------------------
def test_a_coin_without_a_target_of_ours_is_shown_and_never_sold():
    driver = started()
    report(driver, {BTC: quantity(driver), BNB: 3.0}, equity=100_000.0, as_of_sequence=1)
    shown = last(driver)
    assert (shown["sequence"], shown["unmanaged"]) == (2, [BNB])
    assert shown["targets"][BNB] == {"notional_usd": None, "quantity": 3.0, "weight": None}
    assert {cell["symbol"] for cell in shown["cells"]} == {BTC}
    assert list(shown["allocations"]) == [BTC]
    assert shown["total_allocated_usd"] == pytest.approx(13_500.0, abs=0.02)
    report(driver, {BTC: quantity(driver), BNB: 2.5}, 1.0, equity=100_000.0, as_of_sequence=2)
    assert sequence(driver) == 2
    driver.publish("prices", tick(driver.now_ns, BNB, 600.0))
    driver.advance(2.0)
    ask(driver, "s-2", symbol=ETH)
    crash(driver, BTC)
    newest = last(driver)
    assert newest["targets"][BNB] == {"notional_usd": 1_500.0, "quantity": 2.5, "weight": 0.015}
    assert newest["unmanaged"] == [BNB]
    assert BNB not in newest["allocations"]


def test_a_coin_that_a_signal_asks_for_is_managed_from_then_on():
    driver = started()
    driver.publish("prices", tick(driver.now_ns, BNB, 600.0))
    driver.advance(2.0)
    report(driver, {BTC: quantity(driver), BNB: 3.0}, as_of_sequence=1)
    ask(driver, "s-2", symbol=BNB)
    newest = last(driver)
    assert newest["unmanaged"] == []
    assert newest["targets"][BNB]["notional_usd"] > 0.0
    assert BNB in newest["allocations"]


def test_who_wants_them_sold_says_so_in_the_settings():
    driver = started(with_(TRUSTING, ("portfolio.unmanaged", "flatten")))
    driver.publish("prices", tick(driver.now_ns, BNB, 600.0))
    driver.advance(2.0)
    report(driver, {BTC: quantity(driver), BNB: 3.0}, 40.0, as_of_sequence=1)
    ask(driver, "s-2", symbol=ETH)
    assert (last(driver)["unmanaged"], quantity(driver, BNB)) == ([], 0.0)


# -- decisions that change nothing -------------------------------------------------------------------------------------
def test_a_cascade_that_cuts_nothing_more_publishes_nothing():
    driver = started()
    crash(driver)
    known = sequence(driver)
    crash(driver)
    wait(driver, 5.0)
    assert sequence(driver) == known
