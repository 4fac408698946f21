"""Metrics: every family is recorded by what really happens, and says what the allocations say."""

import ast
import asyncio
import inspect
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import question
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from worlds import TRUSTING, Driver, control, play, scripts, signal

import engines
from engines.models import kelly
from engines.models.circuit_breaker import BreakerParams
from engines.parameters import DecisionParams
from engines.pipeline import cell_sizing
from streams.journal import entries as journal
from streams.journal.entries import SourcePlace
from streams.journal.genesis import genesis
from streams.monitoring.families import CODES, FAMILIES, GATES, NAMED, OTHER, PREFIX, REGIMES, markdown
from streams.monitoring.metrics import Metrics
from streams.monitoring.notes import NOTES
from streams.monitoring.policy import PolicyMetrics
from streams.monitoring.samples import Histogram
from streams.policy.adapters import Nobody
from streams.policy.client import Outcome, PolicyClient, no_advice
from streams.processing.clock import ManualClock
from streams.processing.memory_cluster import LocalStore, MemoryCluster, MemoryPorts, Stored
from streams.processing.processor import Processor
from streams.stages.ingest import ingest
from streams.stages.market import MarketFold
from streams.stages.sizing import SizingFold

ROOT = Path(__file__).parents[3]
START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


class Worker:
    """One sizing partition on a processor in memory, told of by a `Metrics`; time is moved by the test."""

    def __init__(self, metrics=None, partition=0, params=None):
        self.clock = ManualClock(START_NS)
        self.metrics = metrics or Metrics(clock=self.clock.now_ns)
        self.partition, self.sources = partition, 0
        self.cluster = MemoryCluster()
        for topic in ("journal", "allocations", "rl-requests", "alerts", "signals.dlq", "outcomes.dlq"):
            self.cluster.create(topic, partition + 1)
        self.log = self.cluster.log("journal", partition)
        self.log.append(None, genesis("METRICS2", partition + 1, params or TRUSTING, START_NS))
        self.processor = self._start(LocalStore())

    def _start(self, store):
        watch = self.metrics.processor("sizing", self.partition)

        def observe(entry, folded, elapsed_ns=20_000):
            watch.observe(entry, folded, elapsed_ns)

        fold = SizingFold(self.partition, observe)
        ports = MemoryPorts(
            self.cluster,
            processor="sizing",
            source="journal",
            partition=self.partition,
            tables=fold.tables,
            store=store,
        )
        processor = Processor(
            fold, ports, partition=self.partition, clock=self.clock.now_ns, contiguous=True, observer=watch
        )
        self.next = asyncio.run(processor.recover())
        return processor

    def settle(self):
        """Let all that stands in the journal be folded, published and acknowledged."""
        records = self.log.read(self.next)
        asyncio.run(self.processor.take(records, lambda: None))
        self.next += len(records)

    def checkpoint(self):
        asyncio.run(self.processor.checkpoint())

    def append(self, kind, body, topic, source=None):
        """Journal one input at the present time."""
        self.sources += 1
        place = SourcePlace(topic, 0, 0, self.sources if source is None else source)
        now_ns = self.clock.now_ns()
        value = orjson.dumps(body).decode()
        self.log.append(None, journal.entry(kind, value, now_ns, event_time_ns=now_ns, place=place))

    def signal(self, **given):
        self.append("signal", signal(self.clock.now_ns(), **given), "signals")
        self.settle()

    def forget(self, scope):
        self.append("control", control(self.clock.now_ns(), "forget", {"scope": scope}), "control")
        self.settle()

    def price(self, price=43_500.0, symbol="BTC-USD", source=0, high=None):
        """Journal a step that ends now."""
        step = self.clock.now_ns() // SECOND_NS - 1
        symbols = {symbol: [price, high or price, price, price, 1.0, 1]}
        body = {"source_partition": source, "step": step, "step_s": 1, "symbols": symbols}
        self.log.append(None, journal.internal("step", body, self.clock.now_ns()))
        self.settle()

    def readings(self, symbol="BTC-USD", **given):
        known = {"symbol": symbol, "timestamp_ns": self.clock.now_ns(), **given}
        self.append("cascade", known, "cascade-indicators")
        self.settle()

    def outcome(self, signal_id, realised, **given):
        body = {
            "strategy_id": "momentum",
            "symbol": "BTC-USD",
            "signal_id": signal_id,
            "side": 1,
            "realized_return": realised,
            "timestamp_ns": self.clock.now_ns(),
            **given,
        }
        self.append("outcome", body, "outcomes")
        self.settle()

    def last(self):
        return orjson.loads(self.cluster.log("allocations", self.partition).read(0)[-1].value)

    def show(self, name, **labels):
        """Return a sample as it stands on the page; None where it does not."""
        return shown(self.metrics, name, **labels)


