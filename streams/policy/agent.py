"""The side agent: takes questions as they come, asks so many at once, and journals what became of each.

Taking never waits, so whoever feeds it is never held up. A question is answered once by this process; where another
one has answered it already, the fold's first-answer-wins decides.
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
"""Questions that wait for a free place; what comes beyond is refused at once."""
KNOWN_MAX: Final = 20_000
"""Questions that are remembered, so that one that is delivered again is not asked again."""

Question = tuple[str, str, str]


class Watcher(Protocol):
    """Told what the agent does, to be counted."""

    def came(self, outcome: Outcome) -> None:
        """Take what became of a question."""

    def repeated(self) -> None:
        """Take that a question was delivered again, and dropped."""

    def load(self, in_flight: int, waiting: int) -> None:
        """Take how many questions are being asked, and how many wait for that."""


class Unwatched:
    """Counts nothing."""

    def came(self, outcome: Outcome) -> None:
        """Take nothing."""

    def repeated(self) -> None:
        """Take nothing."""

    def load(self, in_flight: int, waiting: int) -> None:
        """Take nothing."""


class SideAgent:
    """Asks the policy beside the decisions. `run` writes the answers; the rest returns at once."""

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
        """Ask at `desk`, so many at once; journal (`partitions`, journal time from `clock`) by `send`."""
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
        """How many questions are being asked now."""
        return len(self._asking)

    @property
    def waiting(self) -> int:
        """How many wait for a free place."""
        return len(self._waiting)

    def take(self, records: Sequence[bytes | None]) -> None:
        """Take records of `rl-requests`; one that is no request is logged, one that is known is dropped."""
        for raw in records:
            try:
                request = wire.decode_ours(RlRequest, raw or b"", place=PLACE)
            except InvalidAdviceException as error:
                logger.error("a record that is no question is passed over: %s", error)  # noqa: TRY400 its text says all
                continue
            if self._is_known(request):
                self._watcher.repeated()
            elif len(self._waiting) >= WAITING_MAX:
                detail = f"more than {WAITING_MAX} questions wait to be asked"
                self._journal(Outcome(no_advice(request, "refused", detail), asked=False, took_s=0.0))
            else:
                self._waiting.append(request)
        self._fill()

    async def run(self) -> None:
        """Write answers to the journal as they come, many at once, until cancelled; what cannot be written raises."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            sends, self._outbox = self._outbox, []
            await self._send(sends)

    def replace(self, desk: PolicyClient, max_in_flight: int | None = None) -> None:
        """Ask at another desk from now on; what is being asked at the old one is awaited there, then it is closed."""
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
        """Stop at once: what is being asked is given up, and closed by its deadline in the journal."""
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
            logger.error("a question was lost", exc_info=task.exception())
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
        """Publish something beside the answers, after those that are waiting."""
        self._outbox.append(send)
        self._filled.set()

    # -- writing -------------------------------------------------------------------------------------------------------
    def _journal(self, outcome: Outcome) -> None:
        self.tell(entry_of(outcome.result, self._clock(), self._partitions))
        self._watcher.came(outcome)


def entry_of(result: Advice | NoAdvice, now_ns: int, partitions: int) -> Send:
    """Return the journal entry that holds an answer, or why there is none, on its portfolio's partition."""
    kind = "advice" if isinstance(result, Advice) else "no_advice"
    key = result.portfolio_id.encode()
    value = journal.internal(kind, result.model_dump(exclude_none=True), now_ns)
    return Send(journal.TOPIC, partition_of(key, partitions), key, value)


async def _close_after(desk: PolicyClient, asking: Sequence[asyncio.Task[None]]) -> None:
    if asking:
        await asyncio.wait(asking)
    await desk.adapter.close()
