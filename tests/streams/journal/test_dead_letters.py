"""Dead letters and their way back: as they were, only when they would be taken, and only once."""

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from worlds import SECOND_NS, START_NS, Driver, control, last, priced, signal, tick

from engines.parameters import DecisionParams, tree_hash
from schemas.dead_letter import NAMES
from schemas.errors import InvalidMessage
from streams.cli.terminal import harmless
from streams.journal.dead_letters import (
    REPLAY_OF,
    Letter,
    again,
    headers_in,
    letter,
    line,
    lines,
    replayed,
    summary,
    whole,
)
from streams.journal.entries import SourcePlace
from streams.stages.replay_trial import Trial, TrialVerdict, entries, refused
from streams.stages.sizing import SizingFold

ERROR = InvalidMessage("missing", "confidence", "signals: confidence must be given, was missing")


def dead(value, key=None, headers=(), topic="signals", partition=1):
    made = letter(SourcePlace(topic, 0, partition, 7), key, value, headers, ERROR)
    return Letter(topic, 0, 3, 1_700_000_000_123, made.key, made.value, made.headers)


def letters(driver, topic="signals"):
    logs = [driver.cluster.log(f"{topic}.dlq", partition) for partition in range(driver.partitions)]
    return [
        Letter(topic, partition, record.offset, driver.now_ns // 1_000_000, record.key, record.value, record.headers)
        for partition, log in enumerate(logs)
        for record in log.read(0)
    ]


def states(driver):
    """Fold the journal anew, so that a trial uses up nothing of the driver's."""
    folds = [SizingFold(partition) for partition in range(driver.partitions)]
    for partition, fold in enumerate(folds):
        for record in driver.cluster.log("journal", partition).read(0):
            fold.fold(record)
    return {partition: fold.state for partition, fold in enumerate(folds)}


def verdicts(driver, *found):
    trial = Trial(states(driver))
    made = [entries(each, driver.now_ns, driver.partitions, number) for number, each in enumerate(found)]
    return [trial.verdict(sends) for sends in made]


def send(driver, found):
    offset = driver.cluster.publish(again(found, driver.partitions))
    driver.advance(1.0)
    return offset


# -- the way back ----------------------------------------------------------------------------------------------------
headers = st.lists(
    st.tuples(st.one_of(st.text(max_size=9), st.sampled_from(NAMES)), st.binary(max_size=9)), max_size=12
)


@given(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=30), headers)
@example(None, b"{}", [(name, b"of somebody else") for name in NAMES])
def test_a_replay_is_the_record_as_it_was_and_one_header_more(key, value, own):
    found = dead(value, key, own)
    back = again(found, 4)
    assert (back.topic, back.partition, back.key, back.value) == ("signals", 1, key, value)
    assert list(back.headers) == [*own, (REPLAY_OF, b"signals.dlq/0/3")]


def test_a_partition_that_is_no_more_leaves_it_to_the_key():
    assert again(dead(b"{}", partition=3), 4).partition == 3
    assert again(dead(b"{}", partition=3), 3).partition is None


@pytest.mark.parametrize("topic", ["prices", "signals"])
def test_a_letter_goes_back_once_it_would_be_taken_and_is_sized(topic):
    driver = priced()
    early = driver.now_ns + 60 * SECOND_NS
    message = signal(early, signal_id="early") if topic == "signals" else tick(early, price=50_000.0)
    driver.publish(topic, message, key=b"BTC-USD")
    driver.advance(1.0)
    (found,) = letters(driver, topic)
    assert found.why.code == "in_future"
    (verdict,) = verdicts(driver, found)
    assert verdict.objection.startswith("in_future: ")
    driver.advance(60.0)
    assert verdicts(driver, found) == [TrialVerdict()]
    source = driver.cluster.log(topic, found.why.partition)
    before = source.end
    send(driver, found)
    (record,) = source.read(before)
    assert list(replayed(record.headers)) == [found.place]
    assert orjson.loads(record.value) == message
    assert letters(driver, topic) == [found._replace(timestamp_ms=driver.now_ns // 1_000_000)], "no new one"
    if topic == "signals":
        assert last(driver)["trigger"]["id"] == "early"
    else:
        driver.publish("signals", signal(driver.now_ns))
        driver.advance(2.0)
        assert last(driver)["targets"]["BTC-USD"]["notional_usd"] == pytest.approx(13_500.0, abs=0.02)


def test_the_journal_tells_of_a_replay_for_ever():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns + 9 * SECOND_NS))
    driver.advance(10.0)
    (found,) = letters(driver)
    send(driver, found)
    journaled = [orjson.loads(record.value) for record in driver.read("journal")]
    assert [place for fields in journaled for place in replayed(headers_in(fields))] == [found.place]


