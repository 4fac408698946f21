"""The examples run, and say what they should."""

import runpy

from pages import ROOT


def test_the_example_of_the_portfolio_lets_correlated_coins_share_their_risk(capsys):
    runpy.run_path(str(ROOT / "examples/phase2.py"), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    taken = [int(line.split("took ")[1].removesuffix("%")) for line in said[:3]]
    assert [line[:3] for line in said[:3]] == ["BTC", "ETH", "SOL"]
    assert taken[0] > 10
    assert taken[1] > 10
    assert taken[2] == 0
    assert said[3] == "weights {'carry': 0.333, 'momentum': 0.333, 'reversion': 0.333}"
    assert said[5].startswith("1700360000000000000,2023-11-19T02:13:20+00:00,carry,BTC-USD,0.333")


def test_the_example_of_the_library_sizes_a_signal_lets_a_cascade_cut_it_and_learns(capsys):
    runpy.run_path(str(ROOT / "examples/phase1.py"), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "calm:     13500.00 USD, MONITOR, bound by ['symbol:BTC-USD']"
    assert said[1] == "cascade:   3375.00 USD, REDUCE_75%"
    assert said[-1].startswith("learnt:  0.4")
