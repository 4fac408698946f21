"""Who is idle makes room in a full portfolio, in an order worked out by hand; an order forgets who is idle."""

import orjson
import pytest
from worlds import TRUSTING, Driver, control, last, priced, signal, targets, with_

from engines.state import capacity

HOUR_S = 3_600.0
WEEK_S = 604_800


@pytest.fixture
def small(monkeypatch):
    """Three strategies and six cells to a portfolio, so that an example can be followed by hand."""
    monkeypatch.setattr(capacity, "STRATEGIES_MAX", 3)
    monkeypatch.setattr(capacity, "CELLS_MAX", 6)


@pytest.fixture
def driver():
    return priced(Driver(partitions=1))


def state(driver):
    return driver.processors["journal", 0][0].state


def say(driver, strategy, symbol="BTC-USD", valid_s=10.0, **given):
    """Publish a signal, and let time pass: each is newer than the one before."""
    driver.publish("signals", signal(driver.now_ns, strategy_id=strategy, symbol=symbol, valid_for_s=valid_s, **given))
    driver.advance(1.0)


def outcome(driver, strategy, signal_id, symbol="BTC-USD"):
    given = {"strategy_id": strategy, "symbol": symbol, "signal_id": signal_id, "side": "buy"}
    driver.publish("outcomes", {**given, "realized_return": 0.001, "timestamp_ns": driver.now_ns})
    driver.run()


def order(driver, scope, portfolio=None):
    """Give an order to forget; return what each partition answered."""
    control_id = f"forget-{len(driver.read('control'))}"
    payload = {"scope": scope} | ({} if portfolio is None else {"portfolio_id": portfolio})
    driver.publish("control", control(driver.now_ns, "forget", payload, control_id))
    driver.run()
    told = [orjson.loads(record.value) for record in driver.read("alerts")]
    return [each["result"] for each in told if each["subject"] == control_id]


def known(driver, portfolio="main"):
    return {name: sorted(symbols) for name, symbols in sorted(state(driver).known.get(portfolio, {}).items())}


def refusals(driver):
    return [dict(each.headers)["__streams.errors.message"].decode() for each in driver.read("signals.dlq")]


def rows(driver, strategy):
    """Return the names of the tables that still hold anything of a strategy."""
    found = state(driver)
    held = [name for name, table in found.tables.items() for key in table if strategy in key]
    held += ["weights" for record in found.strategies.values() if strategy in record.names]
    asked = [row for record in found.questions.values() for row in (*record.book, *record.asked)]
    return held + ["questions" for row in asked if row.strategy_id == strategy]


# -- who makes room ----------------------------------------------------------------------------------------------------
def test_two_hundred_strangers_come_first_and_the_real_one_is_sized_all_the_same(driver):
    for number in range(capacity.STRATEGIES_MAX):
        driver.publish("signals", signal(driver.now_ns, strategy_id=f"junk-{number}", valid_for_s=10.0))
    driver.advance(1.0)
    say(driver, "momentum", signal_id="early")
    assert "of which none may make room, was 'momentum'" in refusals(driver)[0], "while every stranger's claim lives"

    driver.advance(20.0)
    say(driver, "momentum", symbol="ETH-USD", signal_id="real", valid_s=HOUR_S)
    assert last(driver)["trigger"]["id"] == "real"
    assert targets(last(driver))["ETH-USD"] > 0.0
    assert len(refusals(driver)) == 1
    assert len(known(driver)) == capacity.STRATEGIES_MAX
    assert "junk-0" not in known(driver), "one made room: the first by name of those that spoke at the same time"
    assert rows(driver, "junk-0") == []


@pytest.mark.usefixtures("small")
def test_the_idle_one_that_spoke_longest_ago_goes_first(driver):
    say(driver, "a")
    say(driver, "b", valid_s=HOUR_S)
    say(driver, "c")
    say(driver, "a", signal_id="again")
    driver.advance(20.0)  # the claims of a and c are over, that of b is not; c spoke before a
    say(driver, "d", valid_s=HOUR_S)
    assert list(known(driver)) == ["a", "b", "d"]
    say(driver, "e", valid_s=HOUR_S)
    assert list(known(driver)) == ["b", "d", "e"]
    say(driver, "f", valid_s=HOUR_S)
    assert list(known(driver)) == ["b", "d", "e"], "all are live"
    (told,) = refusals(driver)
    assert "at most 3 strategies of the portfolio, of which none may make room, was 'f', a new one" in told


