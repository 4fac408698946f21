"""The short version of `make faults`: each fault once, on one Apache Kafka, several side by side."""

import asyncio

import pytest
from broker.conftest import unavailable
from faults.campaign import campaign, table
from faults.scenarios import SCENARIOS

from schemas.errors import BrokerUnreachable
from streams.kafka import broker as brokers
from streams.kafka.jars import apache_kafka

pytestmark = [pytest.mark.broker, pytest.mark.kafka, pytest.mark.timeout(900)]

AT_ONCE = 4
SHORT = [scenario for scenario in SCENARIOS if scenario.short]


@pytest.fixture(scope="session")
def tries(request, tmp_path_factory):
    """Try the faults that were asked for, all in one go, and print the table."""
    wanted = {item.callspec.params["scenario"].name for item in request.session.items if "tries" in item.fixturenames}
    chosen = [scenario for scenario in SHORT if scenario.name in wanted]
    folder = tmp_path_factory.mktemp("faults")
    try:
        node = apache_kafka(folder)
    except BrokerUnreachable as reason:
        unavailable(f"Apache Kafka from its jars: {reason}")
    with brokers.running(node) as broker:
        found = asyncio.run(campaign(chosen, broker, folder, rounds=1, seed=1, at_once=AT_ONCE))
    print("\n" + table(found))  # noqa: T201 the table is what `make faults` shows
    return found


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_after_a_fault_all_is_answered_once_and_provable(tries, scenario):
    (found,) = tries[scenario.name]
    assert found.problems == ()
    assert found.findings is not None
    assert found.findings.answered > 0
