"""A listener's connections: the silent ones go first, each has little time, and what fails is told now and then."""

import asyncio
import logging
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from streams.monitoring import connections
from streams.monitoring.connections import described
from streams.monitoring.rare_log import RareLog
from streams.monitoring.web import Views, Web


async def connected(port, request=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    return reader, writer


async def answer(reader):
    with suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 5)
    return b""


def pages(scenario, ask):
    """Run a scenario against listening pages; close what it opened."""
    opened = []

    async def opens(request=b""):
        opened.append(await connected(web.ports["web"], request))
        return opened[-1][0]

    async def run():
        await web.start()
        try:
            await scenario(opens)
        finally:
            for _, writer in opened:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for _, writer in opened), return_exceptions=True)
            await web.stop()

    web = Web(Views(CollectorRegistry(), dict, dict, ask=ask), port=0, metrics_port=None)
    asyncio.run(run())


GET = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_new_connection_takes_the_place_of_the_oldest_silent_one_not_of_one_that_asks(monkeypatch):
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)

    async def scenario(opens):
        gate = held["gate"] = asyncio.Event()
        asking, first, second = await opens(GET), await opens(), await opens(b"GET /live HTTP/1.1\r\n")
        await asyncio.wait_for(held["asked"].wait(), 5)
        last = await opens()
        assert await answer(first) == b"", "closed without a word"
        gate.set()
        assert (await answer(asking)).startswith(b"HTTP/1.1 200 ")
        assert not second.at_eof()
        assert not last.at_eof()

    held = {"asked": asyncio.Event()}

    async def ask(question):
        held["asked"].set()
        await held["gate"].wait()
        return question()

    pages(scenario, ask)


def test_who_sends_no_whole_head_is_closed_in_time_and_one_request_is_answered_a_connection(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.2)

    async def scenario(opens):
        silent, slow, quick = await opens(), await opens(GET[:-2] + b"X-Slow: "), await opens(GET + GET)
        assert (await answer(quick)).count(b"HTTP/1.1 200 ") == 1
        assert (await answer(silent), await answer(slow)) == (b"", b"")

    async def ask(question):
        return question()

    pages(scenario, ask)


def test_lines_that_others_cause_are_written_now_and_then_with_their_number(caplog):
    time_s = [0.0]
    log = RareLog(logging.getLogger("trial"), lambda: time_s[0])
    for time_s[0] in (0.0, 1.0, 59.9, 60.0, 61.0, 120.0):
        log.tell("at %s", time_s[0])
    left_out = "and {} more such lines were left out before this one"
    assert caplog.messages == ["at 0.0", "at 60.0", left_out.format(2), "at 120.0", left_out.format(1)]


@pytest.mark.parametrize("error", [ValueError("a secret"), None])
def test_an_error_is_told_by_its_class_alone(error):
    assert "secret" not in described(error)
    assert described(error) == ("ValueError" if error else "no reason given")