def shown(metrics, name, **labels):
    return metrics.registry.get_sample_value(PREFIX + name, {key: str(value) for key, value in labels.items()})


def total(metrics, name):
    """Return the sum over all label values."""
    (family,) = [each for each in page(metrics) if each.name == (PREFIX + name).removesuffix("_total")]
    return sum(sample.value for sample in family.samples)


def on_page(family):
    """Return the name that parsers give a family: a counter's without its ending."""
    return family.full_name.removesuffix("_total") if family.kind == "counter" else family.full_name


def page(metrics):
    return list(parse(generate_latest(metrics.registry).decode()))


def priced(**given):
    worker = Worker(**given)
    worker.price()
    return worker


# -- the last signal -------------------------------------------------------------------------------------------------
def test_gauges_of_the_last_signal_say_what_its_allocation_says():
    worker = priced()
    worker.signal(sentiment_score=0.9, regime="crisis")
    found = worker.last()
    made = found["diagnostics"]
    assert worker.show("kelly_fraction") == made["kelly"]["fraction"] > 0
    assert worker.show("kelly_position_size_usd") == found["kelly_position_usd"]
    assert worker.show("bayesian_win_rate") == made["kelly"]["win_rate"] == 0.5
    assert worker.show("bayesian_edge") == made["kelly"]["edge_sd"]
    assert worker.show("conformal_samples") == made["conformal"]["samples"] == 0
    assert worker.show("conformal_scale_factor") == 1.0
    assert worker.show("sentiment_multiplier") == made["sentiment"]["multiplier"] > 1
    assert worker.show("risk_score_multiplier") == pytest.approx(0.9)
    assert worker.show("drawdown_multiplier") == 1.0
    assert worker.show("regime_multiplier", regime="crisis") == 0.2
    assert worker.show("final_position_size_usd") == found["position_size_usd"] > 0
    assert worker.show("allocation_sequence") == found["sequence"] == 1
    assert worker.show("last_decision_timestamp_seconds") == START_NS / 1e9


def test_a_short_shows_negative_sizes():
    worker = priced()
    worker.signal(action="sell", expected_return=-0.01)
    assert worker.show("kelly_position_size_usd") < 0
    assert worker.show("final_position_size_usd") == worker.last()["position_size_usd"] < 0


def test_a_gauge_of_size_outlives_a_signal_that_could_not_be_sized():
    worker = priced()
    worker.signal()
    fraction = worker.show("kelly_fraction")
    worker.signal(symbol="XRP-USD")
    assert worker.show("kelly_fraction") == fraction
    assert worker.show("final_position_size_usd") == 0.0
    assert worker.show("position_reductions_total", reason="no_price") == 1


def test_the_conformal_factor_is_what_the_interval_leaves_of_the_kelly_size():
    worker = priced()
    for number in range(60):
        worker.clock.advance(1.0)
        worker.price()
        worker.signal(signal_id=f"s-{number}")
        wild = 0.08 if number >= 50 else 0.005
        worker.outcome(f"s-{number}", 0.01 + (wild if number % 2 else -wild), holding_s=1)
    worker.signal(signal_id="last")
    found = worker.last()
    assert worker.show("conformal_samples") == 60
    assert worker.show("conformal_scale_factor") < 0.9
    ratio = found["conformal_adjusted_usd"] / found["kelly_position_usd"]
    assert worker.show("conformal_scale_factor") == pytest.approx(ratio, abs=1e-6)


def test_the_current_regime_is_one_hot():
    worker = priced()
    worker.signal()
    assert worker.show("current_regime", regime="ranging") == 1
    worker.signal(regime="crisis", signal_id="c")
    assert {regime: worker.show("current_regime", regime=regime) for regime in REGIMES} == {
        regime: float(regime == "crisis") for regime in REGIMES
    }


def test_a_regime_is_seen_to_be_confirmed_vote_by_vote():
    worker = priced()
    seen = []
    for number in range(3):
        worker.signal(regime="high_volatility", signal_id=f"s-{number}")
        seen.append(worker.show("regime_confirmation_progress", candidate_regime="high_volatility"))
        worker.clock.advance(60.0)
    assert seen == [pytest.approx(1 / 3), pytest.approx(2 / 3), 0.0]
    assert worker.show("regime_transitions_total", from_regime="ranging", to_regime="high_volatility") == 1
    assert total(worker.metrics, "regime_transitions_total") == 1
    assert worker.show("regime_false_flips_total") == 0


