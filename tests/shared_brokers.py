"""One broker of each kind for a whole run, shared by all processes that pytest-xdist starts.

Each process says which kinds its tests want once it has collected them; the one that controls the run starts those
that are wanted, writes their addresses into the run's folder, and stops them at its end. Topics are kept apart by a
prefix of each test's own. Without pytest-xdist a process starts what it wants itself.
"""

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from schemas.errors import BrokerUnreachable
from streams.kafka import broker as brokers
from streams.kafka.apache_kafka import apache_kafka
from streams.kafka.broker import HOST, BrokerProcess
from streams.kafka.connection import Connection, answers

MAKERS: Final[dict[str, Callable[[Path], BrokerProcess]]] = {
    "embedded_broker": brokers.embedded,
    "kafka_broker": apache_kafka,
}
"""Fixture → what makes its broker in a folder."""
PATIENCE_S: Final = 90.0
POLL_S: Final = 0.05


def unavailable(reason: str) -> None:
    """Skip loudly, with the reason; in CI a broker that cannot be had is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def wanted(folder: Path, names: Iterable[str]) -> None:
    """Say which of the brokers the tests of this process want."""
    for name in MAKERS.keys() & set(names):
        (folder / f"{name}.wanted").touch()


def connection(folder: Path, name: str) -> Connection:
    """Return the address of a broker of the run, once it answers.

    Raises:
        BrokerUnreachable: it cannot be had here, or does not answer.
    """
    path, deadline = folder / f"{name}.json", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        told = json.loads(path.read_text()) if path.exists() else {}
        if "unavailable" in told:
            raise BrokerUnreachable(told["unavailable"])
        if told and asyncio.run(answers(HOST, told["port"])):
            return Connection(f"{HOST}:{told['port']}")
        time.sleep(POLL_S)
    raise BrokerUnreachable(f"{name} of this run did not answer within {PATIENCE_S:g} s: see {folder}")


@contextmanager
def own(folder: Path, name: str) -> Iterator[Connection]:
    """Run a broker for this process alone."""
    with brokers.running(MAKERS[name](folder)) as broker:
        yield Connection(broker.bootstrap)


class Share:
    """The brokers of a run, as the process that controls it holds them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="himari-brokers-"))
        self.running: dict[str, BrokerProcess | None] = {}

    def start_wanted(self) -> None:
        """Start what is wanted and does not run yet; those who want it wait until it answers."""
        for name in MAKERS:
            if name not in self.running and (self.folder / f"{name}.wanted").exists():
                self.running[name] = self._start(name)

    def _start(self, name: str) -> BrokerProcess | None:
        home = self.folder / name
        home.mkdir()
        try:
            node = MAKERS[name](home)
        except BrokerUnreachable as reason:
            self._tell(name, {"unavailable": str(reason)})
            return None
        node.start()
        self._tell(name, {"port": node.port})
        return node

    def _tell(self, name: str, told: dict[str, object]) -> None:
        fresh = self.folder / f"{name}.fresh"
        fresh.write_text(json.dumps(told))
        fresh.rename(self.folder / f"{name}.json")

    def stop(self) -> None:
        """Stop what runs, and leave nothing behind."""
        for node in self.running.values():
            if node is not None:
                node.stop()
        self.running.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
