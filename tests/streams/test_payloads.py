"""Every kind of payload through ingest and the fold: taken, or refused by the table's rule; nobody dies."""

import json
import os
from collections import Counter, defaultdict

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from payloads import TAKEN, good, payloads
from worlds import START_NS, Driver, priced, signal

from engines.parameters import DecisionParams
from schemas.dead_letter import headers_of
from schemas.errors import InvalidMessage
from streams.journal.dead_letters import CUT, KEPT_BYTES, LETTER_BYTES_MAX, size_of
from streams.journal.entries import SourcePlace
from streams.journal.topics import ALL, DLQ, ROOM
from streams.processing.memory_cluster import Stored
from streams.stages.ingest import BESIDE_BYTES_MAX, ingest
from streams.stages.market import MarketFold

FUZZ = int(os.environ.get("HIMARI_FUZZ", "500"))
"""Examples of the fuzz; `make fuzz` runs 100,000."""
PARTITIONS = 2
SECOND_NS = 1_000_000_000
TABLE = payloads(START_NS)
AT_MOST = {topic.name: topic.bytes_max for topic in ALL}


def judged(row):
    """Return what ingest, or the market, makes of a row."""
    record = Stored(7, row.key, row.value, row.headers)
    if row.topic == "prices":
        return MarketFold(0, PARTITIONS, DecisionParams, lambda: START_NS).fold(record)
    return ingest(SourcePlace(row.topic, 0, 0, 7), record, START_NS, PARTITIONS)


def told(headers):
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def fits(send):
    return size_of(send.key, send.value, send.headers) <= AT_MOST[send.topic] - ROOM // 2


def ids(row):
    return f"{row.topic}: {row.kind}"


def test_the_table_has_kinds_enough_of_every_topic():
    assert len({(row.topic, row.kind) for row in TABLE}) == len(TABLE) >= 250
    by_topic = Counter(row.topic for row in TABLE)
    assert by_topic.keys() == good(START_NS).keys()
    assert min(by_topic.values()) >= 20
    assert len({row.code for row in TABLE}) >= 15
    assert sum(row.code == TAKEN for row in TABLE) >= 60


@pytest.mark.parametrize("row", TABLE, ids=map(ids, TABLE))
def test_a_payload_is_taken_or_refused_by_the_rule_that_the_table_names(row):
    sends = judged(row)
    assert all(fits(send) for send in sends)
    if row.code == TAKEN or row.folded:
        _is_taken(row, sends)
        return
    (letter,) = sends
    headers = told(letter.headers[len(row.headers) :])
    assert letter.topic == row.topic + DLQ
    assert (letter.key, letter.value) == (row.key, row.value)
    assert letter.headers[: len(row.headers)] == row.headers
    assert headers["himari.error.code"] == row.code
    assert row.field in {None, headers["himari.error.field"]}
    assert headers["__streams.errors.message"].startswith(row.topic)
    assert len(headers["__streams.errors.message"]) < 1_000


def _is_taken(row, sends):
    """A price opens a step, and is journaled when that ends; all else becomes an entry, of one partition or of all."""
    if row.topic != "prices":
        assert {send.topic for send in sends} == {"journal"}
        assert len({send.partition for send in sends}) == len(sends)
        assert len(sends) in {1, PARTITIONS}
        return
    assert sends == []
    fold = MarketFold(0, PARTITIONS, DecisionParams, lambda: START_NS)
    fold.fold(Stored(7, row.key, row.value, row.headers))
    closed = fold.flush()
    assert [(send.topic, send.partition) for send in closed] == [("journal", number) for number in range(PARTITIONS)]
    (body,) = {orjson.dumps(orjson.loads(orjson.loads(send.value)["value"])) for send in closed}
    step, ticks = orjson.loads(body), _ticks(row.value)
    assert step["symbols"] == slow_step(ticks)
    assert (step["step"] + 1) * SECOND_NS - SECOND_NS < ticks[0]["timestamp_ns"] <= (step["step"] + 1) * SECOND_NS


def _ticks(raw):
    message = json.loads(raw)
    return message.get("ticks", [message])


def slow_step(ticks):
    """Return the step of ticks of one second: [open, high, low, close, volume, ticks] of each symbol."""
    by_symbol = defaultdict(list)
    for each in ticks:
        by_symbol[each["symbol"]].append(each)
    return {
        symbol: [
            own[0]["price"],
            max(each["price"] if each.get("high") is None else each["high"] for each in own),
            min(each["price"] if each.get("low") is None else each["low"] for each in own),
            own[-1]["price"],
            sum(each.get("volume") or 0.0 for each in own),
            len(own),
        ]
        for symbol, own in by_symbol.items()
    }