def test_a_candidate_that_is_given_up_is_a_false_flip():
    worker = priced()
    for number, regime in enumerate(("trending_up", *["ranging"] * 6)):
        worker.signal(regime=regime, signal_id=f"s-{number}")
        worker.clock.advance(60.0)
    assert worker.show("regime_false_flips_total") == 1
    assert worker.show("regime_confirmation_progress", candidate_regime="trending_up") == 0
    assert total(worker.metrics, "regime_transitions_total") == 0


# -- outcomes --------------------------------------------------------------------------------------------------------
def test_an_outcome_counts_as_win_or_loss_and_its_miss_is_a_residual():
    worker = priced()
    worker.signal(signal_id="a")
    worker.signal(signal_id="b")
    mean = worker.last()["diagnostics"]["kelly"]["calibration"] * 0.8 * 0.01
    worker.outcome("a", 0.03)
    worker.outcome("b", -0.05)
    assert worker.show("bayesian_trades_total", outcome="win") == 1
    assert worker.show("bayesian_trades_total", outcome="loss") == 1
    assert worker.show("conformal_residuals_count") == 2
    by_hand = abs(0.03 - mean) / 0.02 + abs(-0.05 - mean) / 0.02
    assert worker.show("conformal_residuals_sum") == pytest.approx(by_hand)


def test_an_outcome_without_a_claim_is_a_dead_letter_of_sizing():
    worker = priced()
    worker.outcome("never", 0.01)
    assert worker.show("dead_letters_total", topic="outcomes", code="unmatched") == 1


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("null", "conformal_null_rejections_total"),
        ("NaN", "conformal_nan_rejections_total"),
        ("1e999", "conformal_nan_rejections_total"),
    ],
)
def test_a_return_that_is_no_number_is_refused_by_ingest_and_counted_by_its_kind(text, family):
    metrics = Metrics()
    good = (
        b'{"strategy_id":"m","symbol":"BTC-USD","signal_id":"a","side":1,"timestamp_ns":%d,"realized_return":'
        % START_NS
    )
    sends = ingest(SourcePlace("outcomes", 0, 0, 0), Stored(0, None, good + text.encode() + b"}"), START_NS, 1)
    metrics.dead_letters(sends)
    assert shown(metrics, family) == 1
    assert total(metrics, "dead_letters_total") == 1
    fine = ingest(SourcePlace("outcomes", 0, 0, 1), Stored(1, None, good + b"0.01}"), START_NS, 1)
    metrics.dead_letters(fine)
    assert total(metrics, "dead_letters_total") == 1


# -- cascade ---------------------------------------------------------------------------------------------------------
def test_a_cascade_shows_score_components_and_what_was_recommended():
    worker = priced()
    worker.signal()
    assert worker.show("cascade_recommendations_total", recommendation="MONITOR") == 1
    worker.readings(onchain_whale_pressure=0.7, oi_change_pct=-0.5)
    assert worker.show("cascade_risk_components", component="whale_pressure") == pytest.approx(0.5)
    assert worker.show("cascade_risk_components", component="oi_drop") == pytest.approx(625 / 626)
    assert worker.show("cascade_risk_components", component="price") == 0
    score = worker.show("cascade_risk_score")
    assert 0.4 < score < 1
    worker.signal(signal_id="again")
    assert worker.last()["cascade_risk_score"] == score
    assert worker.show("cascade_recommendations_total", recommendation=worker.last()["cascade_recommendation"]) == 1
    assert worker.show("alerts_total", kind="cascade") == 2, "one for each side"


def test_the_score_is_that_of_the_worst_symbol():
    worker = priced()
    worker.readings(onchain_whale_pressure=0.9)
    worst = worker.show("cascade_risk_score")
    worker.readings("ETH-USD", onchain_whale_pressure=0.1)
    assert worker.show("cascade_risk_score") == worst > 0.5


def test_a_threshold_is_breached_once_until_it_was_left():
    worker = priced()
    for pressure, expected in ((0.69, 0), (0.9, 2), (0.95, 2), (0.2, 2), (0.9, 4)):
        worker.clock.advance(1.0)
        worker.readings(onchain_whale_pressure=pressure)
        found = worker.show("cascade_threshold_breaches_total", component="whale_pressure")
        assert found == expected, "both sides cross"


def test_a_component_that_stays_up_is_not_counted_when_another_one_rises():
    worker = priced()
    worker.readings(onchain_whale_pressure=0.9)
    worker.readings(oi_change_pct=-0.5)
    assert worker.show("cascade_threshold_breaches_total", component="oi_drop") == 2
    assert worker.show("cascade_threshold_breaches_total", component="whale_pressure") == 2


