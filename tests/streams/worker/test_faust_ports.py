import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from streams.demo import screen as table
from streams.demo.dashboard import NEWS_MAX, TRAIL_MAX, Dashboard
from streams.demo.screen import MEDIUM, ROWS_MAX, WIDE, Picture, Screen

NOW_NS = 1_767_286_800_000_000_000
KELLY = (
    ("kelly", 0, 30_900_000, ""),
    ("conformal", 30_900_000, 23_100_000, ""),
    ("risk_score", 23_100_000, 18_000_000, ""),
    ("sentiment", 18_000_000, 18_900_000, ""),
    ("regime", 18_900_000, 18_900_000, ""),
    ("cascade", 18_900_000, 9_450_000, ""),
    ("drawdown", 9_450_000, 9_450_000, ""),
    ("caps", 9_450_000, 1_234_500, "cell cap, strategy cap"),
    ("limits", 1_234_500, 1_234_500, ""),
    ("band", 1_234_500, 1_234_500, ""),
)


def allocation(steps=KELLY, symbol="BTC-USD", strategy="momentum", **given):
    final = steps[-1][2] / 100 if steps else 0.0
    return {
        "portfolio_id": "main",
        "symbol": symbol,
        "strategy_id": strategy,
        "timestamp_ns": NOW_NS,
        "portfolio_value": 100_000.0,
        "total_allocated_usd": abs(final),
        "allocations": {symbol: final},
        "kept": [],
        "trigger": {"kind": "signal", "id": "s-1"},
        "waterfall": [
            {"stage": stage, "before_cents": before, "after_cents": after, "reason": reason}
            for stage, before, after, reason in steps
        ],
        "position_size_usd": final,
        "cascade_recommendation": "REDUCE_50%",
        "current_regime": "trending_up",
        "diagnostics": {"side": 1, "kelly": {"calibration": 0.62}},
        "cells": [{"strategy_id": strategy, "symbol": symbol, "cents": round(100 * final)}],
        "strategy_weights": {strategy: 1.0},
        "rl": None,
        "drift": {"ratio": 0.0, "alert": False},
        "drifted_strategies": [],
        **given,
    }


def cut(symbol="BTC-USD"):
    """What a cascade's decision looks like: of no cell, by ratio."""
    fields = allocation((), symbol, trigger={"kind": "cascade", "id": symbol})
    for name in ("symbol", "strategy_id", "position_size_usd", "cascade_recommendation", "current_regime"):
        del fields[name]
    return fields


def alert(symbol="BTC-USD", side="long", level="EXIT", time_ns=NOW_NS):
    return {
        "kind": "cascade",
        "severity": "critical" if level == "EXIT" else "warning",
        "subject": f"{symbol}:{side}",
        "value": 0.91,
        "result": level,
        "timestamp_ns": time_ns,
    }


def dashboard(*allocations):
    shown = Dashboard("a test")
    for each in allocations or (allocation(),):
        shown.take(each)
    return shown


def text(shown, width=160, **options):
    console = Console(file=io.StringIO(), width=width, color_system=None, _environ={}, **options)
    console.print(Picture(shown))
    return console.file.getvalue()


def row_of(drawn, *words):
    return next(each for each in drawn.splitlines() if all(word in each for word in words))


def test_a_row_says_what_each_stage_left_and_why():
    row = row_of(text(dashboard()), "BTC-USD")
    stages = ["309k", "231k", "180k", "189k", "·", "94.5k", "·", "12.3k"]
    shown = ["12,345", "12,345", "cut", "50%", "↗", "up", "0.62", "▅", "cascade"]
    assert row.split() == ["BTC-USD", "momentum", "▲", *stages, *shown]


def test_the_stage_that_took_most_is_the_why_where_it_gives_no_reason():
    steps = (
        ("kelly", 0, 1_000_000, ""),
        ("risk_score", 1_000_000, 300_000, ""),
        ("caps", 300_000, 200_000, "cell cap"),
    )
    assert dashboard(allocation(steps)).rows["main", "BTC-USD", "momentum"].why == "risk score"


