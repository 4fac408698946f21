"""Ingest: a record becomes an entry, as it came, or goes whole to its dead letters; its neighbour is not lost."""

import base64
from typing import get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import START_NS, Driver, control, priced, signal

from schemas import wire
from schemas.entry import Entry
from schemas.vocabulary import ErrorCode
from streams.journal import entries as journal
from streams.journal.entries import SourcePlace
from streams.processing.memory_cluster import Stored
from streams.processing.partitioner import partition_of
from streams.stages.ingest import AHEAD_NS, INTAKES, ingest

NOW = START_NS
PARTITIONS = 3
GOOD = {
    "signals": signal(NOW, portfolio_id="alpha"),
    "outcomes": {
        "portfolio_id": "alpha",
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "signal_id": "s-1",
        "side": 1,
        "realized_return": 0.01,
        "timestamp_ns": NOW,
    },
    "positions": {"portfolio_id": "alpha", "timestamp_ns": NOW, "quantities": {"BTC-USD": 1.5}},
    "cascade-indicators": {"timestamp_ns": NOW, "funding_rate": 0.001},
    "control": control(NOW, "trading_state", {"scope": "all", "state": "HALTED"}),
}


def take(topic, value, key=None, headers=(), now_ns=NOW, offset=7):
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return ingest(SourcePlace(topic, 2, 1, offset), Stored(offset, key, raw, headers), now_ns, PARTITIONS)


def test_there_is_a_good_message_of_every_topic():
    assert GOOD.keys() == INTAKES.keys()


@pytest.mark.parametrize("topic", GOOD)
def test_an_entry_holds_the_record_as_it_came(topic):
    raw = b" " + orjson.dumps({**GOOD[topic], "unknown": {"kept": [1, 2]}}) + b"\n"
    headers = (("trace", b"\x00\xff"), ("empty", b""))
    send = take(topic, raw, b"\xfe key", headers)[0]
    assert send.topic == "journal"
    entry = wire.decode(Entry, send.value, place="journal")
    assert entry.kind == INTAKES[topic].kind
    assert entry.value.encode() == raw
    assert base64.b64decode(entry.key) == b"\xfe key"
    assert [(name, base64.b64decode(value)) for name, value in entry.headers] == list(headers)
    assert entry.source.model_dump() == {"topic": topic, "epoch": 2, "partition": 1, "offset": 7}
    assert (entry.event_time_ns, entry.journaled_at_ns) == (NOW, NOW)


@pytest.mark.parametrize("topic", ["signals", "outcomes", "positions"])
def test_what_is_a_portfolios_goes_to_its_partition(topic):
    (send,) = take(topic, GOOD[topic])
    assert (send.partition, send.key) == (partition_of(b"alpha", PARTITIONS), b"alpha")


@pytest.mark.parametrize("topic", ["cascade-indicators", "control"])
def test_what_portfolios_share_goes_everywhere(topic):
    sends = take(topic, GOOD[topic])
    assert [send.partition for send in sends] == list(range(PARTITIONS))
    assert len({send.value for send in sends}) == 1


def test_a_portfolios_value_goes_to_its_partition_alone():
    body = control(NOW, "portfolio_value", {"portfolio_id": "alpha", "value_usd": 5.0})
    (send,) = take("control", body)
    assert send.partition == partition_of(b"alpha", PARTITIONS)


def test_a_signal_without_a_portfolio_is_of_main():
    body = {name: value for name, value in GOOD["signals"].items() if name != "portfolio_id"}
    (send,) = take("signals", body)
    assert (send.partition, send.key) == (partition_of(b"main", PARTITIONS), b"main")


