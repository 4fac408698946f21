"""The wire: whatever comes in, only an InvalidMessage comes out, and what is sent comes back."""

import json
import math
import pickle
from typing import get_args

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.cascade import CascadeIndicators
from schemas.control import Control, RlMode
from schemas.entry import Entry, Tick
from schemas.errors import ConfigurationException, InvalidMessage, InvalidSignalException, UnwritableMessage
from schemas.outcome import TradeOutcome
from schemas.positions import Positions
from schemas.price import PlainTick, PriceTick
from schemas.registry import MESSAGES
from schemas.signal import TacticalSignal
from schemas.vocabulary import ErrorCode
from schemas.wire import RecordLimits, decode, decode_ours, decode_prices, encode, validate

models = st.sampled_from(list(MESSAGES.values()))
ids = st.from_regex(r"\A[A-Za-z0-9._:/-]{1,64}\Z").filter(lambda name: name != "-")
times = st.integers(10**18, 41 * 10**17)
units = st.floats(0, 1)


def optional(strategy):
    return st.none() | strategy


signals = st.builds(
    lambda sign, **fields: TacticalSignal(**fields | {"expected_return": sign(fields)}),
    sign=st.sampled_from(
        [
            lambda _: None,
            lambda _: 0.01,
            lambda fields: -0.01 if "sell" in fields["action"] else 0.0,
        ]
    ),
    signal_id=optional(ids),
    portfolio_id=ids,
    strategy_id=ids,
    symbol=ids,
    action=st.sampled_from(["strong_buy", "buy", "hold", "sell", "strong_sell"]),
    confidence=units,
    risk_score=units,
    regime=st.from_regex(r"\A[A-Za-z][A-Za-z _-]{0,63}\Z"),
    timestamp_ns=times,
    predicted_volatility=optional(st.floats(1e-6, 10)),
    horizon_s=st.floats(0.001, 1e8),
    sentiment_score=optional(units),
    sentiment_timestamp_ns=st.none(),
)
readings = st.builds(
    CascadeIndicators,
    symbol=ids,
    timestamp_ns=times,
    funding_rate=st.floats(-0.25, 0.25),
    oi_change_pct=optional(st.floats(-1, 100)),
    volume_ratio=optional(st.floats(0, 1e6)),
)
outcomes = st.builds(
    TradeOutcome,
    strategy_id=ids,
    symbol=ids,
    signal_id=ids,
    side=st.sampled_from([1, -1, "buy", "sell", "long", "short"]),
    realized_return=st.floats(-1, 100),
    timestamp_ns=times,
)
positions = st.builds(
    Positions,
    portfolio_id=ids,
    timestamp_ns=times,
    quantities=st.dictionaries(ids, st.floats(-1e18, 1e18), max_size=5),
)
orders = st.builds(
    Control,
    control_id=ids,
    kind=st.just("portfolio_value"),
    payload=st.builds(dict, portfolio_id=ids, value_usd=st.floats(0.01, 1e15)),
    reason=st.text(max_size=20).map("why {}".format),
    by=st.text(max_size=20).map("who {}".format),
    timestamp_ns=times,
)
entries = st.builds(
    Entry,
    kind=st.just("signal"),
    event_time_ns=times,
    journaled_at_ns=times,
    value=st.text(max_size=50),
    headers=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
)
messages = signals | readings | outcomes | positions | orders | entries

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["ticks", "symbol", "payload", "kind"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def refusal(read):
    """Return the InvalidMessage that reading raises, or None."""
    try:
        read()
    except InvalidMessage as error:
        return error
    return None


@given(models, st.binary(max_size=60))
@example(TacticalSignal, b"{" * 2000)
@example(TacticalSignal, b'"\\')
@example(TacticalSignal, b'{"a":"\\"')
def test_random_bytes_raise_nothing_but_invalid_message(model, raw):
    error = refusal(lambda: decode(model, raw, place="there"))
    assert error is not None or model in (Tick, RlMode)


@given(models, trees)
def test_random_json_raises_nothing_but_invalid_message(model, tree):
    raw = json.dumps(tree).encode()
    for read in (lambda: decode(model, raw, place="there"), lambda: decode_prices(raw, place="there")):
        error = refusal(read)
        assert error is None or (error.code in get_args(ErrorCode) and str(error).startswith("there: "))


@given(messages, st.sampled_from(["null", '"7"', "-1", "1e999", "NaN", "[]", "{}", "true", "1e30"]), st.data())
def test_a_good_message_with_one_bad_field_is_refused_for_that_field(message, literal, data):
    tree = orjson.loads(encode(message))
    field = data.draw(st.sampled_from(sorted(tree)))
    raw = encode(tree | {field: "@@"}).replace(b'"@@"', literal.encode())
    error = refusal(lambda: decode(type(message), raw, place="there"))
    elsewhere = {"action": "expected_return", "funding_rate": "funding_rate", "signal_id": "decision_id"}
    assert error is None or error.field.split(".")[0] in ("", field, "payload", elsewhere.get(field))


@given(messages)
def test_what_is_sent_comes_back(message):
    raw = encode(message)
    assert decode(type(message), raw, place="there") == message
    assert decode_ours(type(message), raw, place="there") == message
    assert encode(decode(type(message), raw, place="there")) == raw


def doubled(text):
    """Say whether any object of a JSON text has a key twice: the slow and obvious way."""
    found = []
    json.loads(text, object_pairs_hook=lambda pairs: found.append(len({key for key, _ in pairs}) < len(pairs)))
    return any(found)


def depth(text):
    """Say how deep a JSON text is, doubled keys and all: the slow and obvious way."""

    def below(tree):
        return 1 + max(map(below, tree), default=0) if isinstance(tree, list) else 0

    return below(json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs]))


