"""The Faust application and its settings, and the owner of a topic's processors."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT

from streams.journal.topics import JOURNAL_BYTES_MAX, ROOM, Names
from streams.kafka.connection import Connection
from streams.processing.ports import Send
from streams.processing.processor import Processor
from streams.worker.transport import CHUNK_RECORDS, BatchTransport

BATCH_BYTES = 512 * 1024
FETCH_BYTES_MAX = 4 << 20
STREAM_BUFFER_CHUNKS = 4
"""Faust's default of 4,096 would mean 4,096 chunks."""


def new_app(
    names: Names,
    connection: Connection,
    *,
    data_dir: Path,
    batched: Iterable[str],
    sparse: Iterable[str] = (),
    idempotent: bool = True,
    chunk_records: int = CHUNK_RECORDS,
    fetch_max_wait_ms: int = 50,
    session_timeout_s: float = 6.0,
    commit_interval_s: float = 1.0,
    **settings: Any,
) -> faust.App:
    """Return an application on the batched transport, without agents and tables, that stops at an agent's error.

    `batched` and `sparse` are logical names of topics (see `BatchTransport`). `idempotent` must be False on the
    embedded broker (see `streams.kafka.connection.is_embedded`). `settings` go to Faust and override those here.
    """
    app = faust.App(
        **{
            "id": names.application,
            "broker": "kafka://" + ";kafka://".join(connection.bootstrap.split(",")),
            "broker_credentials": credentials(connection),
            "broker_session_timeout": session_timeout_s,
            "broker_heartbeat_interval": min(1.0, session_timeout_s / 3),
            "broker_max_poll_records": chunk_records,
            "broker_commit_interval": commit_interval_s,
            "consumer_max_fetch_size": FETCH_BYTES_MAX,
            "consumer_auto_offset_reset": "earliest",
            "producer_acks": -1,
            "producer_max_batch_size": BATCH_BYTES,
            "producer_max_request_size": JOURNAL_BYTES_MAX + ROOM,
            "stream_buffer_maxsize": STREAM_BUFFER_CHUNKS,
            "stream_recovery_delay": 0.0,
            "stream_wait_empty": False,  # chunks wait for a checkpoint; a rebalance must not wait for it
            "processing_guarantee": "at_least_once",
            "store": "rocksdb://",
            "datadir": str(data_dir),
            "topic_disable_leader": True,
            "topic_allow_declare": False,
            "autodiscover": False,
            "web_enabled": False,
            "worker_redirect_stdouts": False,
        }
        | settings,
    )
    app.transport = BatchTransport(
        app.conf.broker_consumer,
        app,
        connection=connection,
        batched=frozenset(map(names.topic, batched)),
        sparse=frozenset(map(names.topic, sparse)),
        idempotent=idempotent,
        fetch_max_wait_ms=fetch_max_wait_ms,
        chunk_records=chunk_records,
    )
    app._on_agent_error = crash  # noqa: SLF001 `app.agent(on_error=…)` raises TypeError; the default commits past it
    return app


async def crash(agent: Any, error: BaseException) -> None:
    """Stop the worker at an agent's error, with nothing acknowledged."""
    await agent.app.crash(error)


def credentials(connection: Connection) -> CredentialsT | None:
    """Return Faust's credentials of a connection; None if it is plain text."""
    security = dict(connection.security)
    protocol = security.get("security_protocol", "PLAINTEXT")
    context = security.get("ssl_context")
    if protocol.startswith("SASL"):
        return SASLCredentials(
            mechanism=security.get("sasl_mechanism", "PLAIN"),
            username=security.get("sasl_plain_username"),
            password=security.get("sasl_plain_password"),
            ssl_context=context,
        )
    return SSLCredentials(context=context) if protocol == "SSL" else None


