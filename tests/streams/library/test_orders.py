"""Orders and reports through the library: held against the worker's Driver, and by hand."""

import orjson
import pytest
from worlds import PRICES, START_NS, Driver, control, signal, tick, trusting_file

from schemas.errors import InvalidControlException, InvalidPositionsException, SizingError
from streams.library import Layer3Phase1, Layer3Phase2Portfolio, Layer3Phase3Hybrid

SECOND_NS = 1_000_000_000
PRICE = PRICES["BTC-USD"]
CLASSES = (Layer3Phase1, Layer3Phase2Portfolio, Layer3Phase3Hybrid)


def made(kind=Layer3Phase1, **given):
    return kind(enable_metrics=False, config=trusting_file(), **given)


def sized(library, second=0, **given):
    """Return the allocation of a signal of so many seconds after the start."""
    asked = signal(START_NS + second * SECOND_NS, signal_id=f"s-{second}", valid_for_s=86_400, **given)
    if isinstance(library, Layer3Phase1):
        return library.calculate_position(asked, None, PRICE)
    if isinstance(library, Layer3Phase2Portfolio):
        return library.process_multi_strategy_signals([asked], None, {"BTC-USD": PRICE})
    return library.process_signals([asked], None, {"BTC-USD": PRICE})


@pytest.mark.parametrize("kind", CLASSES)
def test_a_halt_sells_and_nothing_opens_until_it_is_resumed(kind):
    with made(kind) as library:
        assert sized(library).allocations == {"BTC-USD": 13_500.0}
        (halted,) = library.halt(reason="drill", by="ops")
        assert halted.allocations == {"BTC-USD": 0.0}
        assert halted.trigger["kind"] == "control"
        assert sized(library, 1).allocations["BTC-USD"] == 0.0
        assert library.get_state()["trading_states"] == {"all": "HALTED"}
        (resumed,) = library.resume()
        assert resumed.trigger["kind"] == "resume"
        assert resumed.allocations == {"BTC-USD": 13_500.0}
        assert library.get_state()["trading_states"] == {}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_drawdown_cuts_and_ends_all_at_its_limit(kind):
    """Methods 9: (1 - M/W·a)/(1 - a) of what is held, 0 at max_drawdown_pct."""
    with made(kind, portfolio_value=100_000) as library:
        before = sized(library).allocations["BTC-USD"]
        (cut,) = library.set_portfolio_value(90_000)
        assert 0.0 < cut.allocations["BTC-USD"] < 0.9 * before
        assert library.get_state()["portfolios"]["main"]["drawdown"] == pytest.approx(0.1)
        limit = library._core.state.params.risk_management.max_drawdown_pct
        (flat,) = library.set_portfolio_value(100_000 * (1 - limit))
        assert flat.allocations == {"BTC-USD": 0.0}
        library.set_portfolio_value(100_000 * (1 - limit), reset_peak=True)
        assert library.get_state()["portfolios"]["main"]["drawdown"] == 0.0


@pytest.mark.parametrize("kind", CLASSES)
def test_while_reducing_a_size_only_shrinks(kind):
    with made(kind) as library:
        before = sized(library, expected_return=0.004).allocations["BTC-USD"]
        (reduced,) = library.reduce("symbol:BTC-USD")
        assert reduced.allocations["BTC-USD"] == before
        assert sized(library, 1, expected_return=0.02).allocations["BTC-USD"] == before
        assert sized(library, 2, expected_return=0.0).allocations["BTC-USD"] == 0.0


