"""Orders: a halt is in force within one journal entry and outlives its worker; the journal says who gave it and why."""

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from worlds import TRUSTING, Driver, control, events, last, play, priced, scripts, signal

from engines.parameters import DecisionParams, settings_hash, tree_hash
from schemas import wire
from schemas.control import Control
from schemas.errors import InvalidControlException
from streams.journal import entries as journal
from streams.processing.partitioner import partition_of
from streams.reports import trading_states
from streams.stages.control import (
    STATES,
    Ordered,
    SettingsInForce,
    asked,
    behind,
    effective,
    ordered,
    trading_order,
    value_order,
)

SCOPES = ("all", "portfolio:main", "strategy:momentum", "symbol:BTC-USD")
NAMED = (
    ("main", "momentum", "BTC-USD"),
    ("main", "carry", "ETH-USD"),
    ("alpha", "momentum", "ETH-USD"),
    ("alpha", "carry", "BTC-USD"),
)


def buy(driver):
    for portfolio, strategy, symbol in NAMED:
        given_ = {"portfolio_id": portfolio, "strategy_id": strategy, "symbol": symbol, "valid_for_s": 86_400}
        driver.publish("signals", signal(driver.now_ns, **given_))
    driver.advance(1.0)


def order(driver, word, scope="all", reason="a test", by="ops"):
    made = trading_order(word, scope, reason, by, driver.now_ns)
    driver.publish("control", made, key=made["kind"].encode())
    driver.run()
    return made


def held(driver):
    """Return what each portfolio holds of each cell by its newest allocation, cents; what is 0 is left out."""
    portfolios = {fields["portfolio_id"] for fields in driver.allocations()}
    return {
        (portfolio, cell["strategy_id"], cell["symbol"]): cell["cents"]
        for portfolio in portfolios
        for cell in last(driver, portfolio)["cells"]
        if cell["cents"]
    }


def names(scope, cell):
    kind, _, name = scope.partition(":")
    return kind == "all" or name == cell[("portfolio", "strategy", "symbol").index(kind)]


def found(driver, partition=0):
    entries = driver.cluster.log("journal", partition).read(0)
    return [each for record in entries if (each := ordered(record.offset, record.value)) is not None]


def states(driver):
    return [driver.processors["journal", partition][0].state for partition in range(driver.partitions)]


def shown(driver):
    folded = states(driver)
    orders = {at: behind(trading_states.scopes(state), found(driver, at)) for at, state in enumerate(folded)}
    return trading_states.view(folded, orders)


# -- orders ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("word", STATES)
@pytest.mark.parametrize("scope", SCOPES)
def test_an_order_is_a_control_record_with_a_name_of_its_own(word, scope):
    made = [trading_order(word, scope, "because", "ops", 1_700_000_000_000_000_000) for _ in range(50)]
    assert len({each["control_id"] for each in made}) == 50
    message = wire.decode(Control, orjson.dumps(made[0]), place="control")
    assert (message.payload.scope, message.payload.state) == (scope, STATES[word])
    assert (message.reason, message.by) == ("because", "ops")


def test_every_partition_answers_a_trading_state_and_one_answers_a_value():
    assert asked(trading_order("halt", "portfolio:main", "why", "who", 1_700_000_000_000_000_000), 5) == [0, 1, 2, 3, 4]
    value = value_order({"portfolio_id": "main", "value_usd": 5.0}, "why", "who", 1_700_000_000_000_000_000)
    assert asked(value, 5) == [partition_of(b"main", 5)]


@pytest.mark.parametrize("scope", ["everything", "portfolio:", "symbol:a b", "ALL", "desk:x"])
def test_an_order_that_would_be_a_dead_letter_is_refused_at_once(scope):
    with pytest.raises(InvalidControlException, match=r"control: payload\.scope"):
        asked(trading_order("halt", scope, "why", "who", 1_700_000_000_000_000_000), 2)


@pytest.mark.parametrize(("reason", "by", "field"), [("", "ops", "reason"), (" ", "ops", "reason"), ("news", "", "by")])
def test_an_order_without_reason_or_name_is_refused(reason, by, field):
    with pytest.raises(InvalidControlException, match=f"control: {field} must match") as refused:
        asked(trading_order("halt", "all", reason, by, 1_700_000_000_000_000_000), 2)
    assert refused.value.field == field


# -- in force --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scope", SCOPES)
def test_a_halt_is_in_force_with_its_own_journal_entry_and_nothing_opens_until_it_is_resumed(scope):
    driver = priced()
    buy(driver)
    before = held(driver)
    assert before.keys() == set(NAMED)
    order(driver, "halt", scope)
    for partition in range(driver.partitions):
        (place,) = (each.offset for each in found(driver, partition))
        ends = driver.cluster.log("journal", partition).end
        assert place == ends - 1, "nothing was journaled after the order, and yet it acts"
    after = held(driver)
    kept = {cell: before[cell] for cell in NAMED if not names(scope, cell)}
    assert after == pytest.approx(kept, abs=1), "the others keep theirs, to the cent that a lot takes"
    buy(driver)
    assert not any(names(scope, cell) for cell in held(driver))
    order(driver, "resume", scope)
    buy(driver)
    assert held(driver).keys() == set(NAMED), "the next signals are sized again"