class Owned:
    """The processors of the partitions of one topic that this worker owns now.

    Register it with the transport as the topic's owner; the topic's agent calls `begin` with each event. Partitions are
    folded at the same time, each its own chunks in order, and take turns after each part of a chunk: a partition with
    much to do delays another one by a part, not by all that waits.
    """

    def __init__(self, app: faust.App, make: Callable[[int], Processor]) -> None:
        """`make`: returns a new processor of a partition."""
        self._app, self._make = app, make
        self.processors: dict[int, Processor] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._begun: set[asyncio.Task[None]] = set()
        """Chunks and checkpoints in progress."""
        self._waiting: dict[int, int] = defaultdict(int)
        """Records of each partition that were begun and are not folded."""
        self._stopping = False

    async def assigned(self, partition: int) -> int:
        """Recover the partition's state; return the offset to read from."""
        async with self._lock(partition):
            processor = self._make(partition)
            processor.background = self._run
            first = await processor.recover()
            self.processors[partition] = processor
            return first

    async def revoked(self, partition: int) -> None:
        """Wait for the current chunk and checkpoint, then drop the partition's processor."""
        async with self._lock(partition):
            processor = self.processors.pop(partition, None)
            if processor is not None:
                await processor.wait_idle()

    def has_room(self, partition: int) -> bool:
        """Return whether another chunk of a partition may be fetched: less than a chunk waits to be folded."""
        return self._waiting[partition] < int(self._app.transport.chunk_records)

    def begin(self, event: Any) -> None:
        """Fold a chunk once those of its partition that were begun before it are folded; a failure stops the worker."""
        self._waiting[event.message.partition] += len(event.value)
        self._run(self._fold(event))

    async def _fold(self, event: Any) -> None:
        try:
            await self.take(event)
        finally:
            self._waiting[event.message.partition] -= len(event.value)

    async def take(self, event: Any) -> None:
        """Pass a chunk to its processor, which acknowledges it.

        A chunk from before the last rebalance is dropped, and so is what waits when the worker stops.
        """
        message = event.message
        async with self._lock(message.partition):
            processor = self.processors.get(message.partition)
            current = message.generation_id == self._app.consumer_generation_id and not self._stopping
            if processor is not None and current:
                await processor.take(event.value, event.ack)

    async def act(self, partition: int, effect: Callable[[], list[Send]]) -> None:
        """Run an effect that no record triggers on a partition, if it is still owned.

        Once started it completes even if its caller is cancelled: interrupted, it would leave memory ahead of what is
        published, and the last checkpoint of a clean stop would fail.
        """
        await asyncio.shield(self._act(partition, effect))

    async def _act(self, partition: int, effect: Callable[[], list[Send]]) -> None:
        async with self._lock(partition):
            processor = self.processors.get(partition)
            if processor is not None:
                await processor.act(effect)

    async def checkpoint(self) -> None:
        """Write a last checkpoint of every processor, concurrently, before a clean stop: no other chunk is folded."""
        self._stopping = True
        for processor in self.processors.values():
            processor.leave_off()
        await asyncio.gather(*(self._checkpoint(partition) for partition in sorted(self.processors)))

    async def _checkpoint(self, partition: int) -> None:
        async with self._lock(partition):
            if partition in self.processors:
                await self.processors[partition].checkpoint()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Fold a chunk or write a checkpoint in the background; a failure stops the worker."""
        task = asyncio.ensure_future(work)
        self._begun.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._begun.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._begun.add(asyncio.ensure_future(self._app.crash(error)))

    def _lock(self, partition: int) -> asyncio.Lock:
        return self._locks.setdefault(partition, asyncio.Lock())


def own(app: faust.App, topic: str, owned: Owned) -> None:
    """Make `owned` the owner of a topic (name on the broker), with an agent that passes it the chunks."""
    channel = app.topic(topic, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes)
    app.transport.owners[topic] = owned

    async def fold(stream: faust.StreamT) -> None:
        async for event in stream.noack().events():
            owned.begin(event)

    app.agent(channel, name=f"{topic}-owner")(fold)
