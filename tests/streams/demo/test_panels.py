"""The portfolio's panels: what the dashboard keeps of allocations, and how heat, budgets and weights are drawn."""

import io
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from engines.models import correlation
from engines.parameters import DecisionParams
from engines.pipeline import cache
from engines.state.partition import State
from streams.demo import panels
from streams.demo.correlation_tracker import CorrelationTracker, CorrelationView
from streams.demo.dashboard import Dashboard
from streams.demo.screen import Picture, line
from streams.demo.terminal import Terminal
from streams.history import candles
from streams.history.candles import Candle
from streams.history.feeder import Feeder
from streams.history.simulation import Simulation
from streams.journal.genesis import genesis, new_journal_id
from streams.processing.memory_cluster import Stored
from streams.stages.sizing import SizingFold

HOUR_NS = 3_600 * 10**9
START_NS, END_NS = 500_000 * HOUR_NS, 600_000 * HOUR_NS
INK = Terminal(160, 50, ascii_only=False)
THREE = CorrelationView(
    ("BTC-USD", "ETHUSDT", "SOL-USD"),
    ((1.0, 0.874, -0.05), (0.874, 1.0, 0.5), (-0.05, 0.5, 1.0)),
)


def allocation(cells=None, weights=None, portfolio="main", **given_):
    cells = {("informed", "BTC-USD"): 750_000, ("noise", "BTC-USD"): -250_000} if cells is None else cells
    return {
        "portfolio_id": portfolio,
        "symbol": None,
        "timestamp_ns": HOUR_NS,
        "portfolio_value": 100_000.0,
        "total_allocated_usd": 10_000.0,
        "allocations": {},
        "cells": [{"strategy_id": strategy, "symbol": symbol, "cents": n} for (strategy, symbol), n in cells.items()],
        "strategy_weights": {"informed": 0.6, "noise": 0.4} if weights is None else weights,
        "rl": None,
        "drift": {"ratio": 0.25, "alert": True},
        "drifted_strategies": ["noise"],
        **given_,
    }


def dashboard(*allocations):
    state = State(0)
    state.use(DecisionParams())
    shown = Dashboard("a test", cache.limits(state))
    for each in allocations or (allocation(),):
        shown.take(each)
    return shown


def text(shown, width=160, height=50, **options):
    console = Console(file=io.StringIO(), width=width, height=height, _environ={}, **{"color_system": None, **options})
    console.print(Picture(shown))
    return console.file.getvalue()


def hot(together=THREE):
    shown = dashboard()
    shown.correlations = together
    return shown


# -- the dashboard -----------------------------------------------------------------------------------------------------
def test_budgets_are_gross_over_the_caps_of_symbol_strategy_and_portfolio():
    assert dashboard().budgets["main"] == {
        "position": {"BTC-USD": pytest.approx(10_000 / 15_000)},
        "strategy": {"informed": pytest.approx(7_500 / 40_000), "noise": pytest.approx(2_500 / 40_000)},
        "portfolio": {"all": pytest.approx(10_000 / 80_000)},
    }


def test_a_budget_that_is_no_longer_used_is_empty_not_gone():
    shown = dashboard(allocation(), allocation({("informed", "ETH-USD"): 150_000}))
    assert shown.budgets["main"]["position"] == {"BTC-USD": 0.0, "ETH-USD": pytest.approx(0.1)}
    assert shown.budgets["main"]["strategy"]["noise"] == 0.0


def test_weights_stay_where_a_decision_was_made_without_them():
    shown = dashboard(allocation(), allocation(weights={}, drift={"ratio": 0.1, "alert": False}, drifted_strategies=[]))
    assert shown.strategies["main"] == ({"informed": 0.6, "noise": 0.4}, 0.1, False, ())


def test_without_limits_no_budget_is_claimed():
    shown = Dashboard()
    shown.take(allocation())
    assert not shown.budgets
    assert "of its cap" not in text(shown)


# -- the heat ------------------------------------------------------------------------------------------------------
def test_the_heat_shows_each_pair_in_hundredths_and_the_mean():
    lines = [each.split() for each in text(hot()).splitlines()]
    assert ["BTC", "·", "87", "−5"] in [each[:4] for each in lines]
    assert ["ETH", "87", "·", "50"] in [each[:4] for each in lines]
    assert ["SOL", "−5", "50", "·"] in [each[:4] for each in lines]
    assert ["mean", "44"] in [each[:2] for each in lines]


