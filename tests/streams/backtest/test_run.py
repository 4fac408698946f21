"""A backtest is a journal like any other: a worker gives the same bytes, and the future changes none of the past."""

import base64
import hashlib
from functools import partial
from pathlib import Path

import orjson
import pytest
from markets import HOUR_NS, SECOND_NS, START_NS, of_prices, of_rows, said, settings, walk

from schemas.errors import InvalidSignalException
from streams.archives.archive import Archive
from streams.backtest.broker import Trading
from streams.backtest.execute import execute
from streams.backtest.funding import Funding
from streams.backtest.request import Request, prepare
from streams.backtest.run import Backtest, Inputs
from streams.backtest.signals_file import FromFile, checked
from streams.backtest.sources import BuiltIn
from streams.driver import Driver
from streams.journal import entries as journal
from streams.journal.genesis import BACKTEST_ID
from streams.processing.immediate import result_of

HOURS = 120
COSTS = Trading(0.0005, 0.0002)


def market(hours=HOURS):
    return [walk("BTC-USD", hours, 1), walk("ETH-USD", hours, 2)]


def parameters(candles):
    return prepare(Request(candles, settings())).inputs.params


def archived(folder, topic):
    archive = Archive(Path(folder))
    return [each for chunk in archive.chunks(topic, 0, 0, archive.end(topic, 0)) for each in chunk]


# -- the same bytes as a worker ----------------------------------------------------------------------------------------
def worker_on(candles, entries, params):
    """Return a worker that was sent the candles as ticks, and all other sources of a journal, when they were sent."""
    start_ns = min(each.end_ns(each.rows[0]) for each in candles)
    driver = Driver(params, partitions=1, journal_id=BACKTEST_ID, now_ns=start_ns)
    sent = [
        (each.end_ns(row), "prices", orjson.dumps(_tick(each, row)), each.symbol.encode())
        for each in candles
        for row in each.rows
    ]
    for entry in entries:
        fields = orjson.loads(entry.value)
        if fields["source"] is not None:
            value = fields["value"].encode()
            sent.append((fields["journaled_at_ns"], fields["source"]["topic"], value, _key(fields)))
    for at_ns, topic, value, key in sorted(sent, key=lambda each: each[0]):
        while driver.now_ns < at_ns:
            driver.now_ns = min(at_ns, driver.now_ns + SECOND_NS)
            close_steps(driver)
        driver.publish(topic, value, key)
        driver.run()
    driver.now_ns += SECOND_NS
    close_steps(driver)
    return driver


def close_steps(driver):
    """Let the worker see its clock, without the ticks of an idle journal."""
    for (source, _), (fold, processor) in driver.processors.items():
        if source == "prices":
            result_of(processor.act(partial(fold.elapse, driver.now_ns)))
    driver.run()


def _tick(candles, row):
    return {
        "timestamp_ns": candles.end_ns(row),
        "symbol": candles.symbol,
        "price": row.close,
        "low": row.low,
        "high": row.high,
        "volume": row.volume_coins,
    }


def _key(fields):
    return None if fields["key"] is None else base64.b64decode(fields["key"])


def test_a_worker_that_is_sent_the_same_gives_the_same_journal_and_the_same_allocations(tmp_path):
    candles = market(90)
    rates = tmp_path / "rates.csv"
    rates.write_text(f"timestamp_ns,symbol,funding_rate\n{START_NS + 60 * HOUR_NS},BTC-USD,0.0001\n")
    request = Request(candles, settings(), strategies=("momentum", "mean-reversion"), funding=rates)
    result = execute(request, archive=tmp_path / "journal", check=False)
    entries, allocations = archived(tmp_path / "journal", "journal"), archived(tmp_path / "journal", "allocations")
    kinds = {orjson.loads(each.value)["kind"] for each in entries}
    assert kinds == {"genesis", "step", "signal", "outcome", "positions", "cascade"}
    driver = worker_on(candles, entries, parameters(candles))
    assert [each.value for each in driver.read("journal")] == [each.value for each in entries]
    assert [each.value for each in driver.read("allocations")] == [each.value for each in allocations]
    assert len(allocations) == result.figures["journal"]["allocations"] > 100
    whole = hashlib.sha256(b"".join(each.value for each in allocations)).hexdigest()
    assert whole == result.figures["journal"]["allocations_sha256"]


# -- the future changes nothing ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("last", [60, 61, 90])
def test_the_first_half_gives_the_first_half_of_the_bytes_whatever_comes_later(last):
    candles = market()
    params = parameters(candles)
    end_ns = START_NS + last * HOUR_NS
    later = [
        each._replace(rows=[row if each.end_ns(row) <= end_ns else moved(row) for row in each.rows]) for each in candles
    ]
    first = [each._replace(rows=[row for row in each.rows if each.end_ns(row) <= end_ns]) for each in candles]
    found = [
        Backtest(
            Inputs(each, BuiltIn(["momentum"], each), params, COSTS), halfway_ns=0 if each is first else end_ns
        ).run()
        for each in (candles, later, first)
    ]
    assert found[0].halfway[1:] == found[1].halfway[1:] == found[2].whole[1:]
    assert found[0].halfway.allocations > 0
    assert found[0].whole.sha256 != found[1].whole.sha256, "the later prices differ, and count"


def moved(row):
    return row._replace(open=row.open * 1.05, high=row.high * 1.06, low=row.low * 1.04, close=row.close * 1.05)


def test_a_function_that_says_something_else_of_the_same_past_is_found_out():
    def counting(history):
        calls.append(history.now_ns)
        return said(1, confidence=0.5 + len(calls) / 1_000, timestamp_ns=history.now_ns)

    calls = []
    with pytest.raises(InvalidSignalException, match=r"counting: the first half .* looks ahead, or keeps something"):
        execute(Request(market(), settings(), strategies=[counting]))


