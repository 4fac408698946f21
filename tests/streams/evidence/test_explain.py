"""`audit explain`: what is shown of a decision is what the journal holds, and nothing tampered with passes."""

import asyncio

import orjson
import pytest
from html_pages import Page, checked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import Driver, control, play, priced, scripts, signal, tick

from engines.parameters import tree_hash
from schemas.errors import NotFound
from streams.evidence import charts, html, text_report
from streams.evidence import decision_id as named
from streams.evidence.charts import SeriesLine, WaterfallBar
from streams.evidence.decision_id import parse
from streams.evidence.explain import account, again, agrees, copies
from streams.evidence.page import page
from streams.journal import entries as journal
from streams.processing.memory_cluster import Stored

HOSTILE = '</title><script>alert(1)</script><img src=x onerror="alert(2)">\'"&'


async def stream(records):
    for record in records:
        yield record


def explained(decision_id, entries, published):
    """Return the account of a decision."""

    async def work():
        name = parse(decision_id)
        found = await again(name, stream(entries))
        known = await copies(name, found.published and found.published.sequence, stream(published))
        return account(name, found, known)

    return asyncio.run(work())


def day():
    """Return journal and allocations of a short day on one partition: all that can lead to a decision."""
    driver = priced(Driver(partitions=1))
    now = driver.now_ns
    driver.publish("signals", signal(now, signal_id="s-0", sentiment_score=0.9, valid_for_s=86_400))
    driver.advance(1.0)
    driver.publish("prices", tick(driver.now_ns, "BTC-USD", 44_000.0), key=b"BTC-USD")
    driver.advance(2.0)
    outcome = {"signal_id": "s-0", "strategy_id": "momentum", "symbol": "BTC-USD", "portfolio_id": "main"}
    driver.publish("outcomes", {**outcome, "side": 1, "realized_return": 0.02, "timestamp_ns": driver.now_ns})
    driver.advance(1.0)
    readings = {"symbol": "BTC-USD", "funding_rate": 0.0001, "timestamp_ns": driver.now_ns}
    driver.publish("cascade-indicators", readings)
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": "symbol:ETH-USD", "state": "HALTED"}))
    driver.advance(1.0)
    worth = {"portfolio_id": "main", "value_usd": 90_000.0}
    driver.publish("control", control(driver.now_ns, "portfolio_value", worth, "c-2"))
    driver.advance(1.0)
    for strategy, symbol in (("carry", "ETH-USD"), ("carry", "BTC-USD")):
        given_ = {"strategy_id": strategy, "symbol": symbol, "signal_id": f"{strategy}-{symbol}"}
        driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, **given_))
        driver.advance(1.0)
    entries = driver.cluster.log(journal.TOPIC, 0).read(0)
    return entries, driver.cluster.log("allocations", 0).read(0)


ENTRIES, PUBLISHED = day()
LAST = orjson.loads(PUBLISHED[-1].value)
TOLD = explained(LAST["decision_id"], ENTRIES, PUBLISHED)


# -- inputs ------------------------------------------------------------------------------------------------------------
def sources():
    """Return (topic, offset) → journal offset, read out of the journal's own bytes."""
    found = {}
    for entry in ENTRIES:
        fields = orjson.loads(entry.value)
        if fields["source"] is not None:
            found[fields["source"]["topic"], fields["source"]["offset"]] = entry.offset
    return found


