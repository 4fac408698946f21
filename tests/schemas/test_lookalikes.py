"""A refused record says what it seems to be, and a number that is not finite is named by its field."""

import json

import pytest

from schemas.errors import InvalidMessage
from schemas.positions import Positions
from schemas.signal import TacticalSignal
from schemas.wire import decode, decode_prices, decode_ticks
from tests.schemas.examples import NOW, SIGNAL, TEXT, TICK, raw, without

CONFLUENT = (42).to_bytes(5, "big")
UTF16 = "it looks like UTF-16: send UTF-8"
DEBEZIUM = {"before": None, "after": SIGNAL, "source": {"connector": "postgresql"}, "op": "c", "ts_ms": NOW // 10**6}
HINTS = {
    "Confluent, JSON": (CONFLUENT + TEXT.encode(), "not_json", "Confluent's wire format with schema id 42: send plain"),
    "Confluent, Avro": (CONFLUENT + b"\x00\x10mom\xff", "not_utf8", "Confluent's wire format with schema id 42"),
    "UTF-16 with a mark": (TEXT.encode("utf-16"), "not_utf8", UTF16),
    "UTF-16, little end first": (TEXT.encode("utf-16-le"), "not_json", UTF16),
    "UTF-16, big end first": (TEXT.encode("utf-16-be"), "not_json", UTF16),
    "a byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), "not_json", "begins with a byte order mark: omit it"),
    "Debezium": (json.dumps(DEBEZIUM).encode(), "missing", "a Debezium envelope: send the content of after"),
    "Debezium with its schema": (
        json.dumps({"schema": {"type": "struct"}, "payload": DEBEZIUM}).encode(),
        "missing",
        "a Debezium envelope",
    ),
    "Connect with a schema": (
        json.dumps({"schema": {"type": "struct"}, "payload": SIGNAL}).encode(),
        "missing",
        "Kafka Connect's JSON with a schema: send the content of payload",
    ),
    "a time by another name": (
        without("timestamp_ns")[:-1] + b', "timestamp": 1735689600000}',
        "missing",
        "timestamp_ns must be given; there is timestamp: send nanoseconds since 1970 as timestamp_ns",
    ),
    "milliseconds": (raw("timestamp_ns", "1735689600000"), "timestamp_unit", "1735689600000 looks like milliseconds"),
}


@pytest.mark.parametrize("kind", HINTS)
def test_the_error_says_what_the_record_seems_to_be(kind):
    value, code, hint = HINTS[kind]
    with pytest.raises(InvalidMessage) as refused:
        decode(TacticalSignal, value, place="signals")
    assert refused.value.code == code
    assert hint in str(refused.value)


def test_the_same_holds_for_prices():
    with pytest.raises(InvalidMessage, match="symbol must be given; it looks like a Debezium envelope"):
        decode_prices(json.dumps(DEBEZIUM | {"after": TICK}).encode(), place="prices")


@pytest.mark.parametrize("value", [b"buy", b"\x00", TEXT[:-5].encode(), without("symbol"), b"\xff\xff\xff\xff\xff\xff"])
def test_what_looks_like_nothing_is_not_guessed_at(value):
    with pytest.raises(InvalidMessage) as refused:
        decode(TacticalSignal, value, place="signals")
    assert "; " not in str(refused.value)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400])
def test_a_number_that_is_not_finite_is_named_by_its_field(literal):
    quantities = {"timestamp_ns": NOW, "portfolio_id": "main", "quantities": {"BTC-USD": 1, "ETH-USD": "@"}}
    value = json.dumps(quantities).replace('"@"', literal).encode()
    with pytest.raises(InvalidMessage) as refused:
        decode(Positions, value, place="positions")
    assert (refused.value.code, refused.value.field) == ("not_finite", "quantities.ETH-USD")
    assert str(refused.value).startswith(f"positions: quantities.ETH-USD must be finite, was '{literal[:20]}")


def test_a_tick_of_many_that_is_not_finite_is_named_by_its_place():
    value = json.dumps({"ticks": [TICK, TICK | {"price": "@"}]}).replace('"@"', "NaN").encode()
    with pytest.raises(InvalidMessage, match=r"ticks\[1\]\.price must be finite, was 'NaN'") as refused:
        decode_prices(value, place="prices")
    assert refused.value.field == "ticks[1].price"


@pytest.mark.parametrize("literal", ["NaN", "-Infinity", "1e400", "9" * 5_000])
@pytest.mark.parametrize("at", ["price", "note", "volume"])
def test_the_good_neighbours_of_a_tick_that_is_not_finite_are_taken(at, literal):
    ticks = [TICK | {"symbol": "A"}, TICK | {at: "@"}, TICK | {"symbol": "C"}, TICK | {at: "@"}, TICK | {"price": -1}]
    found = decode_ticks(json.dumps({"ticks": ticks}).replace('"@"', literal).encode(), place="prices")
    assert [tick["symbol"] for tick in found.ticks] == ["A", "C"]
    assert list(found.numbers) == [0, 2]
    assert [(each.number, each.error.code, each.error.field) for each in found.refused] == [
        (1, "not_finite", f"ticks[1].{at}"),
        (3, "not_finite", f"ticks[3].{at}"),
        (4, "out_of_range", "ticks[4].price"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        '{"ticks":[@,{"price":NaN}],"note":NaN}',
        '{"ticks":[@,{"price":NaN}],"price":1}',
        '{"ticks":[@,{"price":NaN,"price":NaN}]}',
        '{"ticks":[@],"note":{"ticks":[NaN]}}',
        '{"ticks":{"0":@,"1":NaN},"note":1}',
        '[{"ticks":[@,NaN]}]',
    ],
)
def test_a_record_in_which_more_is_wrong_than_ticks_that_are_not_finite_is_refused(wrong):
    with pytest.raises(InvalidMessage):
        decode_ticks(wrong.replace("@", json.dumps(TICK)).encode(), place="prices")


def test_ticks_and_a_price_are_not_taken_together():
    with pytest.raises(InvalidMessage, match="prices: ticks must not stand beside price") as refused:
        decode_prices(json.dumps(TICK | {"ticks": [TICK]}).encode(), place="prices")
    assert (refused.value.code, refused.value.field) == ("inconsistent", "ticks")