def test_reducing_lets_nothing_grow_and_lets_it_shrink():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, risk_score=0.5))
    driver.advance(1.0)
    (before,) = held(driver).values()
    order(driver, "reduce")
    driver.publish("signals", signal(driver.now_ns, risk_score=0.0))
    driver.advance(1.0)
    (now,) = held(driver).values()
    assert before - 1 <= now <= before, "to the cent, which a lot takes"
    driver.publish("signals", signal(driver.now_ns, risk_score=1.0))
    driver.advance(1.0)
    assert 0 < next(iter(held(driver).values())) < before


@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.parametrize("disk_lost", [True, False])
def test_a_halt_outlives_its_worker(checkpointed, disk_lost):
    driver = priced()
    buy(driver)
    order(driver, "halt")
    if checkpointed:
        driver.checkpoint()
    if disk_lost:
        for store in driver.stores.values():
            store.wipe()
    driver.crash()
    driver.advance(5.0)
    buy(driver)
    assert held(driver) == {}
    assert [row["missing"] for row in shown(driver)] == [[]]
    order(driver, "resume")
    buy(driver)
    assert held(driver).keys() == set(NAMED)
    assert shown(driver) == []


quiet = events.filter(lambda event: event[0] != "state")


@hypothesis_settings(max_examples=25)
@given(scripts, st.lists(quiet, min_size=1, max_size=12), st.booleans())
def test_whatever_comes_nothing_is_held_while_all_is_halted(before, during, crash):
    driver = Driver(partitions=2)
    play(driver, before)
    order(driver, "halt")
    place = {partition: max(each.offset for each in found(driver, partition)) for partition in range(2)}
    if crash:
        driver.crash()
    play(driver, during)
    later = [f for f in driver.allocations() if f["journal"]["offset"] >= place[f["journal"]["partition"]]]
    assert not any(target["notional_usd"] for fields in later for target in fields["targets"].values())
    assert held(driver) == {}


# -- who, why and when -----------------------------------------------------------------------------------------------
def test_who_halted_and_why_and_when_is_found_again_in_the_journal():
    driver = priced()
    buy(driver)
    order(driver, "halt", "all", "a first alarm", "ann")
    order(driver, "reduce", "symbol:BTC-USD", "thin book", "bob")
    order(driver, "resume", "all", "false alarm", "cem")
    made = order(driver, "halt", "portfolio:alpha", "exchange is down", "dora")
    driver.advance(3_600.0)
    alpha, symbol = shown(driver)
    assert (alpha["scope"], alpha["state"], alpha["by"], alpha["reason"]) == (
        "portfolio:alpha",
        "HALTED",
        "dora",
        "exchange is down",
    )
    assert (alpha["control_id"], alpha["cells"]) == (made["control_id"], 2)
    assert alpha["ordered_at"].startswith("2023-11-14T22:13:")
    assert (symbol["scope"], symbol["state"], symbol["by"], symbol["cells"]) == (
        "symbol:BTC-USD",
        "REDUCING",
        "bob",
        2,
    )
    assert (alpha["partitions"], alpha["missing"]) == ([0, 1], [])
    first, _ = trading_states.lines([alpha, symbol])
    assert re.fullmatch(
        r"HALTED   portfolio:alpha +since 2023-11-14T22:13:\S+ by dora: exchange is down \(2 cells\)", first
    )
    assert orjson.loads(orjson.dumps([alpha, symbol])) == [alpha, symbol]


def test_a_scope_that_names_nobody_says_so():
    driver = priced()
    buy(driver)
    order(driver, "halt", "portfolio:mian")
    (row,) = shown(driver)
    assert row["cells"] == 0
    assert next(trading_states.lines([row])).endswith("(no cells yet)")


def test_a_partition_that_has_not_got_the_order_is_named():
    driver = priced()
    buy(driver)
    order(driver, "halt")
    one = Driver(partitions=1)
    row = trading_states.view([states(driver)[0], states(one)[0]], {0: behind({"all": "HALTED"}, found(driver))})[0]
    assert (row["partitions"], row["missing"]) == ([0], [1])
    assert list(trading_states.lines([row]))[1] == "  NOT in force on journal partitions 1"


def test_partitions_that_are_apart_are_shown_apart_each_with_its_order():
    early, late = Driver(partitions=1), Driver(partitions=1)
    order(early, "halt", by="ann")
    for driver in (early, late):
        order(driver, "reduce", by="bob")
    order(late, "halt", by="cem")
    rows = trading_states.view([states(early)[0], states(late)[0]], {0: {}, 1: behind({"all": "HALTED"}, found(late))})
    assert [(row["state"], row["by"], row["partitions"], row["missing"]) for row in rows] == [
        ("HALTED", "cem", [1], [0]),
        ("REDUCING", None, [0], [1]),
    ]


