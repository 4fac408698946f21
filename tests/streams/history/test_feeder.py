"""The feeder: history straight to the journal gives what the topics would have given."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PRICES, SYMBOLS, Driver, signal

from engines.parameters import DecisionParams
from streams.driver import START_NS
from streams.history.feed import FeedEvent, event, sort
from streams.history.feeder import LIVE_EPOCH, Feeder
from streams.journal import entries as journal
from streams.processing.memory_cluster import Stored
from streams.stages.ingest import INTAKES
from streams.stages.sizing import SizingFold

SECOND_NS = 1_000_000_000
PARTITIONS = 2


def price(second, symbol="BTC-USD", factor=1.0):
    at_ns = START_NS + int(second * SECOND_NS)
    return event(at_ns, "prices", symbol, {"symbol": symbol, "price": PRICES[symbol] * factor})


def claim(second, symbol="BTC-USD", **given_):
    at_ns = START_NS + int(second * SECOND_NS)
    fields = signal(at_ns, symbol=symbol, signal_id=f"s-{second}-{symbol}", valid_for_s=86_400, **given_)
    return event(at_ns, "signals", symbol, fields)


def feeder():
    return Feeder(PARTITIONS, PARTITIONS, DecisionParams(), START_NS)


def fed(events, *, close=True):
    made = feeder()
    sends = [send for chunk in made.feed(sort(events)) for send in chunk]
    return sends + (made.close() if close else [])


def entries(sends, partition=0):
    return [journal.read(0, send.value) for send in sends if (send.topic, send.partition) == ("journal", partition)]


def folded(driver, sends):
    """Return the allocations that fed entries lead to, on journals that begin as the driver's do."""
    found = []
    for partition in range(PARTITIONS):
        genesis = driver.cluster.log("journal", partition).read(0, 1)[0].value
        values = [send.value for send in sends if (send.topic, send.partition) == ("journal", partition)]
        fold = SizingFold(partition)
        for offset, value in enumerate([genesis, *values]):
            for send in fold.fold(Stored(offset, None, value)):
                found += [orjson.loads(send.value)] if send.topic == "allocations" else []
    return found


def test_the_clock_is_the_event_time():
    made = feeder()
    for _ in made.feed([price(1), price(5), claim(9)]):
        pass
    assert made.clock.now_ns() == START_NS + 9 * SECOND_NS


def test_a_step_is_closed_before_what_comes_a_second_later():
    kinds = [entry.kind for entry in entries(fed([price(0.5), claim(2.0)], close=False), 1)]
    assert kinds == ["step", "signal"]


def test_every_event_is_journaled_at_its_own_time():
    found = entries(fed([price(0.5), claim(2.0), claim(3.5, symbol="ETH-USD")]), 1)
    signals = [entry for entry in found if entry.kind == "signal"]
    assert [entry.journaled_at_ns - START_NS for entry in signals] == [2 * SECOND_NS, int(3.5 * SECOND_NS)]
    assert [entry.source_offset for entry in signals] == [0, 1]
    assert {entry.epoch for entry in signals} == {0}


def test_a_bad_event_is_a_dead_letter_and_the_next_one_counts():
    bad = FeedEvent(START_NS + 2 * SECOND_NS, "signals", b"BTC-USD", b"{}")
    sends = fed([price(0.5), bad, claim(3.0)])
    assert [send.value for send in sends if send.topic == "signals.dlq"] == [b"{}"]
    assert [entry.source_offset for entry in entries(sends, 1) if entry.kind == "signal"] == [1]


def test_the_close_opens_the_live_epoch_of_every_source_on_every_partition():
    made = feeder()
    for _ in made.feed([price(0.5)]):
        pass
    sends = made.close()
    for partition in range(PARTITIONS):
        found = entries(sends, partition)
        assert found[0].kind == "step"
        assert {entry.body["topic"] for entry in found[1:]} == set(INTAKES)
        assert {entry.body["epoch"] for entry in found[1:]} == {LIVE_EPOCH}


def test_after_the_close_live_records_begin_at_offset_0_and_count():
    sends = fed([price(0.5), claim(2.0)])
    driver = Driver(partitions=PARTITIONS)
    live = claim(3.0, strategy_id="live")
    place = journal.SourcePlace("signals", LIVE_EPOCH, 0, 0)
    entry = journal.entry("signal", live.value.decode(), live.time_ns, place=place, event_time_ns=live.time_ns)
    partition = next(send.partition for send in sends if send.key == b"main")
    sends.append(sends[0]._replace(partition=partition, value=entry))
    assert [each["trigger"]["id"] for each in folded(driver, sends)] == ["s-2.0-BTC-USD", "s-3.0-BTC-USD"]


moments = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.sampled_from(("price", "signal")),
        st.sampled_from(SYMBOLS),
        st.floats(0.9, 1.1),
        st.sampled_from(("buy", "hold")),
    ),
    max_size=15,
    unique_by=lambda each: (each[0], each[1], each[2]),
)


@settings(max_examples=40)
@given(moments)
def test_it_leads_to_the_sizes_that_the_topics_lead_to(moments):
    """Live, the clock stands still while records come; so they come at whole seconds, and steps close between them."""
    events = sort(
        price(3 * n, symbol, factor) if what == "price" else claim(3 * n, symbol, action=action)
        for n, what, symbol, factor, action in moments
    )
    driver = Driver(partitions=PARTITIONS)
    for each in events:
        while driver.now_ns < each.time_ns:
            driver.advance(min(3.0, (each.time_ns - driver.now_ns) / SECOND_NS))
        driver.publish(each.topic, each.value, each.key)
        driver.run()
    driver.advance(3.0)
    live = driver.allocations()
    fed_ = folded(driver, fed(events))
    shown = ("trigger", "targets", "waterfall", "sequence", "bound")
    by_time = [{name: each[name] for name in shown} for each in live if each["trigger"]["kind"] == "signal"]
    assert [{name: each[name] for name in shown} for each in fed_ if each["trigger"]["kind"] == "signal"] == by_time


@pytest.mark.parametrize("topic", [*INTAKES, "prices"])
def test_whatever_is_fed_is_answered_by_its_dead_letters_at_the_least(topic):
    (sends,) = feeder().feed([FeedEvent(START_NS, topic, b"x", b"no JSON")])
    assert [(send.topic, send.value) for send in sends] == [(f"{topic}.dlq", b"no JSON")]
