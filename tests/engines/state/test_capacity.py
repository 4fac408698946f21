"""What would grow without end is refused with place, rule and value; who was there before is still served."""

import tracemalloc

import orjson
import pytest
from worlds import Driver, control, last, priced, signal, tick

from engines.parameters import DecisionParams
from engines.state import capacity
from engines.state.codec import encode
from engines.state.partition import State
from engines.state.records import CellRecord, Forecast, Market
from streams.journal.handover import PART_BYTES
from streams.journal.topics import CHANGELOGS, ROOM, TOPICS
from streams.processing.memory_cluster import Stored
from streams.stages.market import MarketFold

FORECAST = Forecast("s", 1, 2, 1, 0.5, 0.01, 0.02, 0.0, 3600.0, 0.2, None, None, 0, "")
NOTHING = Market(None, (None,) * 7, None, None, -1)


def states(driver):
    return [kept[0].state for (topic, _), kept in sorted(driver.processors.items()) if topic == "journal"]


def refused(driver, topic):
    return [dict(record.headers) for record in driver.read(f"{topic}.dlq")]


def crowd(driver):
    """Fill every partition to its limits; `main` is not among the portfolios."""
    for state in states(driver):
        for number in range(capacity.PORTFOLIOS_MAX):
            state.books[(f"p{number}",)] = state.book("main")


def test_another_strategy_is_one_too_many_and_those_before_are_served():
    driver = priced(Driver())
    driver.publish("signals", signal(driver.now_ns, strategy_id="momentum", signal_id="s-1"))
    driver.run()
    many = [signal(driver.now_ns, strategy_id=f"s{n}", signal_id=f"{n}") for n in range(capacity.STRATEGIES_MAX - 1)]
    for each in many:
        driver.publish("signals", each)
    driver.run()
    before = len(driver.allocations())
    driver.publish("signals", signal(driver.now_ns, strategy_id="one-more", signal_id="s-2"))
    driver.publish("signals", signal(driver.now_ns, strategy_id="momentum", symbol="ETH-USD", signal_id="s-3"))
    driver.run()
    assert [each["trigger"]["id"] for each in driver.allocations()[before:]] == ["s-3"]
    (told,) = refused(driver, "signals")
    assert (told["himari.error.code"], told["himari.error.field"]) == (b"out_of_range", b"strategy_id")
    rule = b"signals: strategy_id must be one of at most 200 strategies of the portfolio, of which none may make room, "
    assert told["__streams.errors.message"] == rule + b"was 'one-more', a new one"


def test_another_cell_is_one_too_many():
    driver = Driver(partitions=1)
    (state,) = states(driver)
    for number in range(capacity.CELLS_MAX):
        cell = ("main", f"s{number % 20}", f"X{number // 20}")
        state.put_cell(cell, CellRecord(FORECAST._replace(expires_ns=driver.now_ns * 2), (), driver.now_ns, ()))
    driver.publish("signals", signal(driver.now_ns, strategy_id="s3", action="hold"))
    driver.run()
    assert driver.allocations() == []
    (told,) = refused(driver, "signals")
    assert b"at most 2000 pairs of strategy and symbol of the portfolio" in told["__streams.errors.message"]