def test_what_all_partitions_see_the_first_one_counts():
    worker = priced(partition=1)
    worker.signal()
    worker.readings(onchain_whale_pressure=1.0, oi_change_pct=-0.5)
    assert total(worker.metrics, "cascade_threshold_breaches_total") == 0
    assert total(worker.metrics, "cascade_level_changes_total") == 0
    assert worker.show("cascade_risk_score") > 0.8
    first = priced()
    first.readings(onchain_whale_pressure=1.0, oi_change_pct=-0.5)
    assert first.show("cascade_level_changes_total", recommendation="EXIT") == 2


# -- decisions -------------------------------------------------------------------------------------------------------
def test_a_full_budget_is_one_and_a_cut_of_it_a_violation():
    worker = priced()
    worker.signal(risk_score=0.0)
    assert worker.last()["position_size_usd"] == 14_999.99
    assert worker.show("risk_budget_utilization_ratio", level="cell") == pytest.approx(1.0, abs=1e-6)
    assert worker.show("risk_budget_utilization_ratio", level="symbol") == pytest.approx(1.0, abs=1e-6)
    assert worker.show("risk_budget_utilization_ratio", level="strategy") == pytest.approx(0.375, abs=1e-6)
    assert worker.show("risk_budget_utilization_ratio", level="portfolio") == pytest.approx(0.1875, abs=1e-6)
    assert worker.show("risk_budget_violations_total", level="symbol") == 1
    assert worker.show("risk_budget_violations_total", level="portfolio") == 0


def test_a_reduction_is_counted_at_the_stage_that_made_it():
    worker = priced()
    worker.signal(regime="crisis", risk_score=0.5)
    steps = [row for row in worker.last()["waterfall"] if abs(row["after_cents"]) < abs(row["before_cents"])]
    assert {row["stage"] for row in steps} == {"risk_score", "regime", "portfolio"}
    for row in steps:
        assert worker.show("position_reductions_total", reason=row["stage"]) == 1
    assert total(worker.metrics, "position_reductions_total") == 3


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"expected_return": 0.0}, "no_edge"), ({"symbol": "XRP-USD"}, "no_price"), ({}, "stale_price")],
)
def test_a_gate_is_counted_by_its_name(given, reason):
    worker = priced()
    if reason == "stale_price":
        worker.clock.advance(200.0)
    worker.signal(**given)
    assert worker.show("position_reductions_total", reason=reason) == 1


def test_every_gate_of_the_engines_has_its_label():
    found = set()
    for function in (kelly._gate, cell_sizing.why_not):
        for node in ast.walk(ast.parse(inspect.getsource(function))):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    assert found - {""} | set(cell_sizing.WANTING_A_PRICE) == set(GATES)


def test_decisions_are_counted_by_trigger_and_strategy():
    worker = priced()
    worker.signal(valid_for_s=60)
    worker.signal(strategy_id="carry", signal_id="c")
    worker.clock.advance(61.0)
    worker.price()
    assert worker.show("decisions_total", trigger="signal") == 2
    assert worker.show("decisions_total", trigger="expiry") == 1
    assert worker.show("position_decisions_total", strategy_id="momentum") == 1
    assert worker.show("position_decisions_total", strategy_id="carry") == 1


def test_strategies_past_the_allowed_number_are_one_series():
    clock = ManualClock(START_NS)
    worker = priced(metrics=Metrics(clock=clock.now_ns, strategies_max=2))
    for number in range(5):
        worker.signal(strategy_id=f"s{number % 4}", signal_id=f"{number}")
    assert worker.show("position_decisions_total", strategy_id="s0") == 2
    assert worker.show("position_decisions_total", strategy_id="s1") == 1
    assert worker.show("position_decisions_total", strategy_id=OTHER) == 2


# -- what is dropped -------------------------------------------------------------------------------------------------
def test_repeats_and_old_inputs_are_counted_apart():
    worker = priced()
    worker.signal(signal_id="a")
    worker.signal(signal_id="a")
    worker.append("signal", signal(START_NS, signal_id="b"), "signals", source=1)
    worker.settle()
    assert worker.show("duplicates_dropped_total") == 2
    worker.signal(signal_id="c", timestamp_ns=START_NS - 1)
    assert worker.show("older_inputs_dropped_total", kind="signal") == 1
    for at_ns in (START_NS, START_NS - 1):
        worker.append("positions", {"portfolio_id": "main", "timestamp_ns": at_ns, "quantities": {}}, "positions")
    worker.settle()
    assert worker.show("older_inputs_dropped_total", kind="positions") == 1


def test_a_symbol_from_a_second_partition_of_prices_is_counted():
    worker = priced()
    worker.clock.advance(1.0)
    worker.price(source=1)
    assert worker.show("refused_symbols_total") == 1


