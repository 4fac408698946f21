"""`audit whatif` against an oracle: the same script, played to a cluster that had the other settings from the start."""

import asyncio
from itertools import pairwise

import orjson
import pytest
from html_pages import checked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import TRUSTING, Driver, control, play, priced, scripts, signal

from engines.parameters import DecisionParams, tree_hash
from schemas.errors import VerificationMismatch
from streams.evidence import text_report
from streams.evidence.page import differences
from streams.evidence.time_buckets import MOST, Sums
from streams.evidence.whatif import BIGGEST, Changed, SymbolChange, WhatIfDifference, whatif
from streams.journal import entries as journal

DEFAULT = TRUSTING


def other(**given_):
    """Return settings with some sections changed: risk_management={"max_position_pct": 0.05}."""
    tree = DEFAULT.model_dump()
    for section, values in given_.items():
        tree[section] |= values
    return DecisionParams.model_validate(tree)


def inside(section, **values):
    """Return a section of position_sizing with some values changed."""
    return {section: getattr(DEFAULT.position_sizing, section).model_dump() | values}


SMALLER = other(risk_management={"max_position_pct": 0.05})
OTHERS = st.sampled_from(
    [
        SMALLER,
        other(risk_management={"max_strategy_allocation": 0.1, "max_drawdown_pct": 0.2}),
        other(position_sizing={"risk_score_weight": 1.0}, sentiment={"weight": 0.5}),
        other(risk_management={"allow_short": False}, validation_criteria={"min_position_usd": 5_000.0}),
        other(portfolio={"initial_value_usd": 70_000.0}),
    ]
)


async def stream(records):
    for record in records:
        yield record


def entries(driver):
    return driver.cluster.log(journal.TOPIC, 0).read(0)


def found(driver, params, **asked):
    return asyncio.run(whatif(0, stream(entries(driver)), params, **asked))


def played(script, params=DEFAULT):
    driver = priced(Driver(params, partitions=1))
    play(driver, script)
    return driver


def cents(usd):
    return round(usd * 100)


def oracle(before, after):
    """Return what differs between two clusters' allocations: looked at, changed, and sums by portfolio and symbol."""
    decided = {}
    for side, driver in enumerate((before, after)):
        for fields in driver.allocations():
            decided.setdefault((fields["journal"]["offset"], fields["portfolio_id"]), {})[side] = fields["allocations"]
    stands, changed, sums = ({}, {}), 0, {}
    for _, portfolio in (places := sorted(decided)):
        stands[0].setdefault(portfolio, {})
        stands[1].setdefault(portfolio, {})
    for place in places:
        portfolio = place[1]
        for side, allocations in decided[place].items():
            stands[side][portfolio] = {symbol: cents(usd) for symbol, usd in allocations.items()}
        one, two = stands[0][portfolio], stands[1][portfolio]
        deltas = {symbol: two.get(symbol, 0) - one.get(symbol, 0) for symbol in {*one, *two}}
        deltas = {symbol: delta for symbol, delta in deltas.items() if delta}
        changed += bool(deltas)
        for symbol, delta in deltas.items():
            n, a, c = sums.get((portfolio, symbol), (0, 0, 0))
            sums[portfolio, symbol] = (n + 1, a + abs(delta), c + delta)
    return len(decided), changed, sums