WORDS = ["a", "b", ":", "]", "[", "}{", '":', '"', "\\", "é", ""]
words = st.sampled_from(WORDS)


@st.composite
def texts(draw, levels=3):
    """JSON texts that try to hide doubled keys and depth: colons and brackets in strings, spaces, escapes."""
    kind = draw(st.sampled_from(["word", "array", "object", "nest"])) if levels else "word"
    space = draw(st.sampled_from(["", " "]))
    if kind == "word":
        return json.dumps(draw(words), ensure_ascii=draw(st.booleans()))
    if kind == "nest":
        deep = draw(st.integers(1, 8))
        return "[" * deep + json.dumps(draw(words)) + "]" * deep
    parts = draw(st.lists(texts(levels - 1), max_size=4))
    if kind == "array":
        return "[" + ",".join(parts) + "]"
    keys = [draw(st.sampled_from(["a", "a", "b", "\\u0061", ":", "]"])) for _ in parts]
    return "{" + ",".join(f'"{key}"{space}:{part}' for key, part in zip(keys, parts, strict=True)) + "}"


@given(texts())
@example('["]",' * 7 + "[1]" + ',"["]' * 7)
@example('{"a":1,"a" :2}')
@example('{"a":1,"a":"\\u003a"}')
@example('["\\"]\\"",' * 7 + "[1]" + ',"\\"[\\""]' * 7)
def test_doubled_keys_and_depth_are_found_as_the_slow_way_finds_them(text):
    record = f'{{"note":{text}}}'
    error = refusal(lambda: decode(TacticalSignal, record.encode(), place="there", limits=RecordLimits(depth_max=6)))
    deep = depth(record) > 6
    assert (error.code == "too_deep") == deep
    assert (error.code == "duplicate_key") == (doubled(record) and not deep)


@given(
    st.fixed_dictionaries(
        {
            "symbol": st.sampled_from(["BTCUSDT", "", "B T", 5]),
            "price": st.sampled_from([1.0, 2, 0, -1.0, 1e16, "1", None, True]),
            "timestamp_ns": st.sampled_from([10**18, 10**9, 1.0]),
        },
        optional={
            "low": st.sampled_from([None, 0.5, 1.5, 0, "1"]),
            "high": st.sampled_from([None, 0.5, 1.5, 1e16]),
            "volume": st.sampled_from([None, 0, 5.5, -1]),
            "other": st.just(1),
        },
    )
)
def test_a_plain_tick_is_good_where_the_message_is(tree):
    raw = json.dumps(tree).encode()
    error = refusal(lambda: validate(PriceTick, tree, place="there"))
    if error is None:
        assert decode_prices(raw, place="there") == [PriceTick.model_validate(tree).model_dump(exclude_unset=True)]
    else:
        again = refusal(lambda: decode_prices(raw, place="there"))
        assert (again.code, again.field) == (error.code, error.field)


def test_a_plain_tick_has_the_fields_of_the_message():
    assert list(PlainTick.__annotations__) == list(PriceTick.model_fields)
    assert PlainTick.__required_keys__ == {
        name for name, field in PriceTick.model_fields.items() if field.is_required()
    }


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_that_is_not_finite_is_written(bad):
    with pytest.raises(UnwritableMessage, match=r"a\.b\[1\] must be finite"):
        encode({"a": {"b": [1.0, bad]}, "c": None})


def test_what_json_has_no_type_for_is_not_written():
    with pytest.raises(UnwritableMessage, match="cannot be written"):
        encode({"a": object()})
    with pytest.raises(UnwritableMessage, match="cannot be written"):
        encode({"a": "\ud800"})


def test_bytes_have_sorted_keys_and_leave_out_what_a_message_does_not_say():
    assert encode({"b": None, "a": 1}) == b'{"a":1,"b":null}'
    signal = TacticalSignal(
        strategy_id="m", symbol="B", action="buy", confidence=1, risk_score=0, regime="crisis", timestamp_ns=10**18
    )
    assert encode(signal) == (
        b'{"action":"buy","confidence":1.0,"horizon_s":3600.0,"portfolio_id":"main","regime":"crisis",'
        b'"risk_score":0.0,"strategy_id":"m","symbol":"B","timestamp_ns":1000000000000000000}'
    )


def test_errors_survive_being_sent_to_another_process():
    error = InvalidSignalException("missing", "symbol", "signals[0]@1: symbol must be given")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.field, str(again)) == (type(error), error.code, error.field, str(error))
    trouble = ConfigurationException("a.yaml", "kafka", "must be a section", 3)
    assert str(pickle.loads(pickle.dumps(trouble))) == str(trouble) == "a.yaml, line 3: kafka: must be a section"