def test_suspect_and_clipped_prices_of_steps_are_counted_by_the_first_partition_and_alerts_by_kind():
    worker = priced()
    for price, high in ((4.35, None), (43_500.0, 435_000.0), (4.35, None), (4.35, None)):
        worker.clock.advance(1.0)
        worker.price(price, high=high)
    assert worker.show("suspect_prices_total") == 3
    assert worker.show("clipped_prices_total") == 1
    assert worker.show("alerts_total", kind="suspect_price") == 2, "one a suspicion"


def test_claims_that_count_for_less_are_counted_by_field():
    worker = priced()
    worker.signal(expected_return=5.0)
    worker.signal(expected_return=0.004)
    assert worker.show("clipped_claims_total", field="expected_return") == 1
    assert worker.show("clipped_claims_total", field="predicted_volatility") == 0


def test_slots_that_were_freed_are_counted():
    worker = priced()
    for symbol in ("BTC-USD", "ETH-USD"):
        worker.signal(action="hold", strategy_id="stranger", symbol=symbol)
    worker.forget("strategy:stranger")
    assert worker.show("freed_slots_total", kind="strategy") == 1
    assert worker.show("freed_slots_total", kind="cell") == 0


def test_a_refused_regime_is_a_dead_letter_of_signals():
    worker = priced()
    worker.signal(regime="sideways")
    assert worker.show("dead_letters_total", topic="signals", code="unknown_value") == 1


def test_late_ticks_and_bad_prices_are_noted_by_the_market():
    metrics = Metrics()
    fold = MarketFold(0, 1, DecisionParams, lambda: START_NS, metrics.of_prices)
    for offset, seconds in enumerate((0, -1, -1, 60)):
        tick = {"symbol": "BTC-USD", "price": 1.0, "timestamp_ns": START_NS + seconds * SECOND_NS}
        fold.fold(Stored(offset, None, orjson.dumps(tick)))
    assert shown(metrics, "late_ticks_total") == 2
    assert shown(metrics, "dead_letters_total", topic="prices", code="in_future") == 1


def test_suspect_clipped_and_refused_ticks_and_the_markets_alerts_are_counted():
    metrics = Metrics()
    fold = MarketFold(0, 1, DecisionParams, lambda: START_NS, metrics.of_prices)
    rows = [{"price": 100.0}, {"price": 1.0}, {"price": 0.0}, {"price": 100.0, "high": 1e4}, {"price": "7"}]
    ticks = [{"symbol": "BTC-USD", "timestamp_ns": START_NS + n, **row} for n, row in enumerate(rows)]
    fold.fold(Stored(0, None, orjson.dumps({"ticks": ticks})))
    for name in ("suspect", "clipped"):
        assert shown(metrics, f"{name}_ticks_total") == 1
    assert shown(metrics, "refused_ticks_total") == 2
    assert shown(metrics, "dead_letters_total", topic="prices", code="out_of_range") == 1
    assert shown(metrics, "dead_letters_total", topic="prices", code="wrong_type") == 1
    assert shown(metrics, "alerts_total", kind="suspect_price") == 1


# -- processors ------------------------------------------------------------------------------------------------------
def test_latency_runs_from_the_journal_to_the_acknowledgement():
    worker = priced()
    worker.append("signal", signal(START_NS), "signals")
    worker.clock.advance(0.3)
    worker.settle()
    assert worker.show("signal_to_allocation_seconds_count") == 1
    assert worker.show("signal_to_allocation_seconds_sum") == pytest.approx(0.3)
    assert worker.show("signal_to_allocation_seconds_bucket", le="0.25") == 0
    assert worker.show("signal_to_allocation_seconds_bucket", le="0.5") == 1
    worker.clock.advance(1.0)
    worker.price()
    assert worker.show("signal_to_allocation_seconds_count") == 1, "a step is no signal"


def test_latency_leaves_out_what_waited_for_a_worker_that_was_away():
    worker = priced()
    worker.append("signal", signal(START_NS), "signals")
    worker.clock.advance(600.0)
    worker.processor = worker._start(LocalStore())
    worker.settle()
    assert worker.show("decisions_total", trigger="signal") == 1
    assert worker.show("signal_to_allocation_seconds_count") == 0


def test_decisions_are_timed_and_other_entries_are_not():
    worker = priced()
    assert worker.show("decision_seconds_count") == 0
    worker.signal()
    assert worker.show("decision_seconds_count") == 1
    assert worker.show("decision_seconds_sum") > 0


