"""The side agent: reads questions, asks the policy with bounded concurrency, and journals every result.

`take` never blocks its caller. This process answers each question once; if another process answered it too, the first
answer in the journal wins.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from schemas import wire
from schemas.errors import InvalidAdviceException
from schemas.rl import Advice, NoAdvice, RlRequest
from streams.journal import entries as journal
from streams.policy.client import Outcome, PolicyClient, no_advice
from streams.processing.partitioner import partition_of
from streams.processing.ports import Send

logger = logging.getLogger(__name__)

PLACE: Final = "rl-requests"
WAITING_MAX: Final = 10_000
"""Longest queue; further questions are refused immediately."""
KNOWN_MAX: Final = 20_000
"""Questions remembered to drop redelivered ones."""

Question = tuple[str, str, str]


class Watcher(Protocol):
    """Receives the agent's events, for metrics."""

    def came(self, outcome: Outcome) -> None:
        """Count the result of a question."""

    def repeated(self) -> None:
        """Count a redelivered question that was dropped."""

    def load(self, in_flight: int, waiting: int) -> None:
        """Record the number of questions in flight and in the queue."""


class Unwatched:
    """A watcher that ignores all events."""

    def came(self, outcome: Outcome) -> None:
        """Do nothing."""

    def repeated(self) -> None:
        """Do nothing."""

    def load(self, in_flight: int, waiting: int) -> None:
        """Do nothing."""


class SideAgent:
    """Asks the policy outside the decision path. `run` writes the answers; all other methods return immediately."""

    def __init__(
        self,
        desk: PolicyClient,
        *,
        max_in_flight: int,
        partitions: int,
        clock: Callable[[], int],
        send: Callable[[list[Send]], Awaitable[None]],
        watcher: Watcher | None = None,
    ) -> None:
        """Ask through `desk`, at most `max_in_flight` at once.

        Results go through `send` to a journal of `partitions` partitions, with journal time (ns) from `clock`.
        """
        self.desk = desk
        self.max_in_flight = max_in_flight
        self._partitions, self._clock, self._send = partitions, clock, send
        self._watcher: Watcher = watcher or Unwatched()
        self._known: OrderedDict[Question, None] = OrderedDict()
        self._waiting: deque[RlRequest] = deque()
        self._asking: dict[asyncio.Task[None], PolicyClient] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._outbox: list[Send] = []
        self._filled = asyncio.Event()
        self._stopped = False

    @property
    def in_flight(self) -> int:
        """Number of questions in flight."""
        return len(self._asking)

    @property
    def waiting(self) -> int:
        """Number of queued questions."""
        return len(self._waiting)

    def take(self, records: Sequence[bytes | None]) -> None:
        """Queue records of `rl-requests`. Invalid records are logged and skipped, repeated ones are dropped."""
        for raw in records:
            try:
                request = wire.decode_ours(RlRequest, raw or b"", place=PLACE)
            except InvalidAdviceException as error:
                logger.error("invalid policy request skipped: %s", error)  # noqa: TRY400 the text is sufficient
                continue
            if self._is_known(request):
                self._watcher.repeated()
            elif len(self._waiting) >= WAITING_MAX:
                detail = f"more than {WAITING_MAX} questions are queued"
                self._journal(Outcome(no_advice(request, "refused", detail), asked=False, took_s=0.0))
            else:
                self._waiting.append(request)
        self._fill()

    async def run(self) -> None:
        """Write answers to the journal in batches as they arrive, until cancelled. Raises if a write fails."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            sends, self._outbox = self._outbox, []
            await self._send(sends)

    def replace(self, desk: PolicyClient, max_in_flight: int | None = None) -> None:
        """Send new questions through another client. The old one is closed when its questions have finished."""
        old, self.desk = self.desk, desk
        if max_in_flight is not None:
            self.max_in_flight = max_in_flight
        if old.adapter is not desk.adapter:
            asking = [task for task, at in self._asking.items() if at is old]
            leaving = asyncio.ensure_future(_close_after(old, asking))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._fill()

    async def stop(self) -> None:
        """Stop immediately. Questions in flight are cancelled; their deadlines settle them in the journal."""
        self._stopped = True
        self._waiting.clear()
        tasks = [*self._asking, *self._leaving]
        desks = {id(desk): desk for desk in (*self._asking.values(), self.desk)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for desk in desks.values():
            await desk.adapter.close()

    # -- asking --------------------------------------------------------------------------------------------------------
    def _fill(self) -> None:
        while self._waiting and len(self._asking) < self.max_in_flight and not self._stopped:
            task = asyncio.ensure_future(self._ask(self._waiting.popleft(), self.desk))
            self._asking[task] = self.desk
            task.add_done_callback(self._asked)
        self._watcher.load(len(self._asking), len(self._waiting))

    async def _ask(self, request: RlRequest, desk: PolicyClient) -> None:
        self._journal(await desk.answer(request))

    def _asked(self, task: asyncio.Task[None]) -> None:
        del self._asking[task]
        if not task.cancelled() and task.exception() is not None:
            logger.error("policy question failed unexpectedly", exc_info=task.exception())
        self._fill()

    def _is_known(self, request: RlRequest) -> bool:
        name = (request.decision_id, request.strategy_id, request.symbol)
        if name in self._known:
            return True
        self._known[name] = None
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return False

    def tell(self, send: Send) -> None:
        """Publish another record, after the answers already queued."""
        self._outbox.append(send)
        self._filled.set()

    # -- writing -------------------------------------------------------------------------------------------------------
    def _journal(self, outcome: Outcome) -> None:
        self.tell(entry_of(outcome.result, self._clock(), self._partitions))
        self._watcher.came(outcome)


def entry_of(result: Advice | NoAdvice, now_ns: int, partitions: int) -> Send:
    """Return the journal entry of an answer or its absence, on the portfolio's partition."""
    kind = "advice" if isinstance(result, Advice) else "no_advice"
    key = result.portfolio_id.encode()
    value = journal.internal(kind, result.model_dump(exclude_none=True), now_ns)
    return Send(journal.TOPIC, partition_of(key, partitions), key, value)


async def _close_after(desk: PolicyClient, asking: Sequence[asyncio.Task[None]]) -> None:
    if asking:
        await asyncio.wait(asking)
    await desk.adapter.close()