def test_a_zero_says_what_made_it_zero_not_what_took_most():
    steps = (("kelly", 0, 1_000_000, ""), ("regime", 1_000_000, 200_000, ""), ("cascade", 200_000, 0, ""))
    assert dashboard(allocation(steps)).rows["main", "BTC-USD", "momentum"].why == "cascade"


def test_a_gate_is_named():
    steps = (("kelly", 0, 0, "no edge"), ("conformal", 0, 0, ""), ("caps", 0, 0, ""))
    assert dashboard(allocation(steps)).rows["main", "BTC-USD", "momentum"].why == "no edge"


def test_an_expired_forecast_is_named():
    steps = (("kelly", 0, 0, "no forecast"),)
    fields = allocation(steps, trigger={"kind": "expiry", "id": "momentum/BTC-USD"})
    assert dashboard(fields).rows["main", "BTC-USD", "momentum"].why == "forecast expired"


def test_a_change_too_small_to_trade_is_named():
    steps = (("kelly", 0, 500_000, ""), ("band", 500_000, 500_000, ""))
    assert (
        dashboard(allocation(steps, kept=["BTC-USD"])).rows["main", "BTC-USD", "momentum"].why == "too small a change"
    )


def test_a_short_is_signed_in_its_sizes():
    steps = (("kelly", 0, -500_000, ""), ("band", -500_000, -500_000, ""))
    row = row_of(text(dashboard(allocation(steps, diagnostics={"side": -1}))), "BTC-USD")
    assert "▼" in row
    assert row.count("−5,000") == 2


def test_a_cut_of_the_whole_portfolio_changes_the_target_and_leaves_the_row():
    shown = dashboard()
    shown.take(cut())
    shown.alert(alert())
    row = row_of(text(shown), "BTC-USD", "momentum")
    assert "EXIT" in row
    assert "12,345" in row
    assert shown.targets == {("main", "BTC-USD"): 0.0}
    assert shown.allocations == 2


def test_a_symbol_that_is_no_longer_named_is_no_longer_a_target():
    shown = dashboard(allocation(), allocation(symbol="ETH-USD"))
    assert shown.targets == {("main", "ETH-USD"): 12_345.0}


def test_the_latest_decision_of_each_cell_is_shown_once():
    shown = dashboard(allocation(), allocation(strategy="reversion"), allocation(), allocation(symbol="ETH-USD"))
    assert [*shown.rows] == [
        ("main", "BTC-USD", "momentum"),
        ("main", "BTC-USD", "reversion"),
        ("main", "ETH-USD", "momentum"),
    ]
    drawn = text(shown)
    assert drawn.count("BTC-USD") == 1
    assert sum("momentum" in each and "▲" in each for each in drawn.splitlines()) == 2


def test_a_level_is_that_of_the_rows_own_side():
    shown = dashboard(allocation(), allocation(strategy="short", diagnostics={"side": -1}))
    shown.alert(alert(side="short", level="REDUCE_75%"))
    drawn = text(shown)
    assert "cut 50%" in row_of(drawn, "momentum")
    assert "cut 75%" in row_of(drawn, "short ")


def test_what_befalls_many_symbols_together_is_one_piece_of_news():
    shown = dashboard()
    for n, symbol in enumerate(("SOL-USD", "ADA-USD", "SOL-USD")):
        shown.alert(alert(symbol, time_ns=NOW_NS + n * 10**9))
    (news,) = shown.news
    assert (news.subjects, news.text, news.grave) == (("ADA-USD", "SOL-USD"), "cascade, long side: EXIT", True)
    shown.alert(alert("SOL-USD", time_ns=NOW_NS + 7_200 * 10**9))
    assert len(shown.news) == 2


