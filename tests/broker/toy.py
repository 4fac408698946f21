"""A toy worker, run as a process of its own: sums per key on `journal`, every sum on `allocations`.

TOY_STRAYS=back in its environment sets its consumer back to the start of partition 0 once it has read something;
TOY_STRAYS=ahead lets the first seek there go 50 records too far.

python tests/broker/toy.py BOOTSTRAP PREFIX DATA_DIR embedded|kafka
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from faust.types import TP

from streams.journal.topics import Names
from streams.kafka.connection import Connection
from streams.processing.ports import FoldRecord, Identity, Record, RecordKey, Send
from streams.processing.processor import Processor
from streams.worker.application import Owned, new_app, own
from streams.worker.faust_ports import FaustPorts, make_tables
from streams.worker.run import leave, serve
from streams.worker.transport import BatchConsumer

MODULUS = 1_000_000_007
POISON = b"poison"


class Toy:
    """Folds numbers; every key has a running hash that depends on the order."""

    tables = ("books",)
    audited = "allocations"

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.touched: dict[RecordKey, int] = {}
        self.state: dict[bytes, tuple[int, int]] = {}

    def fold(self, record: Record) -> list[Send]:
        if record.value == POISON:
            message = "poison"
            raise ValueError(message)
        key = record.key
        sequence, total = self.state.get(key, (0, 0))
        sequence, total = sequence + 1, (total * 31 + int(record.value)) % MODULUS
        self.state[key] = (sequence, total)
        self.touched["books", key] = record.offset
        value = b"%s,%d,%d,%d" % (key, sequence, record.offset, total)
        return [Send("allocations", self.partition, key, value, (), Identity(key.decode(), sequence))]

    def encode(self, key: RecordKey) -> bytes | None:
        return json.dumps(self.state[key[1]]).encode() if key[1] in self.state else None

    def meta(self) -> dict[str, object]:
        return {"keys": len(self.state)}

    def restore(self, meta: Mapping[str, object] | None, records: Mapping[RecordKey, bytes]) -> None:
        assert meta is None or meta["keys"] == len(records)
        self.state = {key: tuple(json.loads(value)) for (_, key), value in records.items()}

    def refold(self) -> FoldRecord:
        self.restore(None, {})
        return self.fold

    def identify(self, value: bytes) -> tuple[Identity, int]:
        key, sequence, offset, _ = value.split(b",")
        return Identity(key.decode(), int(sequence)), int(offset)


def build(
    connection: Connection, names: Names, data_dir: Path, *, embedded: bool, entries: int = 5_000, **settings: Any
) -> tuple[Any, Owned]:
    """Return the toy's application and the owner of its processors."""
    app = new_app(
        names,
        connection,
        data_dir=data_dir,
        batched=["journal"],
        idempotent=not embedded,
        session_timeout_s=2.0 if embedded else 6.0,
        **settings,
    )
    tables = make_tables(app, "journal")

    def make(partition: int) -> Processor:
        ports = FaustPorts(app, tables, connection=connection, names=names, source="journal", partition=partition)
        return Processor(
            Toy(partition), ports, partition=partition, clock=time.monotonic_ns, checkpoint_entries=entries
        )

    owned = Owned(app, make)
    own(app, names.topic("journal"), owned)
    return app, owned


async def main() -> NoReturn:
    bootstrap, prefix, data_dir, kind = sys.argv[1:5]
    app, owned = build(Connection(bootstrap), Names(prefix), Path(data_dir), embedded=kind == "embedded", entries=1_000)
    way, place = os.environ.get("TOY_STRAYS"), TP(Names(prefix).topic("journal"), 0)
    if way == "ahead":
        app.transport.Consumer = ahead(place)
    strays = asyncio.create_task(stray(app, place) if way == "back" else asyncio.sleep(0))
    try:
        code = await serve(app, before_stop=owned.checkpoint)
    finally:
        strays.cancel()
    leave(code)


def ahead(place: TP) -> type[BatchConsumer]:
    """Return a consumer whose first seek to a place goes too far."""

    class Ahead(BatchConsumer):
        done = False

        async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
            if place in partitions and not self.done:
                self.done = True
                partitions = {**partitions, place: partitions[place] + 50}
            await super().seek_wait(partitions)

    return Ahead


async def stray(app: Any, place: TP) -> None:
    """Set the consumer back behind the transport's back, once."""
    while not (app.consumer.started and (app.consumer.delivered(place) or 0) > 0):
        await asyncio.sleep(0.02)
    await app.consumer._thread.seek_wait({place: 0})


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(main())
