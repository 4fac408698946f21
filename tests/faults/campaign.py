# ruff: noqa: T201 - its table is its output
"""`make faults`: every fault many times, and the table of what became of the signals.

python -m faults.campaign --rounds 10 --only zombie --write table.txt
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aiokafka.errors import KafkaError
from faults.judge import Findings
from faults.rig import Rig
from faults.scenarios import SCENARIOS, Scenario

from schemas.errors import SizingError
from streams.kafka import broker as brokers
from streams.kafka.apache_kafka import apache_kafka
from streams.kafka.broker import BrokerProcess
from streams.kafka.connection import Connection


class Try(NamedTuple):
    """One try of one fault."""

    findings: Findings | None
    """None: it could not be judged."""
    problems: tuple[str, ...]
    elapsed_s: float


async def attempt(scenario: Scenario, broker: BrokerProcess | Connection, folder: Path, seed: int) -> Try:
    """Hurt a fresh cluster once, and judge it; whatever does not hold is a problem, not an error."""
    began = time.monotonic()
    node = apache_kafka(folder) if scenario.own_broker else None
    rig = Rig(node or broker, folder, seed)
    findings = None
    try:
        if node is not None:
            node.start()
            await node.ready()
        await rig.cluster.lay()
        await scenario.hurt(rig)
        findings = await rig.verdict(two_owners=scenario.two_owners)
        problems = findings.problems
    except (AssertionError, SizingError, TimeoutError, KafkaError) as broken:
        problems = (f"{type(broken).__name__}: {broken}",)
    finally:
        await rig.end()
        if node is not None:
            node.stop()
    return Try(findings, problems, time.monotonic() - began)


COLUMNS = "fault", "tries", "signals", "lost", "twice", "repeats", "tables repaired", "chain, state, verify", "s"


def table(tries: Mapping[str, Sequence[Try]]) -> str:
    """Return the table in Markdown."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS)]
    for name, each in tries.items():
        if not each:
            continue
        found = [one.findings for one in each if one.findings is not None]
        whole = sum(not one.problems for one in each)
        rows.append(
            (
                name,
                str(len(each)),
                str(sum(one.signals for one in found)),
                str(sum(one.lost for one in found)),
                str(sum(one.twice for one in found)),
                str(sum(one.repeats for one in found)),
                str(sum(one.spoiled for one in found)),
                f"{whole} of {len(each)}",
                f"{sum(one.elapsed_s for one in each) / len(each):.0f}",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


async def campaign(
    scenarios: Sequence[Scenario],
    broker: BrokerProcess | Connection,
    folder: Path,
    *,
    rounds: int,
    seed: int,
    at_once: int,
    told: Callable[[Mapping[str, Sequence[Try]]], None] = lambda _tries: None,
) -> dict[str, list[Try]]:
    """Try every scenario `rounds` times, `at_once` side by side, those with a broker of their own too.

    `told`: called after each try, with what was tried so far.
    """
    places = asyncio.Semaphore(at_once)
    tries: dict[str, list[Try]] = {scenario.name: [] for scenario in scenarios}

    async def one(number: int, scenario: Scenario) -> None:
        async with places:
            found = await attempt(scenario, broker, homes[number], seed + number)
            tries[scenario.name].append(found)
            told(tries)
            for problem in found.problems:
                print(f"{scenario.name}, seed {seed + number}: {problem}", file=sys.stderr, flush=True)

    turns = [scenario for _ in range(rounds) for scenario in scenarios]
    homes = [folder / str(number) for number in range(len(turns))]
    for home in homes:
        home.mkdir()
    await asyncio.gather(*(one(number, scenario) for number, scenario in enumerate(turns)))
    return tries


def main() -> None:
    """Run the campaign; exit 1 where anything did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--write", type=Path, help="keep the table of what was tried so far in a file")
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    chosen = [scenario for scenario in SCENARIOS if given.only in scenario.name]
    with tempfile.TemporaryDirectory(prefix="himari-faults-") as name:
        folder = Path(name)
        with brokers.running(apache_kafka(folder)) as broker:
            work = campaign(
                chosen,
                broker,
                folder,
                rounds=given.rounds,
                seed=given.seed,
                at_once=given.at_once,
                told=lambda tries: given.write and given.write.write_text(table(tries) + "\n"),
            )
            tries = asyncio.run(work)
    print(table(tries))
    sys.exit(any(one.problems for each in tries.values() for one in each))


if __name__ == "__main__":
    main()