BAD = {
    "empty": (b"", "empty", ""),
    "not UTF-8": (b"\xff\xfe", "not_utf8", ""),
    "not JSON": (b"buy", "not_json", ""),
    "not an object": (b"[1]", "not_an_object", ""),
    "not finite": (orjson.dumps(GOOD["signals"]).replace(b"0.8", b"1e999"), "not_finite", None),
    "NaN": (orjson.dumps(GOOD["signals"]).replace(b"0.8", b"NaN"), None, None),
    "twice": (orjson.dumps(GOOD["signals"])[:-1] + b',"action":"sell"}', "duplicate_key", "action"),
    "out of range": ({**GOOD["signals"], "confidence": 1.5}, "out_of_range", "confidence"),
    "a string": ({**GOOD["signals"], "confidence": "0.5"}, "wrong_type", "confidence"),
    "a bool": ({**GOOD["signals"], "confidence": True}, "wrong_type", "confidence"),
    "missing": ({k: v for k, v in GOOD["signals"].items() if k != "symbol"}, "missing", "symbol"),
    "unknown": ({**GOOD["signals"], "action": "hodl"}, "unknown_value", "action"),
    "contrary": ({**GOOD["signals"], "expected_return": -0.01}, "contrary_sign", "expected_return"),
    "seconds": ({**GOOD["signals"], "timestamp_ns": NOW // 10**9}, "timestamp_unit", "timestamp_ns"),
    "in future": ({**GOOD["signals"], "timestamp_ns": NOW + AHEAD_NS + 1}, "in_future", "timestamp_ns"),
    "too large": (b'{"x":"' + b"x" * (1 << 20) + b'"}', "too_large", ""),
    "too deep": (b'{"a":' * 9 + b"1" + b"}" * 9, "too_deep", None),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_goes_whole_to_its_dead_letters(name):
    value, code, field = BAD[name]
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    (send,) = take("signals", raw, b"key", (("trace", b"1"), ("trace", b"2")))
    assert (send.topic, send.key, send.value, send.partition) == ("signals.dlq", b"key", raw, None)
    assert tuple(send.headers[:2]) == (("trace", b"1"), ("trace", b"2")), "its own headers come first"
    told = {header: text.decode() for header, text in send.headers[2:]}
    assert told["__streams.errors.exception"] == "InvalidSignalException"
    place = [told[f"__streams.errors.{part}"] for part in ("topic", "partition", "offset")]
    assert place == ["signals", "1", "7"]
    assert told["__streams.errors.message"].startswith("signals")
    assert told["himari.error.code"] in get_args(ErrorCode)
    assert code is None or told["himari.error.code"] == code
    assert field is None or told["himari.error.field"] == field


def test_positions_are_taken_for_a_week():
    week_ns = 7 * 86_400 * 10**9
    assert take("positions", GOOD["positions"] | {"timestamp_ns": NOW - week_ns})[0].topic == "journal"
    (letter,) = take("positions", GOOD["positions"] | {"timestamp_ns": NOW - week_ns - 1})
    headers = dict(letter.headers)
    assert (letter.topic, headers["himari.error.code"]) == ("positions.dlq", b"too_old")
    assert headers["himari.error.field"] == b"timestamp_ns"
    assert take("signals", GOOD["signals"] | {"timestamp_ns": NOW - 2 * week_ns})[0].topic == "journal"


def test_five_seconds_ahead_of_the_clock_is_still_taken():
    assert take("signals", {**GOOD["signals"], "timestamp_ns": NOW + AHEAD_NS})[0].topic == "journal"


@pytest.mark.parametrize("topic", GOOD)
@given(
    raw=st.one_of(st.binary(max_size=80), st.dictionaries(st.text(max_size=9), st.integers(-9, 9)).map(orjson.dumps))
)
def test_any_bytes_are_answered_by_one_dead_letter(topic, raw):
    (send,) = take(topic, raw)
    assert (send.topic, send.value) == (f"{topic}.dlq", raw)


def test_a_tombstone_is_a_dead_letter():
    (send,) = ingest(SourcePlace("signals", 0, 0, 0), Stored(0, b"key", None), NOW, PARTITIONS)
    assert (send.topic, send.key, send.value) == ("signals.dlq", b"key", None)


@pytest.mark.parametrize("bad", [b"\xff", b"{}", b'{"a":1e999}'])
def test_the_good_neighbours_of_a_bad_record_are_kept(bad):
    driver = priced(Driver())
    for number, value in enumerate((signal(NOW), bad, signal(NOW))):
        driver.publish("signals", {**value, "signal_id": f"s-{number}"} if isinstance(value, dict) else value)
    driver.run()
    assert [each["trigger"]["id"] for each in driver.allocations()] == ["s-0", "s-2"]
    (letter,) = driver.read("signals.dlq")
    assert letter.value == bad


@pytest.mark.parametrize(
    ("named", "field", "text"),
    [
        ({"signal_id": "s-9"}, "signal_id", "outcomes: signal_id s-9: cell alpha/momentum/BTC-USD has made no claim"),
        ({"decision_id": "x"}, "decision_id", "outcomes: decision_id x: cell alpha/momentum/BTC-USD has made no claim"),
    ],
)
def test_an_outcome_that_settles_nothing_is_named_by_the_id_that_was_sent(named, field, text):
    driver = priced(Driver())
    fields = {name: value for name, value in GOOD["outcomes"].items() if name != "signal_id"}
    driver.publish("outcomes", fields | named)
    driver.run()
    (letter,) = driver.read("outcomes.dlq")
    headers = dict(letter.headers)
    assert headers["himari.error.field"] == field.encode()
    assert headers["__streams.errors.message"] == text.encode()


def test_an_action_in_capitals_is_folded_as_the_action_that_it_is():
    sizes = []
    for word in ("strong_sell", "Strong-Sell"):
        driver = priced(Driver())
        driver.publish("signals", signal(NOW, action=word))
        driver.run()
        sizes.append(driver.allocations()[-1]["allocations"])
    assert sizes[0] == sizes[1]
    assert min(sizes[0].values()) < 0


def test_what_only_sizing_can_judge_comes_back_whole_too():
    """An unknown regime may be an alias: the settings of the journal say so, and ingest does not know them."""
    driver = priced(Driver())
    raw = orjson.dumps(signal(NOW, regime="sideways"))
    driver.cluster.log("signals", 0).append(b"\xfekey", raw, (("trace", b"\xff"),))
    driver.run()
    (letter,) = driver.read("signals.dlq")
    assert (letter.key, letter.value) == (b"\xfekey", raw)
    assert letter.headers[0] == ("trace", b"\xff")
    assert dict(letter.headers)["himari.error.code"] == b"unknown_value"
    assert dict(letter.headers)["__streams.errors.offset"] == b"0"


def test_what_was_ingested_twice_counts_once():
    driver = priced(Driver())
    driver.publish("signals", signal(NOW, signal_id="s-1"))
    driver.publish("control", control(NOW, "trading_state", {"scope": "all", "state": "ACTIVE"}))
    driver.publish("outcomes", {**GOOD["outcomes"], "portfolio_id": "main"})
    driver.run()
    outputs = ("allocations", "alerts", "outcomes.dlq")
    before = {topic: driver.read(topic) for topic in outputs}
    entries = len(driver.read("journal"))
    driver.committed = dict.fromkeys(driver.committed, 0)
    driver.crash()
    driver.run()
    assert len(driver.read("journal")) == entries + 4, "ingest wrote all of it again"
    again = {topic: driver.read(topic) for topic in outputs}
    assert again["allocations"] == before["allocations"]
    assert {record.value for record in again["alerts"]} == {record.value for record in before["alerts"]}
    driver.checkpoint()
    driver.committed = dict.fromkeys(driver.committed, 0)
    driver.crash()
    driver.run()
    assert {topic: driver.read(topic) for topic in outputs} == again, "and sizing dropped it"


def test_an_entry_is_read_as_it_was_written():
    (send,) = take("signals", GOOD["signals"], b"key", (("a", b"b"),))
    entry = journal.read(9, send.value)
    assert (entry.offset, entry.kind, entry.topic, entry.epoch) == (9, "signal", "signals", 2)
    assert (entry.partition, entry.source_offset, entry.journaled_at_ns) == (1, 7, NOW)
    assert entry.body == GOOD["signals"]
    assert entry.value == send.value
