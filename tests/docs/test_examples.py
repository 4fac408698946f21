"""The examples run, and say what they should."""

import runpy

from pages import ROOT


def test_the_example_of_the_library_sizes_a_signal_lets_a_cascade_cut_it_and_learns(capsys):
    runpy.run_path(str(ROOT / "examples/phase1.py"), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "calm:     13500.00 USD, MONITOR, bound by ['symbol:BTC-USD']"
    assert said[1] == "cascade:   3375.00 USD, REDUCE_75%"
    assert said[-1].startswith("learnt:  0.4")