@pytest.mark.parametrize("kind", CLASSES)
def test_a_report_moves_no_target_and_its_equity_counts(kind):
    with made(kind) as library:
        sized(library)
        at_ns = START_NS + 60 * SECOND_NS
        held = library.get_state()["portfolios"]["main"]["cells"]["momentum/BTC-USD"]["target"]["quantity"]
        assert library.set_positions({"BTC-USD": held}, timestamp_ns=at_ns) == []
        (cut,) = library.set_positions({"BTC-USD": held}, equity=85_000.0, timestamp_ns=at_ns + 1)
        assert (cut.basis, cut.portfolio_value) == ("positions", 85_000.0)
        assert cut.allocations["BTC-USD"] < 13_500.0
        assert library.set_positions({"BTC-USD": 0.0}, equity=1.0, timestamp_ns=at_ns) == [], "an older one"
        assert library.get_state()["portfolios"]["main"]["value_usd"] == 85_000.0


def test_a_position_that_nobody_asked_for_is_shown_and_left_alone():
    library = made()
    library.set_positions({"DOGE-USD": 5_000.0})
    found = sized(library)
    assert found.unmanaged == ["DOGE-USD"]
    assert found.targets["DOGE-USD"]["quantity"] == 5_000.0


def test_the_same_inputs_give_what_a_worker_publishes():
    library, driver = made(Layer3Phase2Portfolio), Driver(partitions=1)
    driver.publish("prices", tick(START_NS))
    driver.advance(2.0)
    asked = signal(driver.now_ns, valid_for_s=86_400)
    driver.publish("signals", asked)
    orders = (
        ("portfolio_value", {"portfolio_id": "main", "value_usd": 92_000}),
        ("trading_state", {"scope": "all", "state": "HALTED"}),
        ("trading_state", {"scope": "all", "state": "ACTIVE"}),
    )
    for number, (kind, payload) in enumerate(orders):
        driver.publish("control", control(driver.now_ns, kind, payload, f"c-{number}"))
        driver.run()
    ours = [library.process_multi_strategy_signals([asked], None, {"BTC-USD": PRICE})]
    ours += [*library.set_portfolio_value(92_000), *library.halt(), *library.resume()]
    theirs = driver.allocations()
    assert len(theirs) == 4
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.targets == other["targets"]
        assert mine.portfolio_waterfall == other["portfolio_waterfall"]
        assert (mine.sequence, mine.trigger["kind"]) == (other["sequence"], other["trigger"]["kind"])


def test_two_runs_of_the_same_calls_give_the_same_bytes():
    def run():
        library = made()
        return [sized(library), *library.set_portfolio_value(92_000), *library.halt(), *library.resume()]

    assert [each.value for each in run()] == [each.value for each in run()]


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda each: each.halt("everything"), InvalidControlException, "scope"),
        (lambda each: each.halt(reason=" "), InvalidControlException, "reason"),
        (lambda each: each.reduce(by=""), InvalidControlException, "by"),
        (lambda each: each.set_portfolio_value(float("nan")), InvalidControlException, "value_usd"),
        (lambda each: each.set_positions({"BTC-USD": float("inf")}), InvalidPositionsException, "BTC-USD"),
        (lambda each: each.set_positions({}, timestamp_ns=5), InvalidPositionsException, "timestamp_ns"),
        (lambda each: each.set_positions({}, as_of_sequence=7), SizingError, "as_of_sequence"),
    ],
)
def test_what_is_refused_names_its_field_and_changes_nothing(call, error, told):
    library = made()
    before = library.get_state()
    with pytest.raises(error, match=told):
        call(library)
    after = library.get_state()
    assert {**after, "journal_time_ns": 0} == {**before, "journal_time_ns": 0}


def test_a_mode_that_cannot_be_set_says_so():
    with (
        made(Layer3Phase3Hybrid, enable_rl=False) as library,
        pytest.raises(SizingError, match=r"rl\.enabled is false"),
    ):
        library.set_rl_mode("live")


def test_the_state_shows_the_breaker():
    with made(Layer3Phase3Hybrid, enable_rl=True, use_mock_rl=True) as library:
        sized(library)
        assert library.get_state()["breaker"]["status"] == "closed"
        orjson.dumps(library.get_state(), default=tuple)