@pytest.mark.usefixtures("small")
def test_who_has_learnt_is_kept_from_strangers_until_it_has_been_silent_for_a_week(driver):
    say(driver, "old", signal_id="s", horizon_s=60.0)
    driver.advance(60.0)
    outcome(driver, "old", "s")
    assert ("main", "old", "BTC-USD") in state(driver).posteriors
    for name in ("b", "c", "d", "e", "f"):
        driver.advance(60.0)
        say(driver, name)
    assert list(known(driver)) == ["e", "f", "old"], "it spoke longest ago, and stays"
    driver.advance(WEEK_S)
    say(driver, "g", valid_s=2 * WEEK_S)
    assert list(known(driver)) == ["f", "g", "old"], "those that never learnt still go first"
    say(driver, "h", valid_s=2 * WEEK_S)
    assert list(known(driver)) == ["g", "h", "old"]
    say(driver, "i")
    assert list(known(driver)) == ["g", "h", "i"]
    assert rows(driver, "old") == []


@pytest.mark.usefixtures("small")
def test_a_stranger_waits_where_all_others_have_learnt_or_are_live(driver):
    say(driver, "old", signal_id="s", horizon_s=60.0)
    driver.advance(60.0)
    outcome(driver, "old", "s")
    for name in ("b", "c"):
        say(driver, name, valid_s=2 * WEEK_S)
    say(driver, "stranger")
    assert list(known(driver)) == ["b", "c", "old"]
    assert "of which none may make room, was 'stranger'" in refusals(driver)[0]
    driver.advance(WEEK_S)
    say(driver, "stranger")
    assert list(known(driver)) == ["b", "c", "stranger"]


@pytest.mark.usefixtures("small")
def test_a_position_is_kept_though_its_claim_is_over(driver):
    say(driver, "a", valid_s=5.0)
    held = state(driver).targets["main", "a", "BTC-USD"]
    for name in ("b", "c"):
        say(driver, name, symbol="ETH-USD", valid_s=5.0)
    driver.advance(20.0)
    assert state(driver).predictions["main", "a", "BTC-USD"].forecast is None
    state(driver).put_target(("main", "a", "BTC-USD"), held)
    say(driver, "d", action="hold")
    assert list(known(driver)) == ["a", "c", "d"], "b went, which spoke after a"
    state(driver).put_target(("main", "a", "BTC-USD"), held)
    assert order(driver, "strategy:a") == [
        "rejected: strategy a must have neither a live claim nor a position, has one in portfolio main"
    ]


@pytest.mark.usefixtures("small")
def test_a_cell_makes_room_for_another_and_takes_its_part_of_the_pool_along(driver):
    symbols = ["BTC-USD", "ETH-USD", "SOL-USD"]
    for symbol in symbols:
        say(driver, "a", symbol, signal_id=f"a-{symbol}", horizon_s=60.0)
    driver.advance(60.0)
    for symbol in symbols:
        outcome(driver, "a", f"a-{symbol}", symbol)
    for symbol in symbols:
        say(driver, "b", symbol)
    driver.advance(WEEK_S)
    say(driver, "a", "X1")
    assert known(driver) == {"a": [*symbols, "X1"], "b": ["ETH-USD", "SOL-USD"]}, "b never learnt"
    driver.advance(20.0)
    say(driver, "a", "X2")
    say(driver, "a", "X3")
    assert known(driver) == {"a": [*symbols, "X1", "X2", "X3"]}
    assert rows(driver, "b") == []
    driver.advance(20.0)
    for number in range(4, 8):
        say(driver, "a", f"X{number}", valid_s=HOUR_S)
    left = [key[2] for key in state(driver).posteriors if key[1] == "a"]
    assert left == ["ETH-USD", "SOL-USD"], "X1 to X3 never learnt and went before BTC-USD, which spoke longest ago"
    kept = [state(driver).posteriors["main", "a", symbol].posterior for symbol in left]
    pool = state(driver).pools["main", "a"]
    assert pool.cells == 2
    assert (pool.h1, pool.h2) == pytest.approx((sum(each.h1 for each in kept), sum(each.h2 for each in kept)))


