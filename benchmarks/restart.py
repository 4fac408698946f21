"""Restart: time from process start to the first allocation with 1,000 portfolios, and its stages.

Cold: the local store is missing and is restored from the changelogs. Warm: it exists. Both fold a tail of the journal
that is not in a checkpoint. The stages are timed inside the worker.
"""

import asyncio
import json
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from aiokafka import AIOKafkaProducer, TopicPartition

from benchmarks import rig
from benchmarks.rig import SYMBOLS, Lane, broker, prices, spread
from config.settings import Settings
from streams.journal import entries as journal
from streams.journal.genesis import genesis, new_journal_id
from streams.journal.topics import Names
from streams.kafka import admin
from streams.kafka.append import OutgoingRecord, append
from streams.kafka.journal_origin import begin
from streams.processing.partitioner import partition_of

PORTFOLIOS: Final = 1_000
PARTITIONS: Final = 12
CELLS: Final = 5
TAIL: Final = 2_000
"""Journal entries after the last checkpoint."""
TARGET_S: Final = 10.0
"""Warm."""
MODULE: Final = ("-m", "benchmarks.restart")
STAGES: Final = ("import", "look at the broker", "join the group", "local stores", "states", "first allocation")
CPU: Final = "cpu of the worker"


def _settings(at: Lane) -> Settings:
    tree = at.settings().model_dump()
    tree["topics"]["partitions"] = PARTITIONS
    return Settings.model_validate(tree)


def _entry(number: int, now_ns: int) -> tuple[int, bytes]:
    """Return (partition, journal entry) of a signal."""
    fields = rig.signal(number, now_ns, PORTFOLIOS, CELLS)
    return partition_of(fields["portfolio_id"].encode(), PARTITIONS), journal.internal("signal", fields, now_ns)


async def _append(at: Lane, first: int, count: int) -> None:
    """Append `count` signals to the journal, after a price of every symbol in every partition."""
    now_ns = time.time_ns()
    lines: dict[int, list[OutgoingRecord]] = {
        partition: [OutgoingRecord(None, prices(now_ns))] for partition in range(PARTITIONS)
    }
    for number in range(first, first + count):
        partition, value = _entry(number, now_ns + number)
        lines[partition].append(OutgoingRecord(None, value))
    producer = AIOKafkaProducer(**at.connection.options(), max_batch_size=1 << 20)
    await producer.start()
    try:
        for partition, each in lines.items():
            await append(producer, TopicPartition(at.names.topic(journal.TOPIC), partition), each)
    finally:
        await producer.stop()


