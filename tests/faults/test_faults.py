"""The short version of `make faults`: each fault once, on one Apache Kafka, several side by side.

Two groups, so that two processes of pytest-xdist have one each; a group is tried in one go, when its first test asks.
"""

import asyncio

import pytest
from faults.campaign import campaign, table
from faults.scenarios import SCENARIOS

pytestmark = [pytest.mark.broker, pytest.mark.kafka, pytest.mark.timeout(1_500)]

AT_ONCE = 4
"""Faults side by side, of all processes together: most of their time workers wait for a session to end."""
GROUPS = 2
SHORT = [scenario for scenario in SCENARIOS if scenario.short]
EVERYDAY = {"kill -9 at random times"}
"""In `make test` already."""


def group_of(scenario):
    return f"faults-{SHORT.index(scenario) % GROUPS}"


def parameter(scenario):
    marks = [pytest.mark.xdist_group(group_of(scenario))]
    if scenario.name not in EVERYDAY:
        marks.append(pytest.mark.long)
    return pytest.param(scenario, id=scenario.name, marks=marks)


@pytest.fixture(scope="session")
def tried(request, kafka_broker, tmp_path_factory):
    """Return what tries a fault, with all others of its group that were asked for; it prints their table."""
    wanted = {item.callspec.params["scenario"].name for item in request.session.items if "tried" in item.fixturenames}
    workers = getattr(request.config, "workerinput", {"workercount": 1})["workercount"]
    found = {}

    def attempt(scenario):
        if scenario.name not in found:
            chosen = [each for each in SHORT if group_of(each) == group_of(scenario) and each.name in wanted]
            folder = tmp_path_factory.mktemp("faults")
            at_once = max(1, AT_ONCE // workers)
            work = campaign(chosen, kafka_broker, folder, rounds=1, seed=1, at_once=at_once)
            tries = asyncio.run(work)
            print("\n" + table(tries))  # noqa: T201 the table is what `make faults` shows
            found.update(tries)
        return found[scenario.name]

    return attempt


@pytest.mark.parametrize("scenario", [parameter(scenario) for scenario in SHORT])
def test_after_a_fault_all_is_answered_once_and_provable(tried, scenario):
    (found,) = tried(scenario)
    assert found.problems == ()
    assert found.findings is not None
    assert found.findings.answered > 0
