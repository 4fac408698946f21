"""Sections encoded once: each stream gets the newest form of what it has not seen."""

import orjson

from streams.page.board import Board


def names(events):
    return [line.removeprefix("event: ") for line in events.decode().splitlines() if line.startswith("event: ")]


def test_a_new_stream_gets_every_section_and_then_only_what_changed():
    board = Board()
    for name in ("verdict", "view"):
        board.put(name, {"n": 1})
    version, events = board.since(0)
    assert names(events) == ["verdict", "view"]
    assert board.since(version) == (version, b"")
    board.put("view", {"n": 1})
    assert board.since(version) == (version, b""), "nothing has changed"
    board.put("view", {"n": 2})
    assert names(board.since(version)[1]) == ["view"]


def test_a_stream_that_missed_some_gets_the_newest_form_once():
    board = Board()
    for number in range(9):
        board.put("view", {"n": number})
    _, events = board.since(1)
    (data,) = (line for line in events.decode().splitlines() if line.startswith("data: "))
    assert orjson.loads(data.removeprefix("data: ")) == {"n": 8}


def test_an_event_is_one_line_of_data_whatever_is_in_it():
    board = Board()
    board.put("view", {"name": "a\n\nevent: verdict\ndata: {}\r\n"})
    assert board.sections["view"].event.count(b"\n") == 3