async def _run(path: Path, allocations: int) -> dict[str, float]:
    """Start a worker, stop it after `allocations` allocations, and return the times of its stages, s."""
    began = time.monotonic()
    command = [sys.executable, *MODULE, str(path), repr(began), str(allocations)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    try:
        async with asyncio.timeout(rig.PATIENCE_S):
            line = await process.stdout.readline() if process.stdout else b""
            process.send_signal(signal.SIGTERM)
            if await process.wait():
                msg = f"the worker stopped with exit code {process.returncode}"
                raise RuntimeError(msg)
    finally:
        if process.returncode is None:
            process.kill()
    found: dict[str, float] = json.loads(line)
    return found


async def run(kind: str, *, quick: bool = False) -> dict[str, Any]:
    """Return seconds to the first allocation and per stage, cold and warm."""
    runs, tail = (1, 200) if quick else (3, TAIL)
    async with broker(kind) as (connection, folder):
        at = Lane(connection, Names("restart"), folder)
        settings = _settings(at)
        path, data = folder / "restart.yaml", Path(settings.kafka.data_dir)
        path.write_text(json.dumps(settings.model_dump(exclude_defaults=True)))
        await admin.apply(connection, at.names, PARTITIONS)
        await begin(
            connection,
            at.names,
            PARTITIONS,
            genesis(new_journal_id(1), PARTITIONS, settings.decision(), time.time_ns()),
        )
        sent = PORTFOLIOS * CELLS
        await _append(at, 0, sent)
        first = await _run(path, sent)
        found: dict[str, list[dict[str, float]]] = {"warm": [], "cold": []}
        for _ in range(runs):
            for way, times in found.items():
                await _append(at, sent, tail)
                sent += tail
                if way == "cold":
                    shutil.rmtree(data)
                times.append(await _run(path, 1))
    return {
        "broker": kind,
        "portfolios": PORTFOLIOS,
        "partitions": PARTITIONS,
        "tail": tail,
        "target_warm_s": TARGET_S,
        "symbols": len(SYMBOLS),
        "first start s": _whole(first),
        **{way: _report(times) for way, times in found.items()},
    }


def _report(times: list[dict[str, float]]) -> dict[str, Any]:
    stages = {stage: statistics.median(each[stage] for each in times) for stage in (*STAGES, CPU)}
    return {"first_allocation_s": spread([_whole(each) for each in times]), **stages}


def _whole(stages: dict[str, float]) -> float:
    return sum(stages[stage] for stage in STAGES)


# -- the worker with a stopwatch ---------------------------------------------------------------------------------------
class Stopwatch:
    """The time each stage last ended, on the system-wide monotonic clock."""

    def __init__(self, began: float) -> None:
        self.began, self.ended = began, dict.fromkeys(STAGES, began)

    def after(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `call` so that the end of `stage` is recorded after it."""

        def noted(*given: Any, **named: Any) -> Any:
            found = call(*given, **named)
            self.note(stage)
            return found

        return noted

    def note(self, stage: str) -> None:
        self.ended[stage] = time.monotonic()

    def stages(self) -> dict[str, float]:
        """Return seconds per stage, and the processor time used by the worker."""
        times = [self.began, *(self.ended[stage] for stage in STAGES)]
        took = {stage: max(0.0, end - before) for stage, before, end in zip(STAGES, times, times[1:], strict=False)}
        return took | {CPU: time.process_time()}


async def _worker(text: str, watch: Stopwatch, allocations: int) -> NoReturn:
    from streams.kafka.connection import Connection  # noqa: PLC0415 (imports are a stage)
    from streams.monitoring.metrics import ProcessorMetrics  # noqa: PLC0415
    from streams.worker import worker  # noqa: PLC0415
    from streams.worker.run import leave  # noqa: PLC0415
    from streams.worker.transport import BatchConsumer  # noqa: PLC0415

    watch.note("import")
    settings = Settings.model_validate(json.loads(text))
    made = await worker.prepare(settings, Connection(settings.kafka.bootstrap_servers), time.time_ns)
    watch.note("look at the broker")
    BatchConsumer.on_partitions_assigned = _before(watch, "join the group", BatchConsumer.on_partitions_assigned)
    BatchConsumer.perform_seek = _before(watch, "local stores", BatchConsumer.perform_seek)
    ProcessorMetrics.recovered = watch.after("states", ProcessorMetrics.recovered)  # type: ignore[method-assign]
    published = 0
    taken = ProcessorMetrics.taken

    def first(self: Any, records: int, sends: int) -> None:
        nonlocal published
        taken(self, records, sends)
        before, published = published, published + (sends if self._name == "sizing" and records else 0)
        if before < allocations <= published:
            watch.note("first allocation")
            print(json.dumps(watch.stages()), flush=True)

    ProcessorMetrics.taken = first  # type: ignore[method-assign]
    leave(await made.run())


def _before(watch: Stopwatch, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
    async def noted(*given: Any, **named: Any) -> Any:
        watch.note(stage)
        return await call(*given, **named)

    return noted


def main() -> None:
    """Be a worker: SETTINGS.json BEGAN ALLOCATIONS."""
    import uvloop  # noqa: PLC0415

    path, began, allocations = sys.argv[1:4]
    uvloop.run(_worker(Path(path).read_text(), Stopwatch(float(began)), int(allocations)))


if __name__ == "__main__":
    main()
