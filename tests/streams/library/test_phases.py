"""The library: the same core without Kafka, held against the Driver."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import PRICES, REGIMES, START_NS, SYMBOLS, Driver, last, signal, tick, trusting_file, unit

from schemas.allocation import Allocation
from schemas.cascade import CascadeIndicators
from schemas.errors import (
    ConfigurationException,
    InvalidCascadeIndicatorsException,
    InvalidPriceException,
    InvalidSignalException,
    SizingError,
)
from schemas.outcome import TradeOutcome
from schemas.signal import TacticalSignal
from streams.library.phases import Layer3Phase1

PRICE = PRICES["BTC-USD"]
SECOND_NS = 1_000_000_000


def layer3(**given_):
    return Layer3Phase1(**{"enable_metrics": False, "config": trusting_file(), **given_})


def ask(**given_):
    return signal(START_NS, **given_)


def outcome(**given_):
    return {
        "strategy_id": "momentum",
        "symbol": "BTC-USD",
        "signal_id": "s-1",
        "side": 1,
        "realized_return": 0.01,
        "timestamp_ns": START_NS + SECOND_NS,
        **given_,
    }


# -- sizes -----------------------------------------------------------------------------------------------------------
def test_a_signal_is_sized_at_the_price_given():
    decision = layer3().calculate_position(ask(), None, PRICE)
    assert decision.position_size_usd == 13_500.0
    assert decision.allocations == {"BTC-USD": 13_500.0}
    assert decision.journal == {"offset": 1, "partition": 0}
    assert "LIBRARY0-0-1-main" in repr(decision)


@pytest.mark.parametrize(
    ("step_s", "at_ns", "end_s"),
    [
        # 1,700,000,040 s is a whole minute: a moment on the grid ends its own step, one later belongs to the next
        (1, 1_700_000_040 * SECOND_NS, 1_700_000_040),
        (1, 1_700_000_040 * SECOND_NS + 1, 1_700_000_041),
        (1, 1_700_000_041 * SECOND_NS - 1, 1_700_000_041),
        (60, 1_700_000_040 * SECOND_NS, 1_700_000_040),
        (60, 1_700_000_040 * SECOND_NS + 1, 1_700_000_100),
        (60, 1_700_000_099 * SECOND_NS, 1_700_000_100),
        (60, 1_700_000_100 * SECOND_NS, 1_700_000_100),
        # 1,700,000,022 s is 40,476,191 times 42 s
        (42, 1_700_000_040 * SECOND_NS, 1_700_000_064),
    ],
)
def test_a_price_is_of_the_step_that_ends_at_or_after_its_moment(tmp_path, step_s, at_ns, end_s):
    """As a tick's: steps cover (start, end], whole seconds since 1970 that the width divides."""
    assert end_s % step_s == 0
    assert (end_s - step_s) * SECOND_NS < at_ns <= end_s * SECOND_NS
    config = tmp_path / "layer3.yaml"
    config.write_text(f"market: {{step_s: {step_s}, bar_s: {step_s * 60}}}\n")
    library = layer3(config=str(config))
    library.calculate_position(signal(at_ns), None, PRICE)
    assert library._core.state.markets.get(("BTC-USD",)).bars.last_ns == end_s * SECOND_NS