def test_a_checkpoint_and_the_recovery_from_it_are_told():
    worker = priced()
    worker.signal()
    assert worker.show("recoveries_total", processor="sizing", way="local") == 1
    assert worker.show("checkpoint_offset", processor="sizing", partition=0) == -1
    worker.checkpoint()
    assert worker.show("checkpoint_offset", processor="sizing", partition=0) == 2
    assert worker.show("checkpoint_seconds_count", processor="sizing") == 1
    assert worker.show("checkpoint_records_total", processor="sizing") >= 4
    assert worker.show("records_folded_total", processor="sizing") == 3
    assert worker.show("records_published_total", processor="sizing") == 1
    worker.processor = worker._start(LocalStore())
    assert worker.show("recoveries_total", processor="sizing", way="local") == 2
    assert worker.show("table_recovery_seconds", processor="sizing") == 0
    assert worker.show("checkpoint_offset", processor="sizing", partition=0) == 2


def test_a_partition_that_went_elsewhere_is_shown_no_longer():
    worker = priced(partition=1)
    worker.checkpoint()
    worker.metrics.lag(1, 40)
    assert worker.show("journal_lag", partition=1) == 40
    worker.metrics.forget("market", 1)
    assert worker.show("journal_lag", partition=1) == 40
    worker.metrics.forget("sizing", 1)
    assert worker.show("journal_lag", partition=1) is None
    assert worker.show("checkpoint_offset", processor="sizing", partition=1) is None
    assert worker.metrics.processor("sizing", 1) is worker.metrics.processor("sizing", 1)


# -- the worker ------------------------------------------------------------------------------------------------------
def test_reloads_are_counted_by_what_came_of_them():
    metrics = Metrics()
    for status in ("applied", "rejected", "rejected", "a status of tomorrow"):
        metrics.config_reload(status)
    metrics.config_callbacks(3)
    assert shown(metrics, "config_reloads_total", status="applied") == 1
    assert shown(metrics, "config_reloads_total", status="rejected") == 2
    assert shown(metrics, "config_reloads_total", status=OTHER) == 1
    assert shown(metrics, "config_callbacks") == 3
    metrics.restart_required(2)
    assert shown(metrics, "config_restart_required") == 2


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=30))
def test_no_input_makes_a_new_label_value(pairs):
    metrics = Metrics()
    for topic, code in pairs:
        metrics.dead_letter(topic, code)
        metrics.alert(code)
    (family,) = [each for each in page(metrics) if each.name == PREFIX + "dead_letters"]
    assert {sample.labels["code"] for sample in family.samples} <= set(CODES)
    assert sum(sample.value for sample in family.samples) == len(pairs)


def test_two_workers_in_one_process_do_not_meet():
    one, other = priced(), priced()
    one.signal()
    assert one.show("decisions_total", trigger="signal") == 1
    assert other.show("decisions_total", trigger="signal") == 0