def test_another_portfolio_is_one_too_many_by_any_way_that_leads_in():
    driver = priced(Driver())
    crowd(driver)
    driver.publish("signals", signal(driver.now_ns))
    driver.publish("positions", {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": {}})
    driver.publish("control", control(driver.now_ns, "portfolio_value", {"portfolio_id": "main", "value_usd": 1.0}))
    driver.run()
    assert driver.allocations() == []
    for topic in ("signals", "positions"):
        (told,) = refused(driver, topic)
        assert told["himari.error.field"] == b"portfolio_id"
        assert b"at most 10000 portfolios of its journal partition, was 'main'" in told["__streams.errors.message"]
    (alert,) = [orjson.loads(record.value) for record in driver.read("alerts")]
    assert alert["result"].startswith("rejected: portfolio_id must be one of at most 10000 portfolios")
    driver.publish("signals", signal(driver.now_ns, portfolio_id="p7"))
    driver.run()
    assert last(driver, "p7")["sequence"] == 1


def test_another_symbol_is_one_too_many_for_prices_and_for_readings():
    driver = priced(Driver())
    for state in states(driver):
        for number in range(capacity.SYMBOLS_MAX - 3):
            state.markets[(f"X{number}",)] = NOTHING
    driver.publish("prices", tick(driver.now_ns, "NEW", 1.0), key=b"NEW")
    driver.publish("prices", tick(driver.now_ns, "BTC-USD", 45_000.0), key=b"BTC-USD")
    for symbol in ("NEW", "ETH-USD"):
        driver.publish("cascade-indicators", {"symbol": symbol, "timestamp_ns": driver.now_ns, "funding_rate": 0.1})
    driver.advance(2.0)
    for state in states(driver):
        assert ("NEW",) not in state.markets
        assert state.markets.get(("BTC-USD",)).bars.last_price == 45_000.0
        assert state.markets.get(("ETH-USD",)).gauges[0][0] == 0.1
    (told,) = refused(driver, "cascade-indicators")
    assert b"symbol must be one of at most 2000 symbols, was 'NEW'" in told["__streams.errors.message"]


def test_a_step_takes_as_many_symbols_as_a_journal_partition_and_goes_on_after_a_flood():
    now = 1_700_000_000_000_000_000
    fold = MarketFold(0, 1, DecisionParams, lambda: now)

    def ticks(first, count):
        many = [{"symbol": f"X{n}", "price": 1.0, "timestamp_ns": now} for n in range(first, first + count)]
        return fold.fold(Stored(first, None, orjson.dumps({"ticks": many})))

    assert ticks(0, capacity.SYMBOLS_MAX - 1) == []
    (letter,) = ticks(capacity.SYMBOLS_MAX - 1, 2)
    headers = dict(letter.headers)
    assert headers["himari.error.code"] == b"out_of_range"
    assert b"at most 2000 symbols in a step, was 'X2000'" in headers["__streams.errors.message"]
    assert ticks(capacity.SYMBOLS_MAX - 1, 1) == []
    assert ticks(0, 1) == []
    assert len(fold.symbols) == capacity.SYMBOLS_MAX
    (step,) = fold.flush()
    assert len(step.value) < 9 << 20


def test_a_record_of_a_checkpoint_takes_little_more_memory_than_its_bytes():
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [encode(NOTHING) for _ in range(1_000)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / len(kept) < len(kept[0]) + 100


KINDS = ("portfolio", "strategy", "symbol")


def answers(driver, orders):
    """Give (scope, state) orders in turn; return what each was answered, the same on every partition."""
    before = len(driver.read("alerts"))
    for number, (scope, state) in enumerate(orders):
        order = control(driver.now_ns, "trading_state", {"scope": scope, "state": state}, f"c-{before}-{number}")
        driver.publish("control", order, key=b"trading_state")
    driver.run()
    told = [orjson.loads(record.value) for record in driver.read("alerts")]
    found = {}
    for alert in told:
        found.setdefault(alert["subject"], []).append(alert["result"])
    said = [found[f"c-{before}-{number}"] for number in range(len(orders))]
    assert all(len(each) == driver.partitions and len(set(each)) == 1 for each in said)
    return [each[0] for each in said]


def full(kind):
    """Fill one kind of scope."""
    driver = priced(Driver())
    many = [(f"{kind}:X{number}", "HALTED") for number in range(capacity.SCOPES_MAX)]
    assert set(answers(driver, many)) == {"applied"}
    return driver


@pytest.mark.parametrize("kind", KINDS)
def test_another_scope_of_a_kind_is_one_too_many_and_the_others_have_room_of_their_own(kind):
    driver = full(kind)
    refusal = (
        f"rejected: scope must be one of at most 1000 {kind} scopes that are halted or reducing, "
        f"was '{kind}:one-more', a new one"
    )
    assert answers(driver, [(f"{kind}:one-more", "HALTED"), (f"{kind}:one-more", "REDUCING")]) == [refusal] * 2
    others = [(f"{other}:one-more", "HALTED") for other in KINDS if other != kind]
    assert answers(driver, others) == ["applied", "applied"]


@pytest.mark.parametrize("kind", KINDS)
def test_beside_as_many_scopes_as_there_may_be_all_is_halted_what_is_ordered_is_changed_and_ended(kind):
    driver = full(kind)
    driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400))
    driver.run()
    assert last(driver, "main")["position_size_usd"] > 0.0
    assert answers(driver, [("all", "REDUCING"), ("all", "HALTED")]) == ["applied", "applied"]
    assert not any(target["notional_usd"] for target in last(driver, "main")["targets"].values())
    named = f"{kind}:X7"
    assert answers(driver, [(named, "REDUCING"), (named, "HALTED"), (named, "ACTIVE")]) == ["applied"] * 3
    assert answers(driver, [(f"{kind}:never-heard-of", "ACTIVE")]) == ["no_op"], "a resume always passes"
    assert answers(driver, [(f"{kind}:one-more", "HALTED")]) == ["applied"], "the room that the resume has made"
    assert answers(driver, [("all", "ACTIVE")]) == ["applied"]


def test_trading_states_stay_bounded_and_fit_their_changelog_and_the_hand_over():
    driver = Driver(partitions=1)
    (state,) = states(driver)
    wide = [f"{kind}:X{number:04}".ljust(len(kind) + 65, "x") for kind in KINDS for number in range(1_100)]
    answers(driver, [(scope, "REDUCING") for scope in [*wide, "all"]])
    (record,) = state.scopes.values()
    assert len(record.scopes) == 3 * capacity.SCOPES_MAX + 1
    at_most = {topic.name: topic.bytes_max for topic in CHANGELOGS}
    assert len(encode(record)) < at_most["states-changelog"] - ROOM
    assert len(encode(record)) < PART_BYTES


def test_what_is_known_of_cells_comes_back_with_the_state():
    driver = priced(Driver())
    for number, action in enumerate(("buy", "hold", "sell")):
        fields = {"strategy_id": f"s-{number % 2}", "symbol": ["BTC-USD", "ETH-USD", "SOL-USD"][number]}
        driver.publish("signals", signal(driver.now_ns, action=action, signal_id=f"{number}", **fields))
    driver.run()
    before = [state.known for state in states(driver)]
    assert {"main": {"s-0": {"BTC-USD": None, "SOL-USD": None}, "s-1": {"ETH-USD": None}}} in before
    driver.checkpoint()
    driver.crash()
    assert [state.known for state in states(driver)] == before


@pytest.mark.parametrize("priced_", [False, True])
def test_an_allocation_at_all_limits_fits_its_topic(priced_):
    driver = Driver(partitions=1)
    names = [f"S{n:05}".ljust(64, "x") for n in range(capacity.SYMBOLS_MAX)]
    if priced_:
        ticks = [{"symbol": name, "price": 1.23456789, "timestamp_ns": driver.now_ns} for name in names]
        driver.publish("prices", {"ticks": ticks})
        driver.advance(2.0)
    held = dict.fromkeys(names, 1.23456789012345)
    driver.publish("positions", {"portfolio_id": "main", "timestamp_ns": driver.now_ns, "quantities": held})
    driver.publish("signals", signal(driver.now_ns, symbol=names[0], regime="ranging"))
    driver.run()
    sizes = [len(record.value) for record in driver.read("allocations")]
    assert len(sizes) == 2
    at_most = {topic.name: topic.bytes_max for topic in (*TOPICS, *CHANGELOGS)}
    assert max(sizes) < at_most["allocations"] - ROOM, sizes
    assert isinstance(states(driver)[0], State)
