"""The panels of the page against hand examples, and against the folded states of a driver."""

import orjson
import pytest
from worlds import TRUSTING, Driver, control, last, priced, signal, tick, with_

from engines.pipeline import cache
from engines.pipeline.caps import Limits
from streams.page.attention import attention
from streams.page.decisions import decisions, detail
from streams.page.learning_panels import policy, strategies
from streams.page.market_panels import correlations, markets
from streams.page.model import PageModel
from streams.page.openapi import EMPTY, document
from streams.page.operation_panels import orders, pipeline, verdict
from streams.page.part import observe
from streams.page.positions import view
from streams.page.sections import SECTIONS
from streams.reports.portfolio import view as portfolio_view
from streams.stages.sizing import SizingFold

OTHER = "http://other:6066"


def states_of(driver):
    folds = [fold for fold, _ in driver.processors.values() if isinstance(fold, SizingFold)]
    return [fold.state for fold in folds]


def scene_of(driver, states=None, **given):
    """Return the scene of a page that has read all that a driver published; `states`: those of its worker."""
    model = PageModel()
    for topic, take in (
        ("allocations", model.take_allocation),
        ("alerts", model.take_alert),
        ("control", model.take_order),
    ):
        for partition in range(driver.partitions):
            for record in driver.cluster.log(topic, partition).read(0):
                take(*((record.value, partition, record.offset) if topic == "allocations" else (record.value,)))
    here = states_of(driver) if states is None else states
    part = observe(here, list(model.portfolios), []) if here else {}
    limits = {name: Limits(**each) for name, each in part.get("limits", {}).items()}
    return EMPTY._replace(
        model=model, now_ms=driver.now_ns // 1_000_000, part=part, partitions=driver.partitions, limits=limits, **given
    )


def traded(**given):
    driver = priced(Driver(**given))
    driver.publish("signals", signal(driver.now_ns))
    driver.publish("signals", signal(driver.now_ns, symbol="ETH-USD", action="sell", strategy_id="carry"))
    driver.publish("signals", signal(driver.now_ns, portfolio_id="alpha", symbol="SOL-USD"))
    driver.advance(1.0)
    return driver


def report(driver):
    applied = {"as_of_sequence": last(driver, "alpha")["sequence"], "quantities": {"SOL-USD": 10.0}}
    driver.publish("positions", {"portfolio_id": "alpha", "timestamp_ns": driver.now_ns, **applied})


# -- targets and budgets ---------------------------------------------------------------------------------------------
def test_every_target_on_the_page_is_that_of_the_newest_allocation():
    driver = traded()
    shown = view(scene_of(driver))
    rows = {(row["portfolio_id"], row["symbol"]): row for row in shown["rows"]}
    assert {name for name, _ in rows} == {"main", "alpha"}
    for portfolio in ("main", "alpha"):
        newest = last(driver, portfolio)
        assert {symbol for name, symbol in rows if name == portfolio} == set(newest["targets"])
        for symbol, target in newest["targets"].items():
            row = rows[portfolio, symbol]
            assert (row["target_usd"], row["quantity"], row["weight_ratio"]) == (
                target["notional_usd"],
                target["quantity"],
                target["weight"],
            )


def test_holdings_are_assumed_from_the_decision_before_and_known_once_positions_are_reported():
    driver = traded()
    (row,) = view(scene_of(driver), "alpha")["rows"]
    assert (row["held_basis"], row["held_usd"], row["to_trade_usd"]) == ("assumed", 0.0, row["target_usd"])
    report(driver)
    driver.advance(1.0)
    (row,) = view(scene_of(driver), "alpha")["rows"]
    assert (row["held_basis"], row["held_quantity"], row["held_usd"]) == ("known", 10.0, 980.0)
    assert row["to_trade_usd"] == row["target_usd"] - 980.0


def test_reported_positions_are_unknown_where_the_worker_is_another():
    driver = traded()
    report(driver)
    driver.advance(1.0)
    driver.publish("signals", signal(driver.now_ns, portfolio_id="alpha", symbol="SOL-USD", action="sell"))
    driver.advance(1.0)
    number = last(driver, "alpha")["journal"]["partition"]
    shown = view(scene_of(driver, [], owners={number: OTHER}), "alpha")
    assert [(row["held_basis"], row["held_usd"], row["to_trade_usd"]) for row in shown["rows"]] == [
        ("unknown", None, None)
    ]
    assert shown["missing"] == [{"partition": number, "owner": OTHER}]


def test_budgets_are_those_of_the_command_line():
    driver = traded()
    (shown,) = view(scene_of(driver), "main")["portfolios"]
    newest = last(driver)
    state = states_of(driver)[newest["journal"]["partition"]]
    assert shown["budgets"] == portfolio_view(newest, state, driver.now_ns)["budgets"]


def test_budgets_are_unknown_under_settings_that_are_not_known_and_never_the_old_ones():
    driver = traded()
    state = states_of(driver)[0]
    state.use(with_(TRUSTING, ("risk_management.max_position_pct", 0.01)))
    scene = scene_of(driver)._replace(limits={state.settings_hash: cache.limits(state)})
    for shown in view(scene)["portfolios"]:
        assert shown["budgets"] is None
        assert shown["settings_hash"][:12] in shown["budgets_unknown"]


