"""A bar tells how far a long command is, where somebody looks; else stderr stays empty."""

import io
import time
from contextlib import redirect_stderr

import click
import pytest

from streams.audits.pool import side_by_side
from streams.cli.journal_position import PLACE, JournalMark
from streams.cli.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, **asked):
    with redirect_stderr(stream), progress_bar("verifying", **asked) as bar:
        bar.start(2_000)
        bar.advance(500)
        bar.advance(1_500)
    return stream.getvalue()


def test_on_a_terminal_it_counts_to_the_end(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert "2000/2000" in shown(Terminal())


@pytest.mark.parametrize(("stream", "asked"), [(io.StringIO(), {}), (Terminal(), {"shown": False})])
def test_in_a_pipe_and_with_json_there_is_none(stream, asked):
    assert shown(stream, **asked) == ""


def test_a_place_is_a_time_an_entry_or_a_decision():
    assert PLACE.convert("2023-11-14T22:13:20Z", None, None) == JournalMark(1_700_000_000_000_000_000)
    assert PLACE.convert("1700000000000000000", None, None) == JournalMark(1_700_000_000_000_000_000)
    assert PLACE.convert("3:17", None, None) == JournalMark(0, 3, 17)
    assert PLACE.convert("DRIVER22-1-9-a-b", None, None) == JournalMark(0, 1, 9)
    for text in ("", "3:", "x", "-1:3"):
        with pytest.raises(click.UsageError):
            PLACE.convert(text, None, None)


class Square:
    """A job for another process: plain values, and a call."""

    def __init__(self, number, *, fails=False):
        self.number, self.fails = number, fails

    def __call__(self, told):
        if self.fails:
            msg = "this one fails"
            raise ValueError(msg)
        told(1)
        return self.number * self.number


@pytest.mark.parametrize("processes", [1, 2])
def test_jobs_come_back_in_their_order_and_each_tells(processes):
    told = []
    assert side_by_side([Square(number) for number in range(5)], processes, told.append) == [0, 1, 4, 9, 16]
    assert told == [1] * 5


class Heavy(int):
    """A count that is long on its way between processes."""

    def __reduce__(self):
        time.sleep(0.3)
        return int, (int(self),)


class Last:
    """A job that is done at once when it has told its last count."""

    def __call__(self, told):
        told(Heavy(1))
        return "done"


@pytest.mark.parametrize("processes", [1, 2])
def test_no_count_is_lost_however_long_it_takes_to_arrive(processes):
    told = []
    assert side_by_side([Last(), Last()], processes, told.append) == ["done", "done"]
    assert told == [1, 1]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_that_fails_ends_all(processes):
    with pytest.raises(ValueError, match="this one fails"):
        side_by_side([Square(1), Square(2, fails=True)], processes, lambda _: None)