def test_the_fold_outlives_all_of_them_one_after_the_other_and_none_is_lost():
    driver = priced(Driver(partitions=PARTITIONS))
    for row in TABLE:
        log = driver.cluster.log(row.topic, 0)
        log.append(row.key, row.value, row.headers)
        driver.run()
    driver.advance(3.0)
    expected = Counter(row.topic for row in TABLE if row.code != TAKEN)
    for topic, count in expected.items():
        letters = driver.read(topic + DLQ)
        tellings = [told(letter.headers[-7:]) for letter in letters]
        of_records = {each["__streams.errors.offset"]: each["himari.error.code"] for each in tellings}
        assert Counter(of_records.values()) == Counter(
            row.code for row in TABLE if row.topic == topic and row.code != TAKEN
        )
        assert len(of_records) == count
        assert topic == "prices" or len(letters) == count, "of prices, each bad tick of a record is one"
    for topic in ("journal", "allocations", "alerts", *(f"{topic}{DLQ}" for topic in good(0))):
        for record in driver.read(topic):
            assert size_of(record.key, record.value, record.headers) <= AT_MOST[topic] - ROOM // 2
    driver.publish("signals", signal(driver.now_ns, symbol="ETH-USD", signal_id="after-all", regime="ranging"))
    driver.run()
    found = [each for each in driver.allocations("main") if each["trigger"]["id"] == "after-all"]
    assert len(found) == 1
    driver.checkpoint()
    driver.crash()
    driver.advance(2.0)
    assert [each for each in driver.allocations("main") if each["trigger"]["id"] == "after-all"] == found


# -- larger than topics take -----------------------------------------------------------------------------------------
def test_a_record_that_only_compression_brought_in_is_cut_and_says_so():
    huge = b'{"x":"' + b"y" * (50 << 20) + b'"}'
    (letter,) = ingest(
        SourcePlace("signals", 0, 0, 7), Stored(7, b"k" * 10**6, huge, (("h", b"v" * 10**6),)), START_NS, 1
    )
    headers = told(letter.headers)
    assert fits(letter)
    assert (letter.value, letter.key) == (huge[:KEPT_BYTES], b"k" * KEPT_BYTES)
    assert headers[CUT].startswith(f"{len(huge) + 2 * 10**6 + 1} bytes, value {len(huge)} with sha256 ")
    assert headers["himari.error.code"] == "too_large"


@pytest.mark.parametrize("over", [0, 1])
def test_a_letter_is_cut_only_when_it_must_be(over):
    value = b"\xff" * (LETTER_BYTES_MAX + over)
    (letter,) = ingest(SourcePlace("signals", 0, 0, 7), Stored(7, None, value), START_NS, 1)
    assert (letter.value == value) is not bool(over)


@pytest.mark.parametrize(("beside", "code"), [(BESIDE_BYTES_MAX, TAKEN), (BESIDE_BYTES_MAX + 1, "too_large")])
def test_key_and_headers_may_be_as_large_as_a_record(beside, code):
    raw = orjson.dumps(signal(START_NS))
    record = Stored(7, b"k" * (beside - 1_001), raw, (("h", b"v" * 1_000),))
    (send,) = ingest(SourcePlace("signals", 0, 0, 7), record, START_NS, 1)
    assert told(send.headers).get("himari.error.code", TAKEN) == code
    assert fits(send)


def test_the_largest_entry_fits_the_journal():
    """Quotes and backslashes take two bytes each where a value becomes a text of its entry."""
    message = signal(START_NS)
    pad = b'\\"' * ((1 << 20) // 2 - 400)
    raw = orjson.dumps(message)[:-1] + b',"x":"' + pad + b'"}'
    assert len(raw) < 1 << 20
    (send,) = ingest(SourcePlace("signals", 0, 0, 7), Stored(7, b"k" * BESIDE_BYTES_MAX, raw), START_NS, 1)
    assert send.topic == "journal"
    assert fits(send)


# -- fuzz ------------------------------------------------------------------------------------------------------------
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(START_NS - 10**18, START_NS + 10**18),
    st.floats(),
    st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 1e15, 1e18, 1e-18, 5e-324, 1e308, -0.0]),
    st.text(max_size=70),
    st.sampled_from(
        ["", "BTC-USD", "main", "momentum", "-", "buy", "sell", "hold", "crisis", "ACTIVE", "HALTED", "all"]
    ),
)
trees = st.recursive(
    odd, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4)
)


@st.composite
def mutants(draw):
    """Draw a good message with a few of its fields, or of its bytes, changed."""
    topic = draw(st.sampled_from(sorted(good(0))))
    message = dict(good(START_NS)[topic])
    optional = ("horizon_s", "valid_for_s", "sentiment_score", "low", "high", "volume", "equity", "symbol", "holding_s")
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from((*message, *optional)))
        message[name] = draw(trees)
    if draw(st.booleans()) and isinstance(message.get("payload"), dict):
        message["payload"] = {**message["payload"], draw(st.text(max_size=5)): draw(trees)}
    try:
        raw = orjson.dumps(message)
    except (TypeError, ValueError):
        raw = repr(message).encode(errors="surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at, kind = draw(st.integers(0, len(raw))), draw(st.integers(0, 2))
        some = draw(st.binary(max_size=4))
        raw = raw[:at] + some + raw[at + kind * len(some) :]
    return topic, raw


@pytest.fixture(scope="module")
def world():
    driver = priced(Driver(partitions=PARTITIONS))
    driver.given = Counter()
    return driver


def ends(driver, topic):
    return sum(driver.cluster.log(topic, number).end for number in range(driver.cluster.partitions(topic)))


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutants())
def test_no_mutant_kills_ingest_or_the_fold_and_each_is_answered_or_refused(world, mutant):
    """One world takes them all, as a worker would, so that a state that one leaves behind meets the next."""
    topic, raw = mutant
    letters, entries = ends(world, topic + DLQ), ends(world, "journal")
    world.cluster.log(topic, 0).append(None, raw)
    world.run()
    assert ends(world, topic + DLQ) > letters or ends(world, "journal") > entries or _in_a_step(world, raw)