# -- the sums --------------------------------------------------------------------------------------------------------
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(scripts, OTHERS)
def test_the_sums_are_those_of_a_cluster_that_had_the_other_settings_from_the_start(script, params):
    driver = played(script)
    difference = found(driver, params)
    looked_at, changed, sums = oracle(driver, played(script, params))
    assert (difference.decisions, difference.changed, difference.by_symbol) == (looked_at, changed, sums)
    told = difference.as_dict()
    total = sum(absolute for _, absolute, _ in sums.values())
    assert told["absolute_change_cents"] == total
    assert sum(row["absolute_change_cents"] for row in told["by_rule"]) == total
    assert sum(span["change_cents"] for span in told["over_time"]) == total
    assert all(row["rule"] and row["instead"] for row in told["by_rule"])
    sizes = [each["absolute_change_cents"] for each in told["biggest"]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == min(BIGGEST, changed)
    assert orjson.loads(orjson.dumps(told)) == told
    checked(differences(told))
    assert f"{changed} of {looked_at} decisions change" in next(text_report.differences(told))


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(scripts)
def test_the_settings_that_were_in_force_change_nothing(script):
    difference = found(played(script), DEFAULT)
    assert (difference.changed, difference.cents, difference.by_rule, difference.biggest) == (0, 0, {}, [])
    assert difference.only_before == difference.only_after == difference.refused == 0


def day():
    """Return a driver whose settings were made smaller between two equal signals for two portfolios."""
    driver = priced(Driver(partitions=1))
    driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400))
    driver.advance(1.0)
    payload = {"base_hash": tree_hash(DEFAULT), "hash": tree_hash(SMALLER), "tree": SMALLER.model_dump()}
    driver.publish("control", control(driver.now_ns, "settings", payload))
    driver.advance(1.0)
    driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, portfolio_id="alpha"))
    driver.advance(1.0)
    return driver


DAY = day()


def test_orders_of_settings_are_passed_over():
    """By hand: 15 % of 100,000 times .9 of the risk score, against 5 % times .9; the order cut to 99 % of that."""
    difference = found(DAY, DEFAULT)
    assert difference.by_symbol == {
        ("main", "BTC-USD"): (1, 904_500, 904_500),
        ("alpha", "BTC-USD"): (1, 900_000, 900_000),
    }
    told = difference.as_dict()
    assert (told["decisions"], told["changed"], told["only_journal_settings"]) == (3, 2, 1)
    rules = {(row["rule"], row["instead"]): row["changes"] for row in told["by_rule"]}
    assert rules == {
        ("caps: cell cap", "no decision"): 1,
        ("portfolio: position limit", "portfolio: position limit"): 1,
    }
    (biggest, second) = told["biggest"]
    assert [each["trigger"].split()[0] for each in (biggest, second)] == ["settings", "signal"]
    assert biggest["changes"][0] | {"rule": "", "instead": ""} == {
        "symbol": "BTC-USD",
        "before_cents": 445_500,
        "after_cents": 1_350_000,
        "rule": "",
        "instead": "",
    }
    text = "\n".join(text_report.differences(told))
    assert "2 of 3 decisions change, by 18,045.00 USD in total" in text
    assert "decisions made 1 only under the journal's settings, 0 only under the file's" in text
    drawn = checked(differences(told))
    assert "18,045.00" in drawn.text
    assert sum(element == "polyline" for element, _ in drawn.elements) == 2


def test_what_binds_instead_is_named():
    picky = other(position_sizing=inside("bayesian_kelly", min_edge=0.9))
    told = found(DAY, picky).as_dict()
    assert {row["instead"].split(":")[0] for row in told["by_rule"]} == {"kelly", "no decision"}


def test_one_portfolio_and_a_time_may_be_asked_for():
    whole = found(DAY, DEFAULT)
    alpha = found(DAY, DEFAULT, portfolio="alpha")
    assert list(alpha.by_symbol) == [("alpha", "BTC-USD")]
    assert alpha.decisions == 1
    times = [each.timestamp_ns for each in sorted(whole.biggest, key=lambda each: each.timestamp_ns)]
    late = found(DAY, DEFAULT, since_ns=times[1])
    early = found(DAY, DEFAULT, until_ns=times[1])
    assert (late.changed, early.changed, early.decisions) == (1, 1, 2)
    assert late.biggest[0].timestamp_ns == times[1]


def test_what_only_the_other_settings_refuse_is_counted():
    aliases = other(position_sizing=inside("regime_adjustment", regime_aliases={"choppy": "ranging"}))
    driver = priced(Driver(aliases, partitions=1))
    driver.publish("signals", signal(driver.now_ns, regime="choppy"))
    driver.advance(1.0)
    difference = found(driver, DEFAULT)
    assert (difference.refused, difference.only_before, difference.cents) == (1, 1, 1_350_000)
    assert "1 inputs would be refused" in "\n".join(text_report.differences(difference.as_dict()))


