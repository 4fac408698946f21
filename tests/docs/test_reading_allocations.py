"""The reader's rule as the page gives it to others works on real records, and agrees with ours."""

from pages import ROOT, run


def test_the_reader_of_the_page_takes_drops_and_halts_as_it_says():
    ran = run(ROOT / "docs/reading_allocations.md")
    assert (ran.failed, ran.attempted > 10) == (0, True)