def test_every_input_is_told_with_the_entry_and_the_record_that_it_came_from():
    inputs, known = TOLD["decision"]["inputs"], sources()
    places = {
        (each["strategy_id"], each["symbol"]): (each["signal_id"], each["entry"]["journal_offset"])
        for each in inputs["forecasts"]
    }
    assert places == {
        ("momentum", "BTC-USD"): ("s-0", known["signals", 0]),
        ("carry", "ETH-USD"): ("carry-ETH-USD", known["signals", 1]),
        ("carry", "BTC-USD"): ("carry-BTC-USD", known["signals", 2]),
    }
    (bitcoin, ether) = inputs["prices"]
    steps = [entry.offset for entry in ENTRIES if orjson.loads(entry.value)["kind"] == "step"]
    assert (bitcoin["price"], bitcoin["entry"]["journal_offset"]) == (44_000.0, steps[1])
    assert (ether["price"], ether["entry"]["journal_offset"]) == (2_280.0, steps[0])
    (reading,) = inputs["readings"]
    assert (reading["reading"], reading["value"]) == ("funding_rate_8h", 0.0001)
    assert reading["entry"]["source"] == {"topic": "cascade-indicators", "epoch": 0, "partition": 0, "offset": 0}
    (halt,) = inputs["trading_states"]
    assert (halt["scope"], halt["state"], halt["order"]["by"]) == ("symbol:ETH-USD", "HALTED", "tests")
    assert halt["entry"]["journal_offset"] == known["control", 0]
    assert (inputs["equity"]["value_usd"], inputs["equity"]["peak_usd"]) == (90_000.0, 100_000.0)
    assert inputs["equity"]["entry"]["journal_offset"] == known["control", 1]
    assert inputs["settings"]["entry"]["kind"] == "genesis"
    (cell,) = inputs["outcomes"]["cells"]
    assert (inputs["outcomes"]["learnt"], cell["learnt"]) == (1, 1)
    assert cell["last"]["journal_offset"] == known["outcomes", 0]
    assert TOLD["decision"]["trigger"]["entry"]["journal_offset"] == LAST["journal"]["offset"]


def test_weights_are_told_with_the_entry_that_moved_them_not_the_last_that_touched_their_record():
    driver = priced(Driver(partitions=1))
    for number, strategy in enumerate(("momentum", "carry", "carry")):
        given_ = {"strategy_id": strategy, "signal_id": f"s-{number}"}
        driver.publish("signals", signal(driver.now_ns, valid_for_s=86_400, **given_))
        driver.advance(1.0)
    entries = driver.cluster.log(journal.TOPIC, 0).read(0)
    published = driver.cluster.log("allocations", 0).read(0)
    places = [orjson.loads(record.value)["journal"]["offset"] for record in published]
    told = explained(orjson.loads(published[-1].value)["decision_id"], entries, published)
    weights = told["decision"]["inputs"]["strategy_weights"]
    assert (weights["weights"], weights["entry"]["journal_offset"]) == ({"carry": 0.5, "momentum": 0.5}, places[1])


def test_settings_are_told_with_the_order_that_brought_them():
    driver = priced(Driver(partitions=1))
    params = driver.params.model_copy(
        update={"risk_management": driver.params.risk_management.model_copy(update={"max_position_pct": 0.05})}
    )
    payload = {"base_hash": tree_hash(driver.params), "hash": tree_hash(params), "tree": params.model_dump()}
    driver.publish("control", control(driver.now_ns, "settings", payload, "smaller"))
    driver.advance(1.0)
    driver.publish("signals", signal(driver.now_ns))
    driver.advance(1.0)
    (published,) = driver.cluster.log("allocations", 0).read(0)
    entries = driver.cluster.log(journal.TOPIC, 0).read(0)
    told = explained(orjson.loads(published.value)["decision_id"], entries, [published])
    found = told["decision"]["inputs"]["settings"]
    assert (found["hash"], found["order"]["control_id"]) == (tree_hash(params), "smaller")
    assert found["entry"]["source"]["topic"] == "control"
    assert told["decision"]["limits"]["position"] == {"ratio": 0.05, "cents": 500_000}


