"""The guide to backtests runs as it is written."""

from pages import ROOT, run


def test_the_notebook_of_the_page_gives_what_it_says():
    ran = run(ROOT / "docs/backtest.md")
    assert (ran.failed, ran.attempted > 15) == (0, True)
