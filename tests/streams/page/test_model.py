"""The model of the page against hand examples and against what a driver publishes."""

import hashlib

import orjson
import pytest
from worlds import control, last, priced, signal

from streams.page.chain import AllocationChain
from streams.page.model import ALERTS_MAX, DECISIONS_MAX, LETTERS_MAX, ORDERS_MAX, PageModel


def allocation(sequence, previous="", portfolio="main", **given):
    fields = {
        "portfolio_id": portfolio,
        "sequence": sequence,
        "previous_hash": previous,
        "decision_id": f"J-0-{sequence}-{portfolio}",
        "timestamp_ns": 1_000_000_000 * sequence,
        "targets": {"BTC-USD": {"notional_usd": 100.0 * sequence, "quantity": 0.5 * sequence, "weight": 0.01}},
        **given,
    }
    return orjson.dumps(fields)


def chained(count, portfolio="main"):
    values = []
    for sequence in range(1, count + 1):
        previous = hashlib.sha256(values[-1]).hexdigest() if values else ""
        values.append(allocation(sequence, previous, portfolio))
    return values


def fed(values):
    model = PageModel()
    for offset, value in enumerate(values):
        model.take_allocation(value, 0, offset)
    return model


# -- chain -----------------------------------------------------------------------------------------------------------
def test_a_chain_whose_links_fit_is_intact():
    chain = AllocationChain()
    assert [chain.take(7, "x", "a"), chain.take(8, "a", "b"), chain.take(9, "b", "c")] == [True, True, True]
    assert (chain.word, chain.since, chain.last) == ("intact", 7, 9)


def test_a_repeat_with_equal_bytes_is_no_news_and_one_with_other_bytes_is_a_fork():
    chain = AllocationChain()
    chain.take(1, "", "a")
    assert not chain.take(1, "", "a")
    assert chain.word == "intact"
    assert not chain.take(1, "", "b")
    assert (chain.word, chain.text) == ("fork", "sequence 1 was published twice with different bytes")


def test_a_wrong_previous_hash_is_a_fork_that_stays():
    chain = AllocationChain()
    for sequence, previous, own in ((1, "", "a"), (2, "other", "b"), (3, "b", "c")):
        chain.take(sequence, previous, own)
    assert (chain.word, chain.since) == ("fork", 2)


def test_a_missing_sequence_is_a_gap_unless_records_were_skipped():
    for skipped, word in ((False, "gap"), (True, "intact")):
        chain = AllocationChain()
        chain.take(1, "", "a")
        chain.take(4, "x", "d", skipped=skipped)
        assert (chain.word, chain.since) == (word, 4)


# -- allocations -----------------------------------------------------------------------------------------------------
def test_the_newest_allocation_of_each_portfolio_is_kept_with_the_targets_before_it():
    model = fed([*chained(3), *chained(1, "alpha")])
    main, alpha = model.portfolios["main"], model.portfolios["alpha"]
    assert main.newest.fields["sequence"] == 3
    assert main.before == {"BTC-USD": {"notional_usd": 200.0, "quantity": 1.0, "weight": 0.01}}
    assert alpha.before == {}, "nothing was held before a first allocation"


def test_what_was_before_the_first_allocation_read_is_unknown():
    model = fed([allocation(7, "x")])
    assert model.portfolios["main"].before is None
    assert model.decisions[0].linked is None


def test_decisions_say_whether_they_follow_the_one_before():
    values = chained(2)
    model = fed([*values, allocation(3, "forged")])
    assert [each.linked for each in model.decisions] == [True, True, False]


def test_the_last_decisions_are_kept_in_order_of_time():
    model = fed([*chained(60), *chained(3, "alpha")])
    assert len(model.decisions) == DECISIONS_MAX
    times = [each.timestamp_ns for each in model.decisions]
    assert times == sorted(times)
    assert times[-1] == 60_000_000_000


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"1", b'{"portfolio_id": "main"}', b'"\xff"', b"null"])
def test_a_record_that_is_no_allocation_is_counted_and_changes_nothing(value):
    model = fed([*chained(2), value])
    assert (model.unreadable, model.portfolios["main"].newest.fields["sequence"]) == (1, 2)


def test_older_records_count_only_for_portfolios_that_were_not_seen():
    model = fed([allocation(9, "x")])
    model.take_older((value, 0, offset) for offset, value in enumerate([*chained(3), *chained(2, "quiet")]))
    assert model.portfolios["main"].newest.fields["sequence"] == 9
    assert model.portfolios["main"].chain.word == "intact"
    assert model.portfolios["quiet"].newest.fields["sequence"] == 2