# -- stages ------------------------------------------------------------------------------------------------------------
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(scripts)
def test_every_decision_of_any_day_is_explained_with_steps_that_add_up_to_what_was_published(script):
    driver = priced(Driver(partitions=1))
    play(driver, script)
    entries = driver.cluster.log(journal.TOPIC, 0).read(0)
    published = driver.cluster.log("allocations", 0).read(0)
    for record in published[-3:]:
        fields = orjson.loads(record.value)
        told = explained(fields["decision_id"], entries, published)
        assert told["verification"]["status"] == "equal"
        cells = told["decision"]["cells"]
        sizes = [{"cents": c["target_cents"], "strategy_id": c["strategy_id"], "symbol": c["symbol"]} for c in cells]
        assert [size for size in sizes if size["cents"]] == fields["cells"]
        for cell in cells:
            steps = cell["steps"]
            assert sum(step["after_cents"] - step["before_cents"] for step in steps) == cell["target_cents"]
            assert [step["after_cents"] for step in steps[:-1]] == [step["before_cents"] for step in steps[1:]]
            if fields["trigger"]["kind"] == "signal" and [cell["strategy_id"], cell["symbol"]] == [
                fields["strategy_id"],
                fields["symbol"],
            ]:
                shown = [{name: step[name] for name in fields["waterfall"][0]} for step in steps]
                assert shown == fields["waterfall"]
        for place, step in enumerate(fields["portfolio_waterfall"]):
            assert sum(abs(cell["steps"][place]["after_cents"]) for cell in cells) == step["gross_cents"]
        assert orjson.loads(orjson.dumps(told)) == told
        text = "\n".join(text_report.lines(told))
        assert fields["decision_id"] in text
        checked(page(told))


def test_lines_for_people_show_stage_reason_limit_and_place():
    text = "\n".join(text_report.lines(TOLD))
    assert f"{LAST['decision_id']} verified: recomputed from the journal, all bytes identical" in text
    assert "price BTC-USD                      44000" in text
    assert f"signal @{LAST['journal']['offset']} (signals·0·0·2)" in text
    assert "HALTED by tests: a test (c-1)" in text
    assert "limits: position 13,500.00 (0.15 of value)" in text
    assert "carry/ETH-USD, HALTED: held 0.00, target 0.00" in text
    assert "kelly                   0.00             0.00  halted" in text


# -- what is wrong is named --------------------------------------------------------------------------------------------
def changed(records, offset, before, after):
    found = [*records]
    assert before in found[offset].value
    found[offset] = found[offset]._replace(value=found[offset].value.replace(before, after))
    return found


def offset_of(kind):
    return next(entry.offset for entry in ENTRIES if orjson.loads(entry.value)["kind"] == kind)


@pytest.mark.parametrize(
    ("kind", "before", "after", "finding"),
    [
        ("signal", b'\\"confidence\\":0.8', b'\\"confidence\\":0.7', "published"),
        ("step", b"43500.0", b"43500.1", "inputs_hash"),
        ("tick", b'"headers":[]', b'"headers": []', "inputs_hash"),
        ("outcome", b'"kind":"outcome"', b'"kind":"outcme"', f"journal 0:{offset_of('outcome')} cannot be folded"),
        ("cascade", b"{", b"", f"journal 0:{offset_of('cascade')} cannot be folded: StrayRecord: journal partition"),
        ("genesis", b"DRIVER22", b"DRIVER23", "the journal is DRIVER23, not DRIVER22"),
    ],
)
def test_a_tampered_journal_is_a_difference_that_is_named(kind, before, after, finding):
    told = explained(LAST["decision_id"], changed(ENTRIES, offset_of(kind), before, after), PUBLISHED)
    assert (told["verification"]["status"], agrees(told["verification"])) == ("different", False)
    assert finding in told["verification"]["finding"]
    assert "DIFFERS from what the journal gives" in "\n".join(text_report.lines(told))
    checked(page(told))