def test_a_label_that_nobody_knew_is_taken_once_the_settings_know_it():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, regime="sideways"))
    driver.advance(1.0)
    (found,) = letters(driver)
    (verdict,) = verdicts(driver, found)
    assert verdict.objection.startswith("unknown_value: signals: regime")
    tree = driver.params.model_dump()
    tree["position_sizing"]["regime_adjustment"]["regime_aliases"] = {"sideways": "ranging"}
    wanted = tree_hash(DecisionParams.model_validate(tree))
    payload = {"base_hash": tree_hash(driver.params), "hash": wanted, "tree": tree}
    driver.publish("control", control(driver.now_ns, "settings", payload))
    driver.advance(1.0)
    assert verdicts(driver, found) == [TrialVerdict()]
    send(driver, found)
    assert last(driver)["position_size_usd"] > 0


def outcome(driver, signal_id):
    return {
        "portfolio_id": "main",
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "signal_id": signal_id,
        "side": 1,
        "realized_return": 0.01,
        "timestamp_ns": driver.now_ns,
    }


def test_of_two_outcomes_of_one_claim_only_the_first_would_be_taken():
    driver = priced()
    for _ in range(2):
        driver.publish("outcomes", outcome(driver, "s-1"))
    driver.advance(1.0)
    found = letters(driver, "outcomes")
    assert [each.why.code for each in found] == ["unmatched", "unmatched"]
    assert all(verdict.objection for verdict in verdicts(driver, *found))
    driver.publish("signals", signal(driver.now_ns, signal_id="s-1"))
    driver.advance(1.0)
    first, second = verdicts(driver, *found)
    assert first == TrialVerdict()
    assert second.objection.startswith("unmatched: ")


def test_a_signal_that_a_newer_one_has_overtaken_is_said_to_change_nothing():
    driver = priced()
    for symbol in ("BTC-USD", "ETH-USD"):
        driver.publish("signals", signal(driver.now_ns + 9 * SECOND_NS, symbol=symbol))
    driver.advance(20.0)
    driver.publish("signals", signal(driver.now_ns))
    driver.advance(1.0)
    older, fresh = letters(driver)
    assert b"BTC-USD" in older.value
    assert verdicts(driver, older, fresh) == [TrialVerdict(remark="of no effect: older_signal"), TrialVerdict()]


BAD = {
    "signals": [b"", b"\xff", b"[]", b"{}", b'{"a":1,"a":2}', b'{"confidence": NaN}', b"{" * 20, b"no JSON"],
    "prices": [
        b"{}",
        b'{"ticks": []}',
        b"\xff",
        orjson.dumps({"symbol": "X", "price": -1.0, "timestamp_ns": START_NS}),
    ],
    "outcomes": [b"{}"],
    "positions": [b"[1]"],
    "cascade-indicators": [b"{}"],
    "control": [b"{}", orjson.dumps(control(START_NS, "trading_state", {"scope": "x", "state": "HALTED"}))],
}


@pytest.mark.parametrize(("topic", "value"), [(topic, value) for topic, values in BAD.items() for value in values])
def test_what_no_time_can_mend_is_kept_and_why_is_said(topic, value):
    driver = Driver()
    driver.publish(topic, value)
    driver.advance(3_600.0)
    (found,) = letters(driver, topic)
    (verdict,) = verdicts(driver, found)
    assert verdict.objection == f"{found.why.code}: {found.why.message}"