@pytest.mark.usefixtures("small")
def test_a_crowd_of_names_leaves_nothing_behind(driver):
    say(driver, "real", valid_s=1e6)
    sizes = []
    for number in range(160):
        say(driver, f"junk-{number}", f"X{number}", valid_s=0.5)
        driver.advance(2.0)
        if number % 40 == 39:
            found = state(driver)
            counts = {name: len(table) for name, table in found.tables.items()}
            sizes.append((counts, len(found.waiting), len(found.known["main"]), len(found.cells("main"))))
    assert sizes[1] == sizes[2] == sizes[3], "the first is from before the price of the real one became stale"
    assert sizes[1][0]["predictions"] == 3
    assert "real" in known(driver)


@pytest.mark.usefixtures("small")
def test_nobody_makes_room_for_a_portfolio_that_the_partition_has_no_room_for(driver, monkeypatch):
    for name in ("a", "b", "c"):
        say(driver, name, action="hold")
    before = known(driver)
    monkeypatch.setattr(capacity, "PORTFOLIOS_MAX", 0)
    state(driver).books.clear()
    say(driver, "d")
    assert known(driver) == before
    assert len(refusals(driver)) == 1


@pytest.mark.usefixtures("small")
def test_the_same_make_room_after_a_restart():
    def course(crash):
        driver = priced(Driver(partitions=1))
        for number, name in enumerate("cabdacbed"):
            say(driver, name, symbol=["BTC-USD", "ETH-USD"][number % 2], valid_s=1.5)
            driver.advance(2.0 if number % 3 else 0.0)
            if crash:
                driver.checkpoint()
                driver.crash()
        driver.run()
        return known(driver), [record.value for record in driver.read("allocations")]

    assert course(crash=True) == course(crash=False)


# -- orders ------------------------------------------------------------------------------------------------------------
def test_a_strategy_is_forgotten_in_one_portfolio_or_in_all(driver):
    for portfolio in ("p1", "p2", "p3"):
        for name in ("a", "b"):
            say(driver, name, portfolio_id=portfolio)
    driver.advance(20.0)
    assert order(driver, "strategy:a", "p2") == ["applied"]
    assert {name: list(known(driver, name)) for name in ("p1", "p2", "p3")} == {
        "p1": ["a", "b"],
        "p2": ["b"],
        "p3": ["a", "b"],
    }
    assert order(driver, "strategy:a") == ["applied"]
    assert [list(known(driver, name)) for name in ("p1", "p2", "p3")] == [["b"]] * 3
    assert rows(driver, "a") == []
    assert order(driver, "strategy:a") == ["no_op"]
    assert order(driver, "strategy:stranger", "p1") == ["no_op"]


def test_the_weights_of_those_that_are_left_keep_their_proportions(driver):
    for name in ("a", "b", "c"):
        say(driver, name, signal_id=name, horizon_s=60.0)
    driver.advance(60.0)
    outcome(driver, "a", "a")
    before = dict(zip(*state(driver).strategies["main",][:2], strict=True))
    assert len({*before.values()}) > 1
    assert order(driver, "strategy:c") == ["applied"]
    after = dict(zip(*state(driver).strategies["main",][:2], strict=True))
    assert after == pytest.approx({name: before[name] / (before["a"] + before["b"]) for name in ("a", "b")})
    assert sum(after.values()) == pytest.approx(1.0)
    assert order(driver, "portfolio:main") == ["applied"]
    assert state(driver).strategies == {}


def test_what_was_learnt_is_gone_and_an_outcome_that_comes_later_is_refused(driver):
    say(driver, "a", signal_id="s-1", horizon_s=30.0)
    driver.advance(30.0)
    outcome(driver, "a", "s-1")
    say(driver, "a", signal_id="s-2", horizon_s=30.0)
    driver.advance(30.0)
    assert {"kelly-posteriors", "pools", "conformal-scores", "predictions", "weights"} <= {*rows(driver, "a")}
    assert order(driver, "strategy:a") == ["applied"]
    assert rows(driver, "a") == []
    assert state(driver).regimes == {}
    outcome(driver, "a", "s-2")
    (letter,) = driver.read("outcomes.dlq")
    assert b"cell main/a/BTC-USD has made no claim" in dict(letter.headers)["__streams.errors.message"]
    say(driver, "a", signal_id="s-3", valid_s=HOUR_S)
    assert targets(last(driver))["BTC-USD"] > 0.0, "and it may begin again"


