"""The examples run, and say what they should."""

import ast
import runpy

import pytest
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
    assert said[0] == "calm:      3851.39 USD, MONITOR, bound by []"
    assert said[1] == "cascade:    964.56 USD, REDUCE_75%"
    assert said[-2].startswith("learnt:  0.232")


def test_the_example_of_the_policy_measures_it_and_lets_the_rules_decide(capsys):
    runpy.run_path(str(ROOT / "examples/phase3.py"), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("rules:  13")
    assert said[1] == "gate:   collecting after 19 decisions, breaker closed"


@pytest.mark.parametrize("name", ["phase1", "phase2", "phase3"])
def test_the_examples_use_the_front_door_alone_and_end_with_what_they_have_shown(name, capsys):
    path = ROOT / f"examples/{name}.py"
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert said.isascii()
    assert said.splitlines()[-1].startswith("Shown: ")
    modules = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    assert [module for module in modules if module.split(".")[0] in {"streams", "engines", "schemas", "config"}] == []
    assert "himari" in modules