def test_a_decision_is_found_by_its_id_as_published():
    values = chained(3)
    model = fed(values)
    assert model.decision("J-0-2-main").value == values[1]
    assert model.decision("J-0-9-main") is None


def test_what_a_driver_publishes_is_an_intact_chain_whose_newest_is_the_last_allocation():
    driver = priced()
    for name in ("main", "alpha"):
        for side in ("buy", "sell", "buy"):
            driver.publish("signals", signal(driver.now_ns, portfolio_id=name, action=side))
            driver.advance(1.0)
    model = PageModel()
    for record in driver.read("allocations"):
        model.take_allocation(record.value, 0, record.offset)
    for name in ("main", "alpha"):
        known, newest = model.portfolios[name], last(driver, name)
        assert known.chain.word == "intact"
        assert known.chain.since == 1
        assert {**newest, **known.newest.fields} == newest
        assert model.symbols["BTC-USD"].recommendation == newest["cascade_recommendation"]


# -- alerts, letters, orders -----------------------------------------------------------------------------------------
def alert(number, kind="drift", subject="main", **given):
    fields = {"alert_id": f"a-{number}", "kind": kind, "subject": subject, "severity": "warning", "value": None}
    return orjson.dumps({**fields, "threshold": None, "result": None, "timestamp_ns": number, "journal": None, **given})


def test_an_alert_that_was_sent_twice_counts_once_and_all_collections_are_bounded():
    model = PageModel()
    for number in range(3 * ALERTS_MAX):
        model.take_alert(alert(number))
        model.take_alert(alert(number))
        model.take_letter("signals", 0, number, 0, ())
        model.take_order(
            orjson.dumps(control(number, "trading_state", {"scope": "all", "state": "HALTED"}, f"c{number}"))
        )
    assert [each["timestamp_ns"] for each in model.alerts] == list(range(2 * ALERTS_MAX, 3 * ALERTS_MAX))
    assert (len(model.letters), len(model.orders)) == (LETTERS_MAX, ORDERS_MAX)


def test_a_standing_alert_is_replaced_by_the_next_of_its_subject():
    model = PageModel()
    model.take_alert(alert(1, "breaker", "http://policy", result="open, was closed"))
    model.take_alert(alert(2, "breaker", "http://policy", result="closed, was half_open"))
    assert [each["result"] for each in model.standing.values()] == ["closed, was half_open"]


def test_an_order_and_the_answers_of_its_partitions_are_one_whichever_comes_first():
    model = PageModel()
    answers = [
        alert(n, "control_applied", "c-1", result="applied", journal={"partition": n, "offset": 3}) for n in (0, 1)
    ]
    order = orjson.dumps(control(5, "trading_state", {"scope": "all", "state": "HALTED"}))
    for value in (answers[0],):
        model.take_alert(value)
    model.take_order(order)
    model.take_alert(answers[1])
    (found,) = model.orders.values()
    assert (found["by"], found["reason"], found["answers"]) == ("tests", "a test", {"0": "applied", "1": "applied"})
    assert not model.alerts, "an answer is part of its order"


def test_a_settings_order_shows_what_it_changes_against_the_order_before():
    model = PageModel()
    for number, kelly in ((1, 0.25), (2, 0.2)):
        payload = {"base_hash": "x", "hash": f"h{number}", "tree": {"a": {"kelly": kelly, "same": 1}}}
        model.take_order(orjson.dumps(control(number, "settings", payload, f"s-{number}")))
    first, second = model.orders.values()
    assert first["differences"] is None
    assert second["differences"] == [["a.kelly", "0.25", "0.2"]]
    assert "tree" not in second["what"]


def test_a_dead_letter_is_its_place_and_reason_never_its_content():
    model = PageModel()
    texts = ("InvalidSignalException", "confidence must be finite", "signals", "0", "7", "not_finite", "confidence")
    names = ("exception", "message", "topic", "partition", "offset")
    headers = [(f"__streams.errors.{name}", text.encode()) for name, text in zip(names, texts, strict=False)]
    headers += [("himari.error.code", b"not_finite"), ("himari.error.field", b"confidence")]
    model.take_letter("signals", 1, 3, 99, tuple(headers))
    model.take_letter("signals", 1, 3, 99, tuple(headers))
    (letter,) = model.letters.values()
    assert letter == {
        "topic": "signals",
        "partition": 1,
        "offset": 3,
        "time_ms": 99,
        "code": "not_finite",
        "field": "confidence",
        "message": "confidence must be finite",
        "source": "signals/0/7",
    }