def test_a_change_of_regime_is_news_once():
    shown = dashboard(allocation(), allocation(strategy="reversion"))
    assert not shown.news
    shown.take(allocation(current_regime="crisis"))
    shown.take(allocation(strategy="reversion", current_regime="crisis"))
    assert [each.text for each in shown.news] == ["regime trending up → crisis"]
    assert "× crisis" in text(shown)


def test_news_and_posteriors_are_bounded():
    shown = Dashboard()
    for n in range(50):
        shown.take(allocation(diagnostics={"side": 1, "kelly": {"calibration": n / 50}}))
        shown.alert(alert(time_ns=NOW_NS + n * 7_200 * 10**9))
    assert len(shown.news) == NEWS_MAX
    row = shown.rows["main", "BTC-USD", "momentum"]
    assert row.trail == tuple(n / 50 for n in range(50 - TRAIL_MAX, 50))


def test_a_hold_is_drawn_from_what_was_held():
    steps = (("held", 0, 400_000, ""), ("cut", 400_000, 400_000, ""), ("band", 400_000, 400_000, ""))
    fields = allocation(steps)
    for name in ("diagnostics", "cascade_recommendation", "current_regime"):
        del fields[name]
    row = row_of(text(dashboard(allocation(), fields)), "BTC-USD")
    assert "4,000" in row
    assert "▲" in row
    assert "cut 50%" in row


def test_several_portfolios_are_told_apart():
    shown = dashboard(allocation(), allocation(portfolio_id="other"))
    drawn = text(shown)
    assert "main BTC-USD" in drawn
    assert "other BTC-USD" in drawn


def test_only_the_newest_cells_are_drawn_where_there_are_many():
    shown = dashboard(*(allocation(symbol=f"S{n:03d}", timestamp_ns=NOW_NS + n) for n in range(100)))
    drawn = text(shown)
    assert f"and {100 - ROWS_MAX} more cells" in drawn
    assert "S099" in drawn
    assert "S075" not in drawn


def test_the_counters_and_the_share_in_use_stand_at_the_head():
    shown = dashboard()
    shown.signals, shown.dead_letters, shown.lag = 1_234, 5, 6
    head = " ".join(text(shown).split())
    assert "1,234 signals 1 allocations 5 dead letters 6 lag" in head
    assert "12%" in head
    assert "2026-01-01 17:00 UTC" in head


def test_progress_is_drawn_only_where_there_is_an_end():
    shown = dashboard()
    assert "━" not in text(shown)
    shown.done, shown.total = 30.0, 120.0
    assert "━" in text(shown)
    assert "25%" in text(shown)


def test_an_empty_board_can_be_drawn():
    assert "symbol" in text(Dashboard())


@given(st.integers(40, 250), st.booleans())
def test_no_line_is_wider_than_the_terminal(width, total):
    shown = dashboard(allocation(), allocation(symbol="A-VERY-LONG-SYMBOL-INDEED", strategy="a-strategy-with-a-name"))
    shown.total = 10.0 if total else None
    shown.alert(alert())
    assert all(len(each) <= width for each in text(shown, width).splitlines())


def test_a_narrower_terminal_gets_bars_for_stages_and_then_no_regimes():
    wide, medium, narrow = (text(dashboard(), width) for width in (WIDE + 2, MEDIUM + 2, MEDIUM - 6))
    assert "draw." in wide
    assert "stages" not in wide
    assert "stages" in medium
    assert "↗ up" in medium
    assert "↗ up" not in narrow
    assert "█▆▅▅▅▂▂▁" in medium
    assert "cut 50%" in narrow


def test_a_terminal_without_unicode_gets_ascii_only():
    shown = dashboard()
    shown.alert(alert())
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=raw, width=160, color_system=None, _environ={})
    console.print(Picture(shown))
    raw.flush()
    assert b"12,345" in raw.buffer.getvalue()


