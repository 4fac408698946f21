"""How much is tried, which processes share what, and what this machine could not run.

Hypothesis: `$HYPOTHESIS_PROFILE` is dev (new examples at every run), ci (the same ones at every run; where CI=true) or
nightly (many). What `make test` leaves to `make test-all` is marked `long`: see docs/testing.md.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import shared_brokers
from hypothesis import HealthCheck, settings

from schemas.errors import BrokerUnreachable
from streams.kafka.connection import Connection

SHARED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, **SHARED)
settings.register_profile("ci", max_examples=50, derandomize=True, **SHARED)
settings.register_profile("nightly", max_examples=2_000, **SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev"))

SHARE = pytest.StashKey[shared_brokers.Share]()
FOLDER = pytest.StashKey[Path]()
NO_KAFKA = re.compile(r"Apache Kafka from its jars: (.*)", re.DOTALL)


def fixtures_of(item: pytest.Item) -> set[str]:
    """Return the names of the fixtures of a test, those that its parameters name among them."""
    parameters = getattr(item, "callspec", None)
    chosen = () if parameters is None else parameters.params.values()
    return {*getattr(item, "fixturenames", ()), *(each for each in chosen if isinstance(each, str))}


# -- one broker of each kind for all processes -----------------------------------------------------------------------
def pytest_configure(config: pytest.Config) -> None:
    """Hold the brokers of a run that pytest-xdist spreads; its processes are told where to look."""
    if hasattr(config, "workerinput"):
        config.stash[FOLDER] = Path(config.workerinput["shared_brokers"])
    elif getattr(config.option, "dist", "no") != "no":
        config.stash[SHARE] = share = shared_brokers.Share()
        config.add_cleanup(share.stop)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist where the run's folder is."""
    node.workerinput["shared_brokers"] = str(node.config.stash[SHARE].folder)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process have the tests of the broker with users, and leave to `make test-all` what is there twice.

    A test of every kind of broker runs on the embedded one in `make test`, and on Apache Kafka too if it is `everyday`.
    """
    for item in items:
        fixtures = fixtures_of(item)
        if "guarded_broker" in fixtures:
            item.add_marker(pytest.mark.xdist_group("guarded"))
        twice = "broker" in fixtures and not fixtures.isdisjoint({"kafka_broker", "container_broker"})
        if twice and item.get_closest_marker("everyday") is None:
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Say which brokers the tests want that are left; pytest-xdist tells the controller of the collection after it."""
    folder = session.config.stash.get(FOLDER, None)
    if folder is not None:
        shared_brokers.wanted(folder, (name for item in session.items for name in fixtures_of(item)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """Start what a process wants."""
    node.config.stash[SHARE].start_wanted()


# -- brokers ---------------------------------------------------------------------------------------------------------
@contextmanager
def broker_of(config: pytest.Config, folder: Path, name: str) -> Iterator[Connection]:
    """Run a broker, or use that of the run where pytest-xdist spreads it over processes."""
    shared = getattr(config, "workerinput", {}).get("shared_brokers")
    if shared is not None:
        yield shared_brokers.connection(Path(shared), name)
        return
    with shared_brokers.own(folder, name) as connection:
        yield connection


@pytest.fixture(scope="session")
def embedded_broker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with broker_of(pytestconfig, tmp_path_factory.mktemp("embedded"), "embedded_broker") as connection:
        yield connection


@pytest.fixture(scope="session")
def kafka_broker(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(broker_of(pytestconfig, tmp_path_factory.mktemp("kafka"), "kafka_broker"))
        except BrokerUnreachable as reason:
            shared_brokers.unavailable(f"Apache Kafka from its jars: {reason}")
        yield connection


# -- what this machine could not run ---------------------------------------------------------------------------------
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in one line what was skipped because there is no Apache Kafka to be had here."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        found = NO_KAFKA.search(report.longrepr[2]) if isinstance(report.longrepr, tuple) else None
        if found is not None:
            reasons[found[1]] += 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"NOT RUN HERE: {count} tests on Apache Kafka: {reason}", yellow=True, bold=True)