def test_one_registry_takes_one_set_of_families():
    registry = CollectorRegistry()
    Metrics(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Metrics(registry)


def test_the_build_says_what_runs():
    (family,) = [each for each in page(Metrics()) if each.name == PREFIX + "build_info"]
    (sample,) = family.samples
    assert sample.value == 1
    assert set(sample.labels) == {"version", "decision_version", "python_version"}


@given(st.lists(st.floats(-10, 20), max_size=50))
def test_a_histogram_counts_like_the_slow_way(values):
    histogram = Histogram((0.5, 1.0, 5.0))
    for value in values:
        histogram.observe(value)
    slow = [sum(value <= bound for value in values) for bound in (0.5, 1.0, 5.0, float("inf"))]
    assert [count for _, count in histogram.buckets()] == slow
    assert histogram.total == pytest.approx(sum(values))


# -- all families ----------------------------------------------------------------------------------------------------
def together(worker):
    """Let two symbols move as one for sixty hours."""
    for hour in range(60):
        worker.clock.advance(3_600.0)
        for source, (symbol, price) in enumerate((("BTC-USD", 43_500.0), ("ETH-USD", 2_280.0))):
            worker.price(price * (1.01 if hour % 3 else 0.98), symbol, source)


def test_pairs_that_rise_above_the_threshold_are_counted_and_their_mean_is_shown():
    worker = priced()
    together(worker)
    assert worker.show("correlation_alerts_total") == 1
    assert worker.show("correlation_symbols") == 2
    assert 0.5 < worker.show("correlation_mean_ratio") <= 0.95


def test_the_last_full_decision_shows_what_its_strategies_and_symbols_share():
    worker = priced()
    worker.signal(risk_score=0.0)
    worker.signal(strategy_id="carry", signal_id="c", risk_score=0.0)
    assert worker.show("ensemble_strategies") == 2
    assert worker.show("ensemble_weight_current", strategy_id="carry") == 0.5
    assert worker.show("ensemble_weight_drift_ratio") == 0
    assert worker.show("ensemble_weight_total_usd") == worker.last()["total_allocated_usd"]
    assert worker.show("ensemble_utilization_ratio") == worker.last()["utilization_pct"]
    assert worker.show("correlation_penalty_ratio") == worker.last()["correlation_penalties"]["BTC-USD"] > 0.5
    assert worker.show("diversification_ratio") == 1.0


def ask(metrics):
    """Let the side agent ask a policy that answers, and one that does not (tests/streams/policy walks the agent)."""
    watcher = PolicyMetrics(metrics)
    silent = PolicyClient(
        Nobody(), timeout_s=1.0, params=BreakerParams(), clock=lambda: START_NS, breaker_clock=lambda: 0
    )
    watcher.watch(silent)
    watcher.load(1, 2)
    watcher.repeated()
    for asked, result in ((True, no_advice(question(), "timeout", "")), (False, no_advice(question(), "open", ""))):
        watcher.came(Outcome(result, asked, 0.5))


def advised(metrics, confidence=0.9, gate="open"):
    """Let a policy be asked and answer, and one outcome come; return the worker, which shows on `metrics`."""
    wide = {"max_position_pct": 1.0, "max_strategy_allocation": 3.0, "max_portfolio_allocation": 3.0}
    params = DecisionParams.model_validate(
        {
            "position_sizing": TRUSTING.position_sizing.model_dump(),
            "risk_management": wide,
            "validation_criteria": {"max_position_usd": 1e9},
            "rl": {"enabled": True, "mode": "live", "gate": {"bound": 0.01, "alpha": 0.5}},
        }
    )
    worker = priced(metrics=metrics, params=params)
    rounds = 60 if gate == "open" else 1
    for number in range(rounds):
        worker.signal(signal_id=f"p-{number}", expected_return=0.005, horizon_s=1, valid_for_s=3_600)
        (*_, asked) = worker.cluster.log("rl-requests", 0).read(0)
        named = {
            name: orjson.loads(asked.value)[name] for name in ("decision_id", "portfolio_id", "strategy_id", "symbol")
        }
        realised = 0.005 + 0.02 * (-1) ** number
        answer = {**named, "nudge": 15.0 * realised, "confidence": confidence, "model_version": "m", "raw": "{}"}
        for _ in range(2):
            worker.log.append(None, journal.internal("advice", answer, worker.clock.now_ns()))
        worker.settle()
        worker.clock.advance(1.0)
        worker.outcome(f"p-{number}", realised, holding_s=0.5)
        worker.price()
    return worker


def test_answers_of_the_policy_are_counted_and_its_weight_and_worth_are_shown():
    metrics = Metrics()
    worker = advised(metrics)
    worker.signal(signal_id="last", expected_return=0.005)
    told = worker.last()["rl"]
    assert told["gate"]["status"] == "open"
    assert worker.show("rl_answers_total", status="counted") == 60
    assert worker.show("rl_answers_total", status="repeated") == 60
    assert worker.show("rl_scored_total") == 60
    assert worker.show("rl_advantage") == told["gate"]["advantage"] > 0
    assert worker.show("rl_gate_state") == 1.0
    assert worker.show("rl_blend_weight") == 0.0, "the newest question is not answered yet"


def test_an_answer_that_may_not_act_has_no_weight():
    shut = advised(Metrics(), gate="shut")
    shut.signal(strategy_id="carry", signal_id="c")
    assert shut.last()["rl"]["gate"]["status"] == "collecting"
    assert (shut.show("rl_gate_state"), shut.show("rl_blend_weight")) == (0.0, 0.0)
    open_ = advised(Metrics())
    open_.signal(strategy_id="carry", signal_id="c")
    assert [cell["status"] for cell in open_.last()["rl"]["cells"]] == ["counted", "open"]
    assert open_.show("rl_blend_weight") == 0.9


def walk():
    """Let everything happen once that phase 1 counts; return the worker."""
    worker = priced()
    worker.signal(signal_id="a", sentiment_score=0.9)
    worker.readings(onchain_whale_pressure=1.0, oi_change_pct=-0.5)
    worker.signal(signal_id="a")
    worker.signal(signal_id="old", timestamp_ns=1)
    worker.signal(signal_id="bold", expected_return=0.9)
    for number, regime in enumerate(("trending_up", *["ranging"] * 6, "crisis")):
        worker.clock.advance(60.0)
        worker.signal(signal_id=f"s-{number}", regime=regime)
    worker.price(source=1)
    worker.clock.advance(1.0)
    worker.price(4.35)
    worker.clock.advance(1.0)
    worker.price(high=435_000.0)
    worker.outcome("a", 0.03)
    worker.outcome("a", 0.03)
    worker.signal(action="hold", strategy_id="stranger")
    worker.forget("strategy:stranger")
    worker.checkpoint()
    together(worker)
    worker.signal(signal_id="last")
    metrics = worker.metrics
    advised(metrics, gate="shut").signal(signal_id="last", strategy_id="carry")
    ask(metrics)
    metrics.lag(0, 3)
    metrics.config_reload("applied")
    metrics.config_callbacks(1)
    metrics.restart_required(0)
    metrics.health(1.5, ready=True)
    metrics.processor("market", 0).checkpointed(5, 1, 1_000_000, 300)
    for name in ("late_tick", "suspect_tick", "clipped_tick", "refused_tick"):
        metrics.of_prices(name, 1)
    for code, field in (("not_finite", ""), ("wrong_type", "realized_return")):
        metrics.dead_letter("outcomes", code, field)
    return worker


def test_every_family_is_recorded_by_a_path():
    found = {each.name: each for each in page(walk().metrics)}
    for family in FAMILIES:
        samples = found[
            family.full_name.removesuffix("_total") if family.kind == "counter" else family.full_name
        ].samples
        assert samples, f"{family.name} has no sample"
        if family.kind != "gauge":
            assert any(sample.value for sample in samples), f"{family.name} never moved"


def test_the_page_holds_exactly_the_families_of_the_table():
    metrics = walk().metrics
    kinds = {each.name: (each.type, each.documentation) for each in page(metrics)}
    assert kinds == {on_page(family): (family.kind, family.help) for family in FAMILIES}


def test_every_sample_has_the_labels_of_its_family_and_values_of_its_sets():
    for each in page(walk().metrics):
        name = each.name.removeprefix(PREFIX)
        family = NAMED.get(name) or NAMED[name + "_total"]
        for sample in each.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "le"}
            assert set(labels) == set(family.labels)
            if family.values:
                assert tuple(labels[key] for key in family.labels) in family.combinations