def _in_a_step(world, raw):
    """Return whether a price message is in the open step, or is of a step that is closed."""
    fold = world.processors["prices", 0][0]
    return all(each["symbol"] in fold.symbols or each["timestamp_ns"] <= fold.step * SECOND_NS for each in _ticks(raw))


def test_after_the_fuzz_the_world_still_answers(world):
    world.publish("control", {**good(world.now_ns)["control"], "payload": {"scope": "all", "state": "ACTIVE"}})
    world.publish("signals", signal(world.now_ns, portfolio_id="fresh", signal_id="after-all"))
    world.run()
    found = [each["trigger"] for each in world.allocations("fresh")]
    assert [trigger["id"] for trigger in found if trigger["kind"] == "signal"] == ["after-all"]


# -- the largest and the smallest together ---------------------------------------------------------------------------
LARGE = [1e-18, 1e-9, 1.0, 43_500.0, 1e15]
names = st.sampled_from(["main", "x"])
symbols = st.sampled_from(["A", "B", "C"])
extremes = st.one_of(
    st.fixed_dictionaries({"topic": st.just("prices"), "symbol": symbols, "price": st.sampled_from(LARGE)}),
    st.fixed_dictionaries(
        {
            "topic": st.just("positions"),
            "portfolio_id": names,
            "equity": st.sampled_from([0.01, 1e5, 1e15]),
            "quantities": st.dictionaries(symbols, st.sampled_from([-1e18, 1e18, 1e-18, 5e-324, 1.0])),
        }
    ),
    st.fixed_dictionaries(
        {
            "topic": st.just("outcomes"),
            "portfolio_id": names,
            "strategy_id": st.sampled_from(["S", "T"]),
            "symbol": symbols,
            "signal_id": st.integers(0, 25).map("s{}".format),
            "side": st.sampled_from([1, -1]),
            "realized_return": st.sampled_from([-1, 100, 0.01, 5e-324]),
            "holding_s": st.sampled_from([0, 1, 315_360_000]),
        }
    ),
    st.fixed_dictionaries(
        {
            "topic": st.just("signals"),
            "portfolio_id": names,
            "strategy_id": st.sampled_from(["S", "T"]),
            "symbol": symbols,
            "action": st.sampled_from(["buy", "strong_buy", "hold"]),
            "confidence": st.sampled_from([0, 0.5, 1]),
            "risk_score": st.sampled_from([0, 1]),
            "expected_return": st.sampled_from([0, 5e-324, 1e-3, 0.011, 0.1, 1.0]),
            "predicted_volatility": st.sampled_from([1e-6, 1e-3, 10.0]),
            "horizon_s": st.sampled_from([0.001, 3600, 315_360_000]),
        }
    ),
    st.fixed_dictionaries(
        {
            "topic": st.just("cascade-indicators"),
            "symbol": symbols,
            "funding_rate": st.sampled_from([-0.25, 0.0, 5e-324, 0.25]),
            "funding_interval_hours": st.sampled_from([0.01, 8, 8760]),
            "oi_change_pct": st.sampled_from([-1.0, 100.0, 5e-324]),
        }
    ),
    st.fixed_dictionaries(
        {"topic": st.just("control"), "portfolio_id": names, "value_usd": st.sampled_from([0.01, 1e5, 1e15])}
    ),
)


@settings(max_examples=max(30, FUZZ // 10), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(extremes, min_size=5, max_size=30))
def test_the_largest_and_smallest_that_are_taken_kill_nobody_together(steps):
    driver = Driver(partitions=1)
    for number, step in enumerate(steps):
        fields = {name: value for name, value in step.items() if name != "topic"}
        if step["topic"] == "signals":
            fields = signal(driver.now_ns, signal_id=f"s{number}", **fields)
        elif step["topic"] == "control":
            fields = {**good(driver.now_ns)["control"], "kind": "portfolio_value", "payload": fields}
        driver.publish(step["topic"], {**fields, "timestamp_ns": driver.now_ns})
        driver.advance(1.0)
    assert not [
        record for topic in ("prices", "signals", "positions", "control") for record in driver.read(topic + DLQ)
    ]
    driver.checkpoint()
    driver.crash()
    driver.run()


def test_a_letters_own_headers_are_those_that_are_counted():
    assert len(headers_of(InvalidMessage("empty", "", ""), "signals", 0, 0)) == 7