def test_a_dropped_and_a_swapped_entry_are_named_by_their_place():
    middle = len(ENTRIES) // 2
    told = explained(LAST["decision_id"], [*ENTRIES[:middle], *ENTRIES[middle + 1 :]], PUBLISHED)
    assert f"journal 0:{middle} is missing, next is offset {middle + 1}" in told["verification"]["finding"]
    one, other = ENTRIES[middle], ENTRIES[middle + 1]
    swapped = [*ENTRIES]
    swapped[middle], swapped[middle + 1] = one._replace(value=other.value), other._replace(value=one.value)
    assert explained(LAST["decision_id"], swapped, PUBLISHED)["verification"]["status"] == "different"
    told = explained(LAST["decision_id"], ENTRIES[:-2], PUBLISHED)
    assert "ends at offset" in told["verification"]["finding"]


@given(st.data())
def test_any_changed_byte_of_what_was_published_is_found(data):
    value = bytearray(PUBLISHED[-1].value)
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    forged = [*PUBLISHED[:-1], PUBLISHED[-1]._replace(value=bytes(value))]
    verification = explained(LAST["decision_id"], ENTRIES, forged)["verification"]
    assert verification["status"] in {"different", "pending"}, "pending: nothing in the record names the decision"
    if orjson.dumps(LAST["decision_id"]) in value:
        assert verification["status"] == "different"
        assert verification["finding"]


def test_a_changed_size_is_named_by_field_with_both_values():
    forged = changed(PUBLISHED, len(PUBLISHED) - 1, b'"portfolio_value":90000.0', b'"portfolio_value":90000.5')
    verification = explained(LAST["decision_id"], ENTRIES, forged)["verification"]
    assert verification["finding"] == "portfolio_value: published 90000.5, computed 90000.0"


def test_a_copy_with_other_bytes_is_found_behind_the_right_one_under_whatever_id():
    other = LAST["decision_id"].encode().replace(b"main", b"mian")
    copy = PUBLISHED[-1].value.replace(LAST["decision_id"].encode(), other)
    verification = explained(LAST["decision_id"], ENTRIES, [*PUBLISHED, Stored(9, None, copy, ())])["verification"]
    assert (verification["status"], verification["copies"]) == ("different", 2)
    assert verification["finding"].startswith("decision_id: published")


def test_a_repeat_of_equal_bytes_is_well():
    verification = explained(LAST["decision_id"], ENTRIES, [*PUBLISHED, PUBLISHED[-1]])["verification"]
    assert (verification["status"], verification["copies"], len(verification["published_sha256"])) == ("equal", 2, 1)


def test_the_last_one_that_is_not_out_yet_is_pending_an_earlier_one_is_missing():
    assert explained(LAST["decision_id"], ENTRIES, PUBLISHED[:-1])["verification"]["status"] == "pending"
    first = orjson.loads(PUBLISHED[0].value)["decision_id"]
    verification = explained(first, ENTRIES, PUBLISHED[1:])["verification"]
    assert (verification["status"], agrees(verification)) == ("missing", False)


@pytest.mark.parametrize(
    "decision_id",
    ["", "main", "DRIVER22-0-1", "DRIVER22-0-1-main", "DRIVER22-0-999-main", "AAAAAAAA-0-1-main", "DRIVER22-00-1-main"],
)
def test_a_decision_that_nobody_knows_is_not_found(decision_id):
    with pytest.raises(NotFound, match=r"not found|must be"):
        explained(decision_id, ENTRIES, PUBLISHED)


@pytest.mark.parametrize("text", ["DRIVER22-00-1-main", "DRIVER22-0-01-main", "driver2-0-1-main", "DRIVER22-0-1-", "x"])
def test_what_no_decision_can_be_called_is_refused_before_anything_is_read(text):
    with pytest.raises(NotFound, match="must be JOURNAL-PARTITION-OFFSET-PORTFOLIO"):
        parse(text)


@pytest.mark.parametrize("portfolio", ["a-b-0-1", "main", "x:/._-", "-"])
def test_a_name_comes_back_as_it_was_whatever_the_portfolio_is_called(portfolio):
    name = named.DecisionName("ABCDEFG2", 11, 123_456, portfolio)
    assert parse(str(name)) == name