asks = st.lists(
    st.tuples(
        st.sampled_from(("momentum", "carry")),
        st.sampled_from(SYMBOLS),
        st.sampled_from(("buy", "sell", "strong_buy", "hold")),
        unit,
        unit,
        st.sampled_from(REGIMES),
        st.floats(0, 0.05).map(lambda size: round(size, 4)),
        st.one_of(st.none(), unit),
        st.one_of(st.none(), st.floats(0.7, 1.0).map(lambda whale: round(whale, 2))),
        st.floats(0.96, 1.04),  # within the collar from one to the next
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40)
@given(asks)
def test_it_sizes_what_the_topics_size(script):
    """The same prices, readings and signals, through a call each and through the whole topology."""
    library, driver = layer3(), Driver(partitions=1)
    for number, (strategy, symbol, action, confidence, risk, regime, size, mood, whale, factor) in enumerate(script):
        now_ns, price = driver.now_ns, PRICES[symbol] * factor
        driver.publish("prices", tick(now_ns, symbol, price))
        driver.advance(2.0)
        fields = signal(
            now_ns + 2 * SECOND_NS,
            signal_id=f"s-{number}",
            strategy_id=strategy,
            symbol=symbol,
            action=action,
            confidence=confidence,
            risk_score=risk,
            regime=regime,
            expected_return=-size if action == "sell" else size,
        )
        fields |= {} if mood is None else {"sentiment_score": mood}
        known = {"symbol": symbol, "timestamp_ns": driver.now_ns, "onchain_whale_pressure": whale}
        if whale is not None:
            driver.publish("cascade-indicators", known)
            driver.run()
        driver.publish("signals", fields)
        driver.run()
        decision = library.calculate_position(fields, None if whale is None else known, price)
        published = last(driver)
        for name in ("trigger", "cascade_recommendation"):
            assert getattr(decision, name) == published.get(name)
        only_signals_decided = len(driver.allocations()) == number + 1
        if only_signals_decided:  # another decision cuts what stands, which the next signal then renews less of
            for name in ("kelly_position_usd", "waterfall", "allocations", "bound"):
                assert getattr(decision, name) == published.get(name)
        driver.advance(1.0)


def test_models_are_taken_as_well_as_mappings():
    as_models = layer3().calculate_position(
        TacticalSignal.model_validate(ask(signal_id="s-1")),
        CascadeIndicators.model_validate({"timestamp_ns": START_NS, "funding_rate": 0.001}),
        PRICE,
    )
    as_mappings = layer3().calculate_position(
        ask(signal_id="s-1"), {"timestamp_ns": START_NS, "funding_rate": 0.001}, PRICE
    )
    assert as_models.position_size_usd == as_mappings.position_size_usd
    library = layer3()
    library.calculate_position(ask(signal_id="s-1"), None, PRICE)
    library.record_outcome(TradeOutcome.model_validate(outcome()))


def test_readings_cut():
    readings = {"symbol": "BTC-USD", "timestamp_ns": START_NS, "oi_change_pct": -0.5}
    decision = layer3().calculate_position(ask(), readings, PRICE)
    assert decision.cascade_recommendation == "REDUCE_75%"
    assert decision.cascade_adjusted_usd == pytest.approx(decision.regime_adjusted_usd / 4, abs=0.01)


def test_signals_without_an_id_are_told_apart():
    library = layer3()
    first = library.calculate_position(ask(), None, PRICE)
    second = library.calculate_position(ask(confidence=0.5), None, PRICE)
    assert (first.sequence, second.sequence) == (1, 2)
    assert second.previous_hash != ""


def test_the_same_calls_give_the_same_bytes():
    def run():
        library = layer3()
        decisions = [
            library.calculate_position(ask(signal_id=f"s-{n}", risk_score=n / 9), None, PRICE) for n in range(9)
        ]
        library.record_outcome(outcome(signal_id="s-3"))
        return [decision.value for decision in decisions]

    assert run() == run()


def test_time_never_goes_back():
    library = layer3()
    library.calculate_position(signal(START_NS + 60 * SECOND_NS, symbol="ETH-USD"), None, 2_000.0)
    decision = library.calculate_position(ask(), None, PRICE)
    assert decision.timestamp_ns == START_NS + 60 * SECOND_NS


def test_outcomes_move_the_size():
    library = layer3()
    first = library.calculate_position(ask(signal_id="s-0", expected_return=0.004), None, PRICE)
    for number in range(20):
        library.record_outcome(outcome(signal_id=f"s-{number}", realized_return=-0.01, holding_s=1))
        decision = library.calculate_position(ask(signal_id=f"s-{number + 1}", expected_return=0.004), None, PRICE)
    assert first.kelly_position_usd > 0
    assert decision.kelly_position_usd == 0


# -- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf"), True, "43500", None, 1e15])
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(InvalidPriceException, match="price of BTC-USD must be a positive finite number"):
        layer3().calculate_position(ask(), None, price)


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ({"confidence": 2.0}, "confidence"),
        ({"action": "hodl"}, "action"),
        ({"expected_return": -1.0}, "expected_return"),
    ],
)
def test_a_bad_signal_is_refused_by_field(given_, field):
    with pytest.raises(InvalidSignalException) as caught:
        layer3().calculate_position(ask(**given_), None, PRICE)
    assert caught.value.field == field


def test_bad_readings_are_refused():
    with pytest.raises(InvalidCascadeIndicatorsException):
        layer3().calculate_position(ask(), {"timestamp_ns": START_NS}, PRICE)


def test_what_is_refused_leaves_no_trace():
    library = layer3()
    before = library.get_state()
    for bad in (ask(confidence=2.0), ask(risk_score=-1.0)):
        with pytest.raises(InvalidSignalException):
            library.calculate_position(bad, None, PRICE)
    assert library.get_state() == before


def test_an_unknown_regime_is_an_error():
    with pytest.raises(SizingError, match="regime must be a known regime or alias, was 'sideways'"):
        layer3().calculate_position(ask(regime="sideways"), None, PRICE)


@pytest.mark.parametrize("again", [{"signal_id": "s-1"}, {"signal_id": "s-2", "timestamp_ns": START_NS - 1}])
def test_a_repeat_and_an_older_signal_are_refused(again):
    library = layer3()
    library.calculate_position(ask(signal_id="s-1"), None, PRICE)
    with pytest.raises(InvalidSignalException, match="already answered"):
        library.calculate_position(ask(**again), None, PRICE)


def test_a_strategy_that_is_not_on_the_list_is_refused_with_the_rule(tmp_path):
    file = tmp_path / "listed.yaml"
    file.write_text("portfolio: {allowed_strategies: {main: [carry]}}\n")
    rule = "strategy_id must be one of the 1 that portfolio.allowed_strategies names for main, was 'momentum'"
    with pytest.raises(SizingError, match=rule):
        Layer3Phase1(config=file, enable_metrics=False).calculate_position(ask(), None, PRICE)