# -- fills -------------------------------------------------------------------------------------------------------------
def played(candles, signals, trading=COSTS, **given):
    params = parameters(candles)
    rows = ((f"row {number}", each) for number, each in enumerate(signals, 1))
    found, _ = checked(rows, candles, "signals")
    return Backtest(Inputs(candles, FromFile(found), params, trading, **given)).run()


def test_a_target_is_filled_at_the_open_of_the_candle_that_begins_when_it_is_decided():
    candles = [of_prices("BTC-USD", [100.0, 101.0, 103.0, 102.0, 105.0, 107.0])]
    run = played(candles, [said(2, horizon_s=36_000.0, expected_return=0.006)])
    trade = run.broker.trades[0]
    assert (trade.time_ns - START_NS) / HOUR_NS == pytest.approx(2, abs=0.001)
    assert trade.price == 103.0
    assert trade.fee_usd == pytest.approx(0.0005 * trade.quantity * 103.0)
    assert trade.slippage_usd == pytest.approx(0.0002 * trade.quantity * 103.0)
    expected = trade.quantity * (107.0 - 103.0) - trade.fee_usd - trade.slippage_usd
    assert len(run.broker.trades) == 1
    assert run.curve.profit[-1] == pytest.approx(expected)


def test_a_delay_moves_the_fill_to_a_later_open():
    candles = [of_prices("BTC-USD", [100.0, 101.0, 103.0, 102.0, 105.0, 107.0])]
    run = played(candles, [said(2, horizon_s=36_000.0, expected_return=0.006)], Trading(0.0, 0.0, 60.0))
    assert [trade.price for trade in run.broker.trades] == [102.0]


def test_a_signal_between_two_candles_is_filled_at_the_next_open():
    candles = [of_prices("BTC-USD", [100.0, 101.0, 103.0, 102.0, 105.0, 107.0])]
    at_ns = START_NS + 2 * HOUR_NS + 600 * SECOND_NS
    run = played(candles, [said(2, timestamp_ns=at_ns, horizon_s=36_000.0, expected_return=0.006)])
    assert [trade.price for trade in run.broker.trades] == [102.0]


def test_nothing_is_filled_in_a_gap():
    rows = of_prices("BTC-USD", [100.0 + number for number in range(12)]).rows
    run = played([of_rows("BTC-USD", rows[:4] + rows[8:])], [said(4, horizon_s=36_000.0, expected_return=0.006)])
    trade = run.broker.trades[0]
    assert trade.price == rows[8].open
    assert trade.time_ns == rows[8].open_ns + 2 * SECOND_NS


def test_positions_pay_funding_and_sizing_knows_the_rate():
    candles = [of_prices("BTC-USD", [100.0, 100.0, 100.0, 100.0, 100.0, 100.0])]
    payment = Funding(START_NS + 4 * HOUR_NS, "BTC-USD", 0.001, 8.0)
    run = played(candles, [said(2, horizon_s=36_000.0, expected_return=0.006)], Trading(0.0, 0.0), funding=[payment])
    quantity = run.broker.trades[0].quantity
    assert run.curve.profit[-1] == pytest.approx(-0.001 * quantity * 100.0)
    assert run.curve.funding[-1] == pytest.approx(0.001 * quantity * 100.0)


# -- what is fed back --------------------------------------------------------------------------------------------------
def test_equity_and_holdings_come_back_as_positions_and_every_claim_as_an_outcome():
    candles = market(60)
    signals = [said(hour, signal_id=f"s-{hour}") for hour in range(1, 50, 3)]
    params = parameters(candles)
    found, _ = checked(((f"row {hour}", each) for hour, each in enumerate(signals)), candles, "signals")
    backtest = Backtest(Inputs(candles, FromFile(found), params, COSTS))
    run = backtest.run()
    state = backtest._fold.state
    account = run.broker.accounts["main"]
    book = state.books["main",]
    assert dict(book.positions) == {name: quantity for name, quantity in account.held.items() if quantity}
    assert state.posteriors["main", "mine", "BTC-USD"].posterior.outcomes == len(signals)
    assert (len(run.settlement.settled), run.settlement.open, run.refused) == (len(signals), 0, {})


def test_an_outcome_is_the_return_over_the_horizon():
    prices = [100.0, 101.0, 103.0, 102.0, 105.0, 107.0, 104.0]
    run = played([of_prices("BTC-USD", prices)], [said(2, horizon_s=7_200.0)])
    assert [each.realised for each in run.settlement.settled] == [pytest.approx(105.0 / 103.0 - 1.0)]


def test_a_claim_whose_last_candle_is_missing_has_no_outcome():
    rows = of_prices("BTC-USD", [100.0 + number for number in range(12)]).rows
    run = played([of_rows("BTC-USD", rows[:4] + rows[8:])], [said(3, horizon_s=2.0 * 3_600)])
    assert (run.settlement.settled, run.settlement.unsettled) == ([], 1)


def test_earlier_candles_warm_up_without_signals_or_records():
    candles = market(60)
    since_ns = START_NS + 30 * HOUR_NS
    run = played(candles, [said(10), said(40)], since_ns=since_ns)
    assert run.signals == 1
    assert len(run.curve.time_ns) == 30
    assert run.entries > 60


def test_journal_entries_are_those_of_the_sources(tmp_path):
    candles = market(60)
    execute(Request(candles, settings(), signals=[said(10), said(20)]), archive=tmp_path / "a", check=False)
    found = [journal.read(each.offset, each.value) for each in archived(tmp_path / "a", "journal")]
    times = [each.journaled_at_ns for each in found]
    assert times == sorted(times)
    assert [each.kind for each in found].count("signal") == 2
