"""The thread that sees when a worker is stuck, answers for it, and ends it.

A worker's loop cannot tell that it hangs. So the watchdog and the web pages live in a loop of their own, in a thread of
their own. Each watches the other: a watchdog that has died ends the worker, too.
"""

import asyncio
import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, NoReturn

from schemas.errors import WorkerStuck
from streams.worker.run import leave
from streams.worker.stall_detector import Stall, Vital, Watchdog, stuck, suspects

LOOK_S: Final = 0.5
ANSWER_S: Final = 2.0
"""For so long a page waits for the worker's loop."""
GRACE_S: Final = 5.0
"""For so long a stuck worker may take to end by itself."""
LOOP: Final = "event loop"


class Watchman:
    """The watch over one worker, begun in the worker's loop.

    `vitals`: what must go on, asked in the worker's loop. `crash`: lets the worker end by itself, called there as well.
    """

    def __init__(
        self,
        vitals: Callable[[], tuple[Vital, ...]],
        patience_s: Callable[[], float],
        crash: Callable[[WorkerStuck], object],
    ) -> None:
        self._vitals, self._patience_s, self._crash = vitals, patience_s, crash
        self._turns = 0
        self._seen: tuple[Vital, ...] = ()
        self.stalls: list[Stall] = []
        self.reason = ""
        """Why the worker must end; "" where it need not."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: Future[None] = Future()

    # -- in the worker's loop ------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Begin to watch."""
        self._worker, self._main = asyncio.get_running_loop(), threading.get_ident()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="himari-watchman", daemon=True)
        self._thread.start()
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)

    async def aside(self, task: Coroutine[Any, Any, None]) -> None:
        """Run something in the watch's own loop, or here where none turns; return when it is done."""
        if self._loop is None:
            await task
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(task, self._loop))

    async def pulse(self) -> None:
        """Show that the loop turns, and what it sees of the worker.

        Raises:
            WorkerStuck: the watchdog has ended.
        """
        while True:
            self._seen, self._turns = self._vitals(), self._turns + 1
            if self._watching.done():
                why = "cancelled" if self._watching.cancelled() else repr(self._watching.exception())
                msg = f"the watchdog has ended: {why}"
                raise WorkerStuck(msg)
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Watch no longer."""
        faulthandler.cancel_dump_traceback_later()
        self._watching.cancel()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join)
            self._loop.close()
            self._loop = None

    def suspects(self) -> dict[str, str]:
        """Return what has stood still for too long to be well, by part."""
        return {stall.name: f"{stall.trouble} for {stall.stood_s:.0f} s" for stall in suspects(self.stalls)}

    # -- in the watch's loop -------------------------------------------------------------------------------------------
    async def ask(self, question: Callable[[], Any]) -> Any:
        """Let the worker's loop answer. Raises: TimeoutError where it does not turn."""
        asked = asyncio.run_coroutine_threadsafe(_answer(question), self._worker)
        return await asyncio.wait_for(asyncio.wrap_future(asked), ANSWER_S)

    def not_alive(self) -> str:
        """Return why the worker should be started anew."""
        return self.reason or ("the watchdog has ended" if self._watching.done() else "")

    async def _watch(self) -> None:
        """Look until the worker is stuck; then end it."""
        dog = Watchdog()
        while not self.reason:
            faulthandler.dump_traceback_later(2 * self._patience_s() + GRACE_S, exit=True)
            turning = Vital(LOOP, self._turns, "has not turned", self._patience_s())
            self.stalls = dog.look(time.monotonic(), (turning, *self._seen))
            self.reason = stuck(self.stalls)
            await asyncio.sleep(LOOK_S)
        if not any(stall.name == LOOP for stall in suspects(self.stalls)):
            self._worker.call_soon_threadsafe(self._crash, WorkerStuck(self.reason))
            await asyncio.sleep(GRACE_S)
        self._end()

    def _end(self) -> NoReturn:
        """End the process, whatever the worker's loop does; say why, and where that loop is."""
        where = sys._current_frames().get(self._main)  # noqa: SLF001 the only way to another thread's stack
        sys.stderr.write(f"himari: worker stuck: {self.reason}\n{''.join(traceback.format_stack(where))}")
        leave(WorkerStuck.exit_code)


async def _answer(question: Callable[[], Any]) -> Any:
    return question()