def test_an_order_that_the_journal_no_longer_holds_is_in_force_all_the_same():
    driver = priced()
    order(driver, "halt")
    (row,) = trading_states.view(states(driver), {})
    assert (row["state"], row["by"], row["control_id"]) == ("HALTED", None, None)
    assert "order expired" in next(trading_states.lines([row]))


def test_a_repeat_of_an_older_order_is_not_taken_for_the_newest():
    driver = Driver(partitions=1)
    order(driver, "halt", by="first")
    order(driver, "halt", by="second")
    driver.committed["control", 0] = 0
    driver.crash()
    driver.run()
    every = found(driver)
    assert [each.body["by"] for each in every] == ["first", "second", "first", "second"]
    assert [each.body["by"] for each in effective(every[:3])] == ["first", "second"]
    assert behind({"all": "HALTED"}, every[:3])["all"].body["by"] == "second"


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), max_size=30))
def test_orders_without_repeats_are_those_above_all_before(places):
    orders = [Ordered(at, (0, partition, offset), 0, {}) for at, (partition, offset) in enumerate(places)]
    seen = {0: -1, 1: -1}
    wanted = []
    for each in orders:
        _, partition, offset = each.source
        if offset > seen[partition]:
            wanted.append(each)
            seen[partition] = offset
    assert effective(orders) == wanted


@hypothesis_settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(sorted(STATES)), st.sampled_from(SCOPES)), max_size=12))
def test_the_states_in_force_are_the_last_order_of_each_scope(script):
    driver = Driver(partitions=2)
    newest = {}
    for number, (word, scope) in enumerate(script):
        order(driver, word, scope, by=f"n-{number}")
        newest[scope] = (STATES[word], f"n-{number}")
    rows = shown(driver)
    active = {scope: told for scope, told in newest.items() if told[0] != "ACTIVE"}
    assert {row["scope"]: (row["state"], row["by"]) for row in rows} == active
    assert len({each.source for each in found(driver)}) == len(script)


def test_an_entry_that_only_speaks_of_control_is_no_order():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, signal_id="kind:control"))
    driver.run()
    assert [each for partition in range(2) for each in found(driver, partition)] == []
    assert ordered(0, orjson.dumps({"kind": "signal", "headers": [], "value": '{"kind":"control"}'})) is None


# -- settings in force -----------------------------------------------------------------------------------------------
def changed(base, **risk):
    """Return the payload of an order that changes risk settings."""
    tree = base.model_dump()
    tree["risk_management"] |= risk
    return {"base_hash": tree_hash(base), "hash": settings_hash(tree), "tree": tree}


START = TRUSTING
SMALLER = DecisionParams.model_validate(changed(START, max_position_pct=0.05)["tree"])
CHANGES = {
    "a good one": changed(START, max_position_pct=0.05),
    "one that goes back": changed(SMALLER, max_position_pct=START.risk_management.max_position_pct),
    "a value out of range": changed(START, max_position_pct=7.0),
    "an unknown key": changed(START, surprise=1),
    "a hash of other settings": changed(START, max_position_pct=0.05) | {"hash": "0" * 64},
    "another base": changed(SMALLER, max_position_pct=0.01),
    "the same settings": changed(START),
}


def in_force(driver, fold, first=0, meta=None):
    """Return the settings that are found in the journal without a fold, and those of the fold."""
    found = SettingsInForce(meta)
    for record in driver.cluster.log("journal", 0).read(first):
        found.take(journal.read(record.offset, record.value))
    return (found.hash, found.tree), (fold.state.settings_hash, fold.state.progress.settings)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_in_force_in_the_journal_if_and_only_if_sizing_applies_it(name):
    driver = priced()
    driver.publish("control", control(driver.now_ns, "settings", CHANGES[name]))
    driver.run()
    found, folded = in_force(driver, driver.processors["journal", 0][0])
    assert found == folded
    assert (found[0] != tree_hash(START)) == (name == "a good one")


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_change_that_is_journaled_twice_is_in_force_once(checkpointed):
    driver = priced()
    for name in ("a good one", "one that goes back"):
        driver.publish("control", control(driver.now_ns, "settings", CHANGES[name]))
        driver.run()
    fold, _ = driver.processors["journal", 0]
    log = driver.cluster.log("journal", 0)
    first, meta = (log.end, fold.meta()) if checkpointed else (0, None)
    (twice, _) = [record for record in log.read(0) if b'"kind":"control"' in record.value]
    log.append(twice.key, twice.value)
    driver.run()
    found, folded = in_force(driver, fold, first, meta)
    assert found == folded
    assert found[0] == tree_hash(START)