def test_without_an_allocation_there_is_a_command_to_try():
    shown = view(EMPTY)
    assert (shown["rows"], shown["try"]) == ([], "himari publish signals signals.jsonl")


def test_names_in_commands_are_quoted_for_the_shell():
    driver = traded()
    scene = scene_of(driver)
    known = scene.model.portfolios.pop("alpha")
    scene.model.portfolios["$(rm -rf /)"] = known
    (shown,) = (each for each in view(scene)["portfolios"] if each["portfolio_id"] != "main")
    assert shown["commands"]["show"] == "himari portfolio show '$(rm -rf /)'"


# -- decisions -------------------------------------------------------------------------------------------------------
def test_a_decision_in_detail_is_the_allocation_as_published():
    driver = traded()
    newest = last(driver)
    found = scene_of(driver).model.decision(newest["decision_id"])
    shown = detail(found)
    for name in ("waterfall", "portfolio_waterfall", "targets", "bound", "diagnostics", "inputs_hash"):
        assert shown[name] == newest[name]


def test_decisions_are_newest_first():
    shown = decisions(scene_of(traded()))["decisions"]
    times = [each["decided_ms"] for each in shown]
    assert times == sorted(times, reverse=True)


# -- attention -------------------------------------------------------------------------------------------------------
def items(scene, kind=None):
    return [item for item in attention(scene)["items"] if kind in {None, item["kind"]}]


def halted():
    driver = traded()
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": "symbol:BTC-USD", "state": "HALTED"}))
    driver.advance(1.0)
    return driver


@pytest.mark.parametrize("own", [True, False])
def test_a_halt_is_critical_and_says_who_why_and_since_when(own):
    driver = halted()
    scene = scene_of(driver, None if own else [])
    (item,) = items(scene, "HALTED")
    assert (item["severity"], item["subject"], item["text"]) == ("critical", "symbol:BTC-USD", "tests: a test")
    assert item["since_ms"] == (driver.now_ns - 10**9) // 1_000_000
    assert item["command"] == "himari control resume --scope symbol:BTC-USD --reason WHY"


@pytest.mark.parametrize("own", [True, False])
def test_a_resume_ends_it(own):
    driver = halted()
    order = control(driver.now_ns, "trading_state", {"scope": "symbol:BTC-USD", "state": "ACTIVE"}, "c-2")
    driver.publish("control", order)
    driver.advance(1.0)
    assert not items(scene_of(driver, None if own else []), "HALTED")


def test_a_price_that_is_too_old_is_named_if_it_is_targeted():
    driver = traded()
    driver.advance(120.0)
    driver.publish("prices", tick(driver.now_ns, "BTC-USD"), key=b"BTC-USD")
    driver.advance(2.0)
    assert {item["subject"] for item in items(scene_of(driver), "stale price")} == {"ETH-USD", "SOL-USD"}


def test_a_price_that_nobody_needs_may_be_old():
    driver = priced()
    driver.publish("signals", signal(driver.now_ns))
    driver.advance(120.0)
    assert {item["subject"] for item in items(scene_of(driver), "stale price")} == {"BTC-USD"}


def test_of_equal_ones_the_newest_comes_first():
    scene = scene_of(traded())
    for number in (1, 3, 2):
        body = {"alert_id": f"x{number}", "kind": "drift", "subject": f"p{number}", "severity": "warning"}
        at = scene.now_ms * 1_000_000 + number * 1_000_000
        scene.model.take_alert(
            orjson.dumps({**body, "value": 0.5, "threshold": 0.2, "result": None, "timestamp_ns": at})
        )
    assert [item["subject"] for item in items(scene, "drift")] == ["p3", "p2", "p1"]


def test_worst_comes_first():
    driver = halted()
    scene = scene_of(driver)
    for number, severity in enumerate(("info", "warning", "critical")):
        body = {"alert_id": f"x{number}", "kind": "drift", "subject": severity, "severity": severity, "value": 0.5}
        scene.model.take_alert(orjson.dumps({**body, "threshold": 0.2, "result": None, "timestamp_ns": driver.now_ns}))
    found = [item["severity"] for item in items(scene)]
    assert found == sorted(found, key=["critical", "warning", "info"].index)
    assert next(item for item in items(scene) if item["subject"] == "warning")["text"].endswith("0.5, threshold 0.2")


def test_a_broken_chain_is_critical():
    driver = traded()
    scene = scene_of(driver)
    forged = {**last(driver), "sequence": last(driver)["sequence"] + 1, "previous_hash": "forged"}
    scene.model.take_allocation(orjson.dumps(forged), 0, 99)
    (item,) = items(scene, "fork")
    assert (item["severity"], item["subject"]) == ("critical", "main")