def test_who_has_a_live_claim_is_not_forgotten_and_a_portfolio_forgets_the_others(driver):
    say(driver, "busy", valid_s=HOUR_S)
    for name in ("a", "b"):
        say(driver, name)
    driver.advance(20.0)
    assert order(driver, "strategy:busy") == [
        "rejected: strategy busy must have neither a live claim nor a position, has one in portfolio main"
    ]
    before = last(driver)
    assert order(driver, "portfolio:main") == ["applied"]
    assert list(known(driver)) == ["busy"]
    assert last(driver) == before, "nothing is decided: nothing that is sized has changed"
    assert order(driver, "portfolio:main") == [
        "rejected: every strategy of portfolio main has a live claim or a position"
    ]
    assert order(driver, "portfolio:nobody") == ["no_op"]


def test_where_one_portfolio_still_needs_a_strategy_none_forgets_it(driver):
    for number in range(8):
        say(driver, "a", portfolio_id=f"p{number}", valid_s=HOUR_S if number != 3 else 5.0)
    driver.advance(20.0)
    (told,) = order(driver, "strategy:a")
    assert told.endswith("nor a position, has one in portfolio p0, p1, p2, p4, p5 and 2 more")
    assert "a" in known(driver, "p3")


def test_questions_about_a_forgotten_strategy_are_withdrawn():
    asking = with_(TRUSTING, ("rl.enabled", True), ("rl.deadline_s", HOUR_S))
    driver = priced(Driver(asking, partitions=1))
    say(driver, "busy", "ETH-USD", valid_s=HOUR_S)
    say(driver, "a")
    assert "questions" in rows(driver, "a")
    found = state(driver)
    found.targets.drop(("main", "a", "BTC-USD"))  # as where its size was too small to be held
    driver.advance(20.0)
    assert order(driver, "strategy:a") == ["applied"]
    assert rows(driver, "a") == []
    assert "questions" in rows(driver, "busy")
    driver.advance(2 * HOUR_S)


def test_an_order_reaches_every_partition_or_the_one_of_its_portfolio():
    driver = priced(Driver())
    for number in range(12):
        say(driver, "a", portfolio_id=f"p{number}")
    driver.advance(20.0)
    assert order(driver, "strategy:a", "p1") == ["applied"]
    assert order(driver, "strategy:a") == ["applied"] * driver.partitions
    assert driver.partitions > 1


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        ({"scope": "all"}, "scope"),
        ({"scope": "symbol:BTC-USD"}, "scope"),
        ({"scope": "portfolio:main", "portfolio_id": "main"}, "must stand with a scope of a strategy alone"),
        ({}, "scope must be given"),
    ],
)
def test_an_order_that_names_something_else_is_a_dead_letter(driver, payload, rule):
    driver.publish("control", control(driver.now_ns, "forget", payload))
    driver.run()
    (letter,) = driver.read("control.dlq")
    assert rule in dict(letter.headers)["__streams.errors.message"].decode()


# -- allow-lists -------------------------------------------------------------------------------------------------------
def test_a_portfolio_with_a_list_takes_only_those_on_it():
    listed = with_(TRUSTING, ("portfolio.allowed_strategies", {"main": ["momentum", "carry"], "shut": []}))
    driver = priced(Driver(listed, partitions=1))
    for strategy in ("junk", "momentum"):
        say(driver, strategy, valid_s=HOUR_S)
    say(driver, "junk", portfolio_id="other", valid_s=HOUR_S)
    say(driver, "momentum", portfolio_id="shut", valid_s=HOUR_S)
    assert (list(known(driver)), list(known(driver, "other")), known(driver, "shut")) == (["momentum"], ["junk"], {})
    assert refusals(driver) == [
        "signals: strategy_id must be one of the 2 that portfolio.allowed_strategies names for main, was 'junk'",
        "signals: strategy_id must be one of the 0 that portfolio.allowed_strategies names for shut, was 'momentum'",
    ]
    (first, _) = driver.read("signals.dlq")
    assert dict(first.headers)["himari.error.code"] == b"unknown_value"