@pytest.mark.parametrize(
    ("cents", "shown"),
    [
        (0, "0"),
        (99, "1"),
        (81_200, "812"),
        (99_990, "1k"),
        (981_234, "9.81k"),
        (30_900_000, "309k"),
        (123_456_700, "1.23M"),
    ],
)
def test_sizes_are_short(cents, shown):
    assert table._short(cents) == table._short(-cents) == shown


@given(st.integers(0, 10**13), st.integers(0, 10**13))
def test_short_sizes_keep_their_order_and_have_at_most_five_characters(one, other):
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}

    def value(cents):
        shown = table._short(cents)
        assert len(shown) <= 5
        return float(shown[:-1]) * scale[shown[-1]] if shown[-1] in scale else float(shown)

    small, large = sorted((one, other))
    assert value(small) <= value(large)
    assert value(small) == pytest.approx(small / 100, rel=0.006, abs=0.51)


# -- the screen ----------------------------------------------------------------------------------------------------
def screen(shown, wall, **environ):
    stream = io.StringIO()
    console = Console(file=stream, width=160, _environ=environ)
    return Screen(shown, console, every_s=5.0, wall=lambda: wall[0]), stream


def test_where_there_is_no_terminal_a_plain_line_is_written_now_and_then():
    shown, wall = dashboard(), [0.0]
    shown.signals = 7
    with screen(shown, wall)[0] as pipe:
        stream = pipe.console.file
        counts = []
        for now_s in (0.0, 1.0, 4.9, 5.0, 9.0, 10.1):
            wall[0] = now_s
            shown.lag += 1
            pipe.refresh()
            counts.append(stream.getvalue().count("\n"))
    assert counts == [1, 1, 1, 2, 2, 3]
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "2026-01-01 17:00 UTC, 7 signals, 1 allocations, 0 dead letters, lag 6, main 12% in use"
    assert len(lines) == 3
    assert "\x1b" not in stream.getvalue()


def test_the_end_is_told_whenever_it_comes_but_nothing_twice():
    shown, wall = dashboard(), [0.0]
    with screen(shown, wall)[0] as pipe:
        pipe.refresh()
        shown.lag = 3
    assert [each.split("lag ")[1] for each in pipe.console.file.getvalue().splitlines()] == [
        "0, main 12% in use",
        "3, main 12% in use",
    ]


def test_before_anything_came_no_time_is_told():
    assert table.line(Dashboard()).startswith("not begun, 0 signals")


def test_the_plain_line_names_progress_and_levels_in_force():
    shown = dashboard()
    shown.done, shown.total = 1.0, 4.0
    shown.alert(alert("SOL-USD"))
    shown.alert(alert("ETH-USD", level="MONITOR"))
    assert table.line(shown).endswith("lag 0, 25% done, main 12% in use, SOL-USD EXIT")


def drawn_on_a_terminal(**environ):
    console = Console(file=io.StringIO(), width=160, height=40, force_terminal=True, _environ=environ)
    with Screen(dashboard(), console) as terminal:
        terminal.refresh()
    return console.file.getvalue()


def test_a_terminal_gets_the_table_and_keeps_the_last_one():
    drawn = drawn_on_a_terminal(TERM="xterm-256color")
    assert "12,345" in drawn
    assert drawn.rstrip("\n").count("BTC-USD") >= 2
    assert "\x1b[?25h" in drawn


def test_no_color_is_respected():
    assert ";5;" in drawn_on_a_terminal(TERM="xterm-256color") or "\x1b[38" in drawn_on_a_terminal(
        TERM="xterm-256color"
    )
    plain = drawn_on_a_terminal(TERM="xterm-256color", NO_COLOR="1")
    assert not any(code in plain for code in (";5;", "\x1b[38", "\x1b[31", "\x1b[32", "\x1b[48"))
    assert "12,345" in plain


def test_the_time_shown_never_goes_back():
    shown = dashboard(allocation(), allocation(timestamp_ns=NOW_NS - 1))
    assert shown.now_ns == NOW_NS
    times = [each.timestamp_ns for each in shown.rows.values()]
    assert all(before <= after for before, after in pairwise(times))