def test_a_forecast_that_expired_without_a_decision_is_told():
    driver = traded()
    scene = scene_of(driver)
    assert not items(scene, "expired")
    assert {item["subject"] for item in items(scene._replace(now_ms=scene.now_ms + 10**8), "expired")} == {
        "main",
        "alpha",
    }


# -- markets, strategies, policy ---------------------------------------------------------------------------------------
def test_markets_are_the_workers_and_without_it_those_of_the_last_decisions():
    driver = traded()
    scene = scene_of(driver)
    own, decided = markets(scene), markets(scene._replace(part={}))
    assert (own["source"], decided["source"]) == ("worker", "decisions")
    assert {row["symbol"]: row["price"] for row in own["rows"]}["SOL-USD"] == 98.0
    assert {row["symbol"]: row["price"] for row in decided["rows"]}["SOL-USD"] == 98.0
    assert {row["symbol"] for row in own["rows"]} == {"BTC-USD", "ETH-USD", "SOL-USD"}


def test_correlations_are_those_that_were_sized_with_or_say_where_they_are():
    driver = traded()
    scene = scene_of(driver)
    grid = correlations(scene)["grid"]
    state = states_of(driver)[0]
    assert grid["mean"] == cache.correlations(state).mean
    assert "open the page of one" in correlations(scene._replace(part={}))["missing"]


def test_weights_and_drift_are_those_of_the_newest_allocation_and_posteriors_those_of_the_worker():
    driver = traded()
    claimed = next(each for each in driver.allocations("main") if each["symbol"] == "BTC-USD")
    outcome = {"strategy_id": "momentum", "symbol": "BTC-USD", "side": "long", "realized_return": 0.01}
    driver.publish("outcomes", {**outcome, "timestamp_ns": driver.now_ns, "decision_id": claimed["decision_id"]})
    driver.advance(1.0)
    shown = strategies(scene_of(driver))
    main = {row["strategy_id"]: row["weight"] for row in shown["weights"] if row["portfolio_id"] == "main"}
    assert main == last(driver)["strategy_weights"]
    (cell,) = shown["cells"]
    assert (cell["strategy_id"], cell["symbol"], cell["outcomes"]) == ("momentum", "BTC-USD", 1)
    assert cell["lower"] < cell["calibration"] < cell["upper"]


def test_weights_stay_those_of_the_last_decision_that_weighed_after_one_that_only_scaled():
    driver = traded()
    weighed = last(driver)
    driver.publish("control", control(driver.now_ns, "trading_state", {"scope": "all", "state": "HALTED"}))
    driver.advance(1.0)
    assert last(driver)["strategy_weights"] == {}
    shown = [row for row in strategies(scene_of(driver))["weights"] if row["portfolio_id"] == "main"]
    assert {row["strategy_id"]: row["weight"] for row in shown} == weighed["strategy_weights"]
    assert {row["weighed_ms"] for row in shown} == {weighed["timestamp_ns"] // 1_000_000}
    assert {row["gross_usd"] for row in shown} == {0.0}


def test_no_policy_is_no_row():
    assert policy(scene_of(traded()))["asked"] is False


# -- operations ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"part": {"partitions": {0: {"journal_ms": 1, "settings_hash": "h"}}, "still_s": 0.5}}, "deciding"),
        ({"part": {"partitions": {}, "still_s": 6.0}}, "late"),
        ({"part": {"partitions": {}, "lag": {0: 201, 1: 0}}}, "late"),
        ({"part": {"partitions": {}, "lag": {0: 200}}}, "deciding"),
        ({"not_ready": {"journal[0]": "recovering"}}, "not_ready"),
        ({"not_ready": {"journal[0]": "900 records behind"}}, "late"),
        ({"problem": "the worker's event loop does not answer"}, "not_ready"),
        ({"role": "dashboard"}, "following"),
        ({"role": "dashboard", "feeds": {"allocations": "no such topic"}}, "unread"),
    ],
)
def test_the_verdict_is_one_word(given, word):
    assert verdict(EMPTY._replace(**given))["verdict"] == word


def test_a_partition_that_is_not_here_names_its_owner():
    scene = scene_of(traded(), owners={0: OTHER, 1: OTHER})
    scene = scene._replace(part={**scene.part, "partitions": {0: scene.part["partitions"][0]}})
    assert [row["owner"] for row in pipeline(scene)["partitions"]] == ["here", OTHER]


def test_orders_are_newest_first_with_their_answers():
    shown = orders(scene_of(halted()))
    assert shown["orders"][0]["answers"] == {"0": "applied", "1": "applied"}
    assert shown["in_force"][0]["by"] == "tests"


# -- API -------------------------------------------------------------------------------------------------------------
def test_the_document_names_every_section_and_every_key_that_it_answers_with():
    found = document()
    driver = halted()
    for name, section in SECTIONS.items():
        assert f"/api/v1/{name}" in found["paths"]
        schema = found["components"]["schemas"][name]
        assert sorted(section(scene_of(driver))) == sorted(schema["properties"])


def test_sections_of_an_empty_page_can_be_encoded():
    for section in SECTIONS.values():
        orjson.dumps(section(EMPTY), option=orjson.OPT_NON_STR_KEYS)