# -- the page ----------------------------------------------------------------------------------------------------------
def test_the_page_draws_a_bar_for_each_stage_of_each_cell_and_says_all_the_lines_say():
    found = checked(page(TOLD))
    cells = TOLD["decision"]["cells"]
    stages = sum(len(cell["steps"]) for cell in cells) + len(TOLD["decision"]["portfolio"])
    assert sum(element == "rect" for element, _ in found.elements) == stages
    for text in (LAST["decision_id"], "signals·0·0·2", "HALTED by tests: a test (c-1)", "13,500.00", "halted"):
        assert text in found.text
    widths = [float(attributes["width"]) for element, attributes in found.elements if element == "rect"]
    assert all(width > 0 for width in widths)


def hostile(value):
    """Return an account with every text in it replaced, but for those that are of our own vocabulary."""
    if isinstance(value, dict):
        return {name: value[name] if name == "status" else hostile(value[name]) for name in value}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_no_text_of_an_account_can_break_out_of_the_page():
    told, targets = hostile(TOLD), TOLD["decision"]["targets"]
    told["verification"]["finding"] = HOSTILE
    told["decision"]["targets"] = dict.fromkeys([HOSTILE], targets["BTC-USD"])
    found = checked(page(told))
    assert found.text.count("<script>alert(1)</script>") > 30
    policy = dict(found.elements[3][1])
    assert (policy["http-equiv"], policy["content"].startswith("default-src 'none';")) == (
        "Content-Security-Policy",
        True,
    )


@given(st.text(), st.text())
def test_elements_escape_children_and_attributes(text, value):
    found = Page(html.tag("p", text.replace("\r", ""), title=value))
    assert found.text == text.replace("\r", "")
    assert found.elements == [("p", {"title": value})]


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=14))
def test_a_waterfall_stays_on_its_canvas_and_its_widths_are_in_proportion(sizes):
    before, bars = 0, []
    for size in sizes:
        bars.append(WaterfallBar("stage", before, size, ""))
        before = size
    rects = [attributes for element, attributes in Page(charts.waterfall(bars, "any")).elements if element == "rect"]
    span = max(0, *sizes) - min(0, *sizes)
    for bar, rect in zip(bars, rects, strict=True):
        start, width = float(rect["x"]), float(rect["width"])
        assert charts.LEFT - 0.01 <= start <= start + width <= charts.WIDTH - charts.RIGHT + 2.01
        share = abs(bar.after_cents - bar.before_cents) / (span or 1)
        assert width == pytest.approx(max(2.0, share * (charts.WIDTH - charts.LEFT - charts.RIGHT)), abs=0.011)


def test_a_waterfall_shows_zero_wherever_its_sizes_are():
    drawn = Page(charts.waterfall([WaterfallBar("a", 300, 200, "")], "any")).elements
    (axis,) = [attributes for element, attributes in drawn if element == "line"]
    assert float(axis["x1"]) == charts.LEFT


def test_sums_over_time_are_drawn_from_zero_up():
    drawn = Page(charts.over_time(["a", "b"], [100, 50], [SeriesLine("gross", "a", [0, 200])], "sums"))
    rects = [attributes for element, attributes in drawn.elements if element == "rect"]
    assert [float(rect["height"]) for rect in rects] == [charts.HEIGHT / 2, charts.HEIGHT / 4]
    (line,) = [attributes for element, attributes in drawn.elements if element == "polyline"]
    assert [float(point.split(",")[1]) for point in line["points"].split()] == [
        charts.TOP + charts.HEIGHT,
        charts.TOP,
    ]


def test_money_is_shown_exactly():
    assert [text_report.usd(cents) for cents in (0, 5, -5, 100, -123_456_789, 10**20)] == [
        "0.00",
        "0.05",
        "-0.05",
        "1.00",
        "-1,234,567.89",
        "1,000,000,000,000,000,000.00",
    ]