@pytest.mark.parametrize(
    ("rho", "style"),
    [(-1.0, "white on blue"), (0.0, "grey70 on grey15"), (0.69, "black on yellow3"), (0.7, "black on dark_orange")],
)
def test_a_hotter_pair_has_a_hotter_colour(rho, style):
    assert panels._heat_of(rho) == style


def test_beyond_all_steps_is_the_hottest():
    assert panels._heat_of(0.85) == panels._heat_of(1.0) == panels.HOTTEST


def test_cells_are_coloured_where_there_is_colour_and_plain_under_no_color():
    coloured = text(hot(), color_system="256", force_terminal=True)
    assert "\x1b[1;37;48;5;" in coloured
    console = Console(file=io.StringIO(), width=160, height=50, force_terminal=True, _environ={"NO_COLOR": "1"})
    console.print(Picture(hot()))
    plain = console.file.getvalue()
    assert "87" in plain
    assert "48;5" not in plain


def test_no_heat_is_drawn_of_one_coin_or_of_none():
    assert "corr" not in text(dashboard())
    assert "corr" not in text(hot(CorrelationView(("BTC-USD",), ((1.0,),))))


def test_coins_are_named_by_themselves_and_two_quotes_of_one_stay_two():
    assert [panels._coin(symbol) for symbol in ("BTC-USD", "ETHUSDT", "SOL/USDC", "USDT", "AVERYLONGONE")] == [
        "BTC",
        "ETH",
        "SOL",
        "USDT",
        "AVERY",
    ]
    two = CorrelationView(("BTC-USD", "BTCUSDT"), ((1.0, 0.99), (0.99, 1.0)))
    assert text(hot(two)).count("BTC     ·  99") == 1
    cells = {("informed", "BTC-USD"): 150_000, ("informed", "BTCUSDT"): 300_000}
    assert text(dashboard(allocation(cells))).count("BTC       ▅") == 2


def test_a_terminal_without_unicode_gets_ascii_only():
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=raw, width=160, height=50, color_system=None, _environ={})
    console.print(Picture(hot()))
    raw.flush()
    assert b"-5  50" in raw.buffer.getvalue()


# -- budgets and strategies ----------------------------------------------------------------------------------------
def test_budgets_and_weights_are_drawn_with_what_they_are():
    drawn = text(dashboard())
    assert "BTC       ▅▅▅▅▅▅▅▁▁▁  67%" in drawn
    assert "portfolio ▅▁▁▁▁▁▁▁▁▁  12%" in drawn
    assert "informed ▅  60% ▂  19%" in drawn
    assert "noise    ▃  40% ▁   6%" in drawn
    assert "drift    ▂  25%" in drawn


def test_a_strategy_that_is_not_live_has_no_weight():
    shown = dashboard(allocation(), allocation({("informed", "BTC-USD"): 100}, {"informed": 1.0}))
    assert "noise    ·" in text(shown)


def test_the_panels_are_those_of_the_portfolio_decided_last():
    shown = dashboard(allocation(), allocation({}, {"other": 1.0}, "second"))
    assert "other" in text(shown)
    assert "informed" not in text(shown)


# -- room ----------------------------------------------------------------------------------------------------------
def test_a_narrow_terminal_gets_the_widest_panels_as_lines():
    wide, middle, narrow = (text(hot(), width) for width in (100, 60, 18))
    assert "budgets" not in wide
    assert "budgets portfolio 12% BTC 67%" in middle
    assert "corr. BTC" in middle
    assert "corr. BTC" not in narrow
    assert "correlation 0" in narrow


def test_a_low_terminal_gets_a_line_each():
    drawn = text(hot(), height=11)
    assert "correlation 0.44 mean, BTC ETH  87" in drawn
    assert "strategies informed 60% noise 40%" in drawn
    assert "of its cap" not in drawn


@given(st.integers(40, 220), st.integers(5, 60), st.integers(0, 15))
def test_no_line_is_wider_than_the_terminal_and_room_is_kept_to(width, height, coins):
    together = CorrelationView(
        tuple(f"COIN{n:02d}" for n in range(coins)),
        tuple(tuple(1.0 if i == j else 0.99 for j in range(coins)) for i in range(coins)),
    )
    shown = dashboard(allocation({(f"strategy-{n}", f"COIN{n:02d}"): 10_000 for n in range(coins)}))
    shown.correlations = together
    lines = text(shown, width, height).splitlines()
    assert all(len(each) <= width for each in lines)
    with_pictures = "of its cap" in "\n".join(lines) or "corr." in "\n".join(lines)
    assert len(lines) <= height or not with_pictures