def test_a_trial_changes_nothing_of_the_worker():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns + 9 * SECOND_NS))
    driver.advance(10.0)
    before = [log.end for topic in ("journal", "allocations") for log in [driver.cluster.log(topic, 0)]]
    tables = {key: dict(value) for key, value in driver.processors["journal", 0][0].state.tables.items()}
    assert verdicts(driver, *letters(driver)) == [TrialVerdict()]
    assert tables == driver.processors["journal", 0][0].state.tables
    assert before == [log.end for topic in ("journal", "allocations") for log in [driver.cluster.log(topic, 0)]]


def test_a_refused_replay_names_both_letters_when_it_is_replayed():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns, regime="sideways"))
    driver.advance(1.0)
    (first,) = letters(driver)
    send(driver, first)
    second = next(each for each in letters(driver) if each.place != first.place)
    assert list(replayed(again(second, 2).headers)) == [first.place, second.place]


# -- shown -----------------------------------------------------------------------------------------------------------
def test_a_letter_is_shown_with_place_time_and_reason():
    found = dead(b'{"strategy_id": "m"}', b"key", [("trace", b"\xff")])
    assert summary(found) == {
        "topic": "signals.dlq",
        "partition": 0,
        "offset": 3,
        "time": "2023-11-14T22:13:20.123000+00:00",
        "code": "missing",
        "field": "confidence",
        "message": "signals: confidence must be given, was missing",
    }
    shown = whole(found)
    assert (shown["key"], shown["value"]) == ("key", '{"strategy_id": "m"}')
    assert shown["source"] == {"topic": "signals", "partition": 1, "offset": 7}
    assert shown["headers"][0] == ["trace", "\\xff"]
    assert orjson.loads(orjson.dumps(shown)) == shown
    assert line(found) == (
        "2023-11-14T22:13:20.123000+00:00 signals.dlq/0/3 missing confidence: "
        "signals: confidence must be given, was missing"
    )
    told = list(lines(found))
    assert ("key: key" in told, "  trace: \\xff" in told, told[-1]) == (True, True, '  {"strategy_id": "m"}')


@pytest.mark.parametrize("value", [None, b"\xff\xfe", b""])
def test_bytes_that_are_no_text_are_shown_all_the_same(value):
    found = dead(value)
    shown = whole(found)
    assert shown["value"] == ("" if value == b"" else None)
    assert list(lines(found))[-1] == {None: "  (none)", b"": "  "}.get(value, "  \\xff\\xfe")


def test_what_a_terminal_would_obey_is_escaped():
    found = dead(b"a\x1b[2J\tb\nvalue:\nc", b"\x07\nheaders:", [("\x1b\n", b"\x9b")])
    shown = list(map(harmless, lines(found)))
    assert shown[-3:] == ["  a\\x1b[2J\\tb", "  value:", "  c"], "the lines of a value are told from ours"
    assert shown[1:4] == ["key: \\x07\\nheaders:", "headers:", "  \\x1b\\n: \\x9b"]
    assert all(each.isprintable() for each in shown)


@pytest.mark.parametrize(("name", "value"), [("partition", b"-1"), ("offset", b"x"), ("partition", b"")])
def test_headers_that_say_what_we_never_would_are_not_believed(name, value):
    good = dead(b"{}")
    assert good.why is not None
    spoiled = tuple((key, value if key.endswith(f".{name}") else text) for key, text in good.headers)
    assert good._replace(headers=spoiled).why is None
    spoiled = tuple((key, b"made_up" if key.endswith(".code") else text) for key, text in good.headers)
    assert summary(good._replace(headers=spoiled))["code"] is None


def test_a_record_that_is_no_letter_of_ours_is_shown_without_a_reason():
    found = Letter("signals", 0, 0, 0, None, b"{}", (("trace", b"1"),))
    assert (summary(found)["code"], whole(found)["source"]) == (None, None)
    assert "no reason given" in line(found)
    assert refused([]) == ""