def test_a_log_that_is_no_journal_is_named_by_its_place():
    log = entries(DAY)
    with pytest.raises(VerificationMismatch, match=r"journal 0:1 is missing, next is offset 2"):
        asyncio.run(whatif(0, stream([log[0], *log[2:]]), DEFAULT))
    broken = [log[0], log[1]._replace(value=b"{"), *log[2:]]
    with pytest.raises(VerificationMismatch, match=r"journal 0:1 cannot be folded: StrayRecord: .*JSONDecodeError"):
        asyncio.run(whatif(0, stream(broken), DEFAULT))


def test_partitions_add_up_and_keep_the_ten_biggest():
    total, one = WhatIfDifference("h"), found(DAY, DEFAULT)
    for _ in range(7):
        total.join(one)
    assert (total.changed, total.cents) == (7 * one.changed, 7 * one.cents)
    assert len(total.biggest) == BIGGEST
    assert {rules: n for rules, (n, _) in total.by_rule.items()} == {
        rules: 7 * n for rules, (n, _) in one.by_rule.items()
    }


def test_another_rule_that_leaves_the_same_size_is_no_change():
    """13,500 USD by the position limit of 15 % times .9, or by the largest size of a symbol."""
    driver = priced(Driver(partitions=1))
    driver.publish("signals", signal(driver.now_ns))
    driver.advance(1.0)
    params = other(risk_management={"max_position_pct": 0.2}, validation_criteria={"max_position_usd": 13_500.0})
    difference = found(driver, params)
    assert (difference.decisions, difference.changed, difference.by_rule) == (1, 0, {})


@given(st.lists(st.integers(1, 50), max_size=40))
def test_the_ten_biggest_are_kept_the_earlier_of_equals_first(sizes):
    difference = WhatIfDifference("h")
    for offset, size in enumerate(sizes):
        change = SymbolChange("X", 0, size, "a", "b")
        difference.take(Changed(size, (-offset, 0), f"d-{offset}", "main", offset, "signal s", (change,)))
    kept = [(each["absolute_change_cents"], each["timestamp_ns"]) for each in difference.as_dict()["biggest"]]
    wanted = sorted(((size, offset) for offset, size in enumerate(sizes)), key=lambda each: (-each[0], each[1]))
    assert kept == wanted[:BIGGEST]


# -- sums over time --------------------------------------------------------------------------------------------------
moves = st.lists(
    st.tuples(
        st.integers(0, 10**6), st.sampled_from("abc"), st.integers(0, 10**15), st.integers(0, 9), st.integers(0, 9)
    ),
    min_size=1,
    max_size=60,
).map(sorted)


@given(moves)
def test_spans_are_few_without_gaps_and_exact(given_):
    sums, last = Sums(), {}
    for second, portfolio, change, before, after in given_:
        sums.add(second * 10**9, portfolio, change, before, after)
        last[portfolio] = (before, after)
    spans = list(sums.spans())
    assert len(spans) <= MOST
    assert all(one.end_ns == two.begin_ns for one, two in pairwise(spans))
    assert spans[0].begin_ns <= given_[0][0] * 10**9 < spans[0].end_ns
    assert spans[-1].begin_ns <= given_[-1][0] * 10**9 < spans[-1].end_ns
    for span in spans:
        inside = [change for second, _, change, _, _ in given_ if span.begin_ns <= second * 10**9 < span.end_ns]
        assert span.change_cents == sum(inside)
        stand = {p: (b, a) for second, p, _, b, a in given_ if second * 10**9 < span.end_ns}
        assert span.held_before_cents == sum(before for before, _ in stand.values())
        assert span.held_after_cents == sum(after for _, after in stand.values())


@given(moves)
def test_sums_of_several_partitions_are_those_of_all(given_):
    whole, parts = Sums(), {"a": Sums(), "b": Sums(), "c": Sums()}
    for second, portfolio, *rest in given_:
        whole.add(second * 10**9, portfolio, *rest)
        parts[portfolio].add(second * 10**9, portfolio, *rest)
    for order in ("abc", "cba"):
        total = Sums()
        for portfolio in order:
            total.join(parts[portfolio])
        assert list(total.spans()) == list(whole.spans())