def test_an_outcome_that_settles_nothing_is_an_error():
    with pytest.raises(SizingError, match="has made no claim"):
        layer3().record_outcome(outcome())


# -- settings --------------------------------------------------------------------------------------------------------
def test_arguments_win_over_the_file(tmp_path):
    file = tmp_path / "layer3.yaml"
    file.write_text("portfolio:\n  initial_value_usd: 5000\nsentiment:\n  enabled: false\n")
    assert layer3(config=file).calculate_position(ask(), None, PRICE).portfolio_value == 5_000.0
    found = layer3(config=file, portfolio_value=7_000).calculate_position(ask(), None, PRICE)
    assert found.portfolio_value == 7_000.0
    moody = ask(sentiment_score=1.0)
    assert layer3(config=file).calculate_position(moody, None, PRICE).diagnostics["sentiment"]["multiplier"] == 1.0
    enabled = layer3(config=file, enable_sentiment=True).calculate_position(moody, None, PRICE)
    assert enabled.diagnostics["sentiment"]["multiplier"] > 1.0


def test_less_kelly_bets_less():
    little, much = (
        layer3(kelly_fraction=share).calculate_position(ask(expected_return=0.004), None, PRICE) for share in (0.1, 0.2)
    )
    assert much.kelly_position_usd == pytest.approx(2 * little.kelly_position_usd, abs=0.02)


@pytest.mark.parametrize("given_", [{"kelly_fraction": 0.9}, {"portfolio_value": -1.0}, {"config": "nowhere.yaml"}])
def test_settings_that_cannot_be_used_are_refused(given_):
    with pytest.raises(ConfigurationException):
        layer3(**given_)


def _reloading(tmp_path, **given_):
    file = tmp_path / "layer3.yaml"
    file.write_text("hot_reload:\n  poll_interval_sec: 0.000001\n")
    library = layer3(config=file, **given_)
    text = "hot_reload:\n  poll_interval_sec: 0.000001\nrisk_management:\n  max_position_pct: 0.03\n"
    file.write_text(text)
    return library


def test_a_file_that_changes_acts_from_a_later_call_on(tmp_path):
    library = _reloading(tmp_path)
    sizes = [library.calculate_position(ask(signal_id=f"s-{n}"), None, PRICE).position_size_usd for n in range(3)]
    assert sizes[0] == 3_851.39, "one look alone does not believe a file"
    assert sizes[-1] == pytest.approx(0.99 * 2_700.0, abs=0.02), "cut to 99 % of the new cap, and kept by the band"


def test_a_file_that_is_emptied_lifts_no_limit(tmp_path, caplog):
    file = tmp_path / "layer3.yaml"
    limited = "hot_reload: {poll_interval_sec: 0.000001}\nrisk_management: {max_position_pct: 0.03}\n"
    file.write_text(limited)
    library = layer3(config=file)

    def sizes(name):
        asked = [ask(signal_id=f"{name}-{number}") for number in range(3)]
        return [library.calculate_position(each, None, PRICE).position_size_usd for each in asked]

    assert sizes("whole") == pytest.approx([2_700.0] * 3, abs=0.02)
    file.write_text("")
    assert sizes("emptied") == pytest.approx([2_700.0] * 3, abs=0.02)
    (told,) = [record.getMessage() for record in caplog.records if record.name == "streams.library.session"]
    assert "risk_management.max_position_pct, hot_reload.poll_interval_sec: must not vanish" in told
    file.write_text(limited.replace("0.03", "0.04"))
    assert sizes("restored")[-1] == pytest.approx(3_600.0, abs=0.02)


def test_without_hot_reload_or_after_stop_it_does_not(tmp_path):
    stopped = _reloading(tmp_path)
    stopped.stop()
    for library in (stopped, _reloading(tmp_path, enable_hot_reload=False)):
        for number in range(3):
            found = library.calculate_position(ask(signal_id=f"s-{number}"), None, PRICE)
        assert found.position_size_usd == 3_851.39


# -- what it shows ---------------------------------------------------------------------------------------------------
def test_a_decision_shows_the_fields_of_an_allocation_and_no_others():
    decision = layer3().calculate_position(ask(), None, PRICE)
    assert decision.to_dict()["strategy_id"] == decision.strategy_id == "momentum"
    assert isinstance(decision.to_message(), Allocation)
    assert layer3().calculate_position(ask(action="hold"), None, PRICE).diagnostics is None
    with pytest.raises(AttributeError, match="has no field 'size'"):
        _ = decision.size


def test_the_state_is_plain_values():
    library = layer3()
    library.calculate_position(ask(), None, PRICE)
    state = orjson.loads(orjson.dumps(library.get_state(), default=tuple))
    assert state["portfolios"]["main"]["cells"]["momentum/BTC-USD"]["target"]["cents"] == 1_350_000


def test_metrics_count_unless_they_are_off():
    assert layer3().metrics is None
    with Layer3Phase1() as library:
        library.calculate_position(ask(), None, PRICE)
        found = library.metrics.registry.get_sample_value(
            "himari_l3_position_decisions_total", {"strategy_id": "momentum"}
        )
    assert found == 1.0