def test_openmetrics_can_read_the_page_too():
    metrics = walk().metrics
    text = openmetrics.generate_latest(metrics.registry).decode()
    assert len(list(parse_openmetrics(text))) == len(FAMILIES)


UNITS = {"ms", "ns", "milliseconds", "micros", "minutes", "hours", "days", "kilobytes", "megabytes", "percent", "pct"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_keep_the_rules_of_prometheus(family):
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    words = family.name.removesuffix("_total").split("_")
    assert not set(words) & {*UNITS, "counter", "gauge", "histogram", "count", "sum", "bucket", "created"}
    assert ("seconds" in words) == (family.unit == "seconds")
    assert ("bytes" in words) == (family.unit == "bytes")
    assert ("usd" in words) == (family.unit == "usd")
    assert family.help[0].isupper()
    assert family.help.endswith(".")
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) and label != "le" for label in family.labels)
    assert bool(family.bounds) == (family.kind == "histogram")
    assert list(family.bounds) == sorted(set(family.bounds))


def test_no_family_is_there_twice():
    assert len(NAMED) == len(FAMILIES)


def test_every_note_that_an_engine_leaves_is_recorded():
    left = set()
    for path in Path(engines.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "note":
                name = node.args[0]
                left.add(name.value if isinstance(name, ast.Constant) else "regime_transition")
    assert left | {"regime_false_flip"} == set(NOTES)


def test_the_document_holds_the_table_of_the_code():
    assert markdown() in (ROOT / "docs/metrics.md").read_text()


@settings(max_examples=25)
@given(scripts)
def test_whatever_comes_the_counters_agree_with_the_topics(script):
    metrics = Metrics()
    driver = Driver(partitions=1, metrics=metrics)
    play(driver, script)
    found = driver.allocations()
    by_trigger = [fields["trigger"]["kind"] for fields in found]
    for kind in NAMED["decisions_total"].values[0]:
        assert shown(metrics, "decisions_total", trigger=kind) == by_trigger.count(kind)
    assert total(metrics, "position_decisions_total") == by_trigger.count("signal")
    assert total(metrics, "journal_entries_total") == len(driver.read("journal"))
    assert total(metrics, "alerts_total") == len(driver.read("alerts"))
    letters = len(driver.read("outcomes.dlq")) + len(driver.read("signals.dlq"))
    assert total(metrics, "dead_letters_total") == letters
    if found:
        newest = max(reversed(found), key=lambda fields: fields["journal"]["offset"])  # of one entry's, the last
        ratio = newest["totals"]["gross_usd"] / (0.8 * newest["portfolio_value"])
        assert shown(metrics, "risk_budget_utilization_ratio", level="portfolio") == pytest.approx(ratio, abs=1e-6)