def test_the_plain_line_names_the_mean_correlation():
    assert line(hot()).endswith("main 10% in use, correlation 0.44")


# -- where the numbers come from -----------------------------------------------------------------------------------
def test_nothing_is_shown_before_the_loops_are_loaded_nor_of_one_coin():
    heat = CorrelationTracker(DecisionParams())
    for event in ticks(np.array([[1.0], [1.1], [1.2]])):
        heat.sent(event)
    assert heat.at(END_NS) is None
    heat.load()
    assert heat.at(END_NS) is None


def ticks(closes):
    """Return candles' ticks of coins A, B, …; closes: (hours, coins), NaN where a candle is missing."""
    events = []
    for hour, row in enumerate(np.asarray(closes).tolist(), 500_000):
        for k, close in enumerate(row):
            if not math.isnan(close):
                candle = Candle(hour * HOUR_NS, close, close, close, close, 1.0)
                events.append(candles.tick("ABCDE"[k], (hour + 1) * HOUR_NS, candle))
    return events


def random_walk(hours, coins, seed=5):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((hours, 1)) + 0.5 * rng.standard_normal((hours, coins))
    return 100.0 * np.exp(np.cumsum(0.01 * noise, axis=0)), noise


def loaded(events):
    heat = CorrelationTracker(DecisionParams())
    heat.load()
    for event in events:
        heat.sent(event)
    return heat


def test_the_heat_says_what_numpy_does_and_one_missed_candle_does_not_matter():
    closes, noise = random_walk(2_000, 3)
    truth = np.corrcoef(noise[-100:].T)
    closes[1_950, 1] = np.nan
    seen = loaded(ticks(closes)).at(END_NS)
    assert seen.symbols == ("A", "B", "C")
    for i, j in combinations(range(3), 2):
        assert seen.rows[i][j] == pytest.approx(truth[i, j], abs=0.08)
    assert seen.mean == pytest.approx(np.mean([truth[i, j] for i, j in combinations(range(3), 2)]), abs=0.08)


def test_the_worker_that_folds_the_demos_journal_knows_the_same_to_the_bit():
    closes, _ = random_walk(200, 3)
    closes[150:153, 2] = np.nan
    events, params = ticks(closes), DecisionParams()
    feeder, fold = Feeder(1, 1, params, START_NS), SizingFold(0)
    fold.fold(Stored(0, None, genesis(new_journal_id(7), 1, params, START_NS)))
    for offset, send in enumerate((send for sends in feeder.feed(events) for send in sends), 1):
        fold.fold(Stored(offset, send.key, send.value))
    theirs = correlation.raw(fold.state.moments, params.risk_management.correlation)
    assert fold.state.moments.symbols == ("A", "B", "C")
    assert loaded(events).at(events[-4].time_ns).rows == tuple(map(tuple, theirs.tolist()))


def test_what_lies_ahead_of_the_boards_time_is_not_looked_at():
    closes, _ = random_walk(300, 2)
    whole = loaded(ticks(closes))
    half = loaded(ticks(closes[:100]))
    assert whole.at(START_NS + 100 * HOUR_NS) == half.at(START_NS + 100 * HOUR_NS)
    assert whole.at(END_NS) != half.at(END_NS)


def test_some_weeks_of_the_simulated_market_warm_the_heat():
    simulation = Simulation(7, hours=2)
    seen = loaded(simulation.history()).at(simulation.live_start_ns)
    assert len(seen.symbols) == 5
    assert 0.4 < seen.mean < 0.9


# -- the policy ------------------------------------------------------------------------------------------------------
def asked(*statuses, **gate):
    shown = {"status": "collecting", "decisions": 7, "advantage": -0.00012, "lower": -0.02, "upper": 0.0154, **gate}
    return {"mode": "live", "gate": shown, "cells": [{"status": status} for status in statuses]}


def test_the_policy_is_shown_with_its_gate_what_it_earns_and_its_breaker():
    shown = dashboard(allocation(rl=asked("open", "counted", "counted")))
    shown.alert({"kind": "breaker", "subject": "policy", "severity": "warning", "result": "half_open, was open"})
    drawn = text(shown)
    for words in ("live", "collecting, 7 scored", "−1.2 bp more", "−200.0 to 154.0", "half open", "2 counted, 1 open"):
        assert words in drawn
    assert "breaker half open" in drawn
    assert line(shown).endswith("policy live, gate collecting")


def test_where_nobody_is_asked_nothing_is_shown_of_a_policy():
    assert "policy" not in text(dashboard())
    assert "policy" not in line(dashboard())
