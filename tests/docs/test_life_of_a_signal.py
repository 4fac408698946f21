"""One signal's way is what the page says, byte for byte."""

from pages import ROOT, run


def test_every_number_and_byte_of_the_page_comes_out_again():
    ran = run(ROOT / "docs/life_of_a_signal.md")
    assert (ran.failed, ran.attempted > 40) == (0, True)
