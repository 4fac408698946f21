"""The thread that detects a stuck worker, serves its pages, and stops it.

A worker's event loop cannot report that it hangs, so the watchdog and the web pages run in their own loop in a separate
thread. The worker watches it in turn: if the watchdog stops, the worker stops as well.
"""

import asyncio
import faulthandler
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, NoReturn

from schemas.errors import WorkerStuck
from streams.monitoring.connections import loop_errors
from streams.monitoring.rare_log import RareLog
from streams.worker.run import leave
from streams.worker.stall_detector import Stall, Vital, Watchdog, stuck, suspects

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.5
ANSWER_S: Final = 2.0
"""How long a page waits for the worker's loop."""
GRACE_S: Final = 5.0
"""How long a stuck worker may take to stop by itself."""
LOOP: Final = "event loop"


class Watchman:
    """The watchdog of one worker, started in the worker's loop.

    `vitals`: returns what to watch, called in the worker's loop. `crash`: makes the worker stop, called there too.
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
        """Why the worker must stop; "" if it need not."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: Future[None] = Future()

    # -- in the worker's loop ------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Start watching."""
        self._worker, self._main = asyncio.get_running_loop(), threading.get_ident()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(loop_errors(RareLog(logger).tell))
        self._thread = threading.Thread(target=self._loop.run_forever, name="himari-watchman", daemon=True)
        self._thread.start()
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)

    async def run(self, task: Coroutine[Any, Any, None]) -> None:
        """Run a task in the watchdog's loop, or in this one if that is not running; return when it is done."""
        if self._loop is None:
            await task
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(task, self._loop))

    async def pulse(self) -> None:
        """Report regularly that the loop runs, and the vitals it observes.

        Raises:
            WorkerStuck: the watchdog has stopped.
        """
        while True:
            self._seen, self._turns = self._vitals(), self._turns + 1
            if self._watching.done():
                why = "cancelled" if self._watching.cancelled() else repr(self._watching.exception())
                msg = f"the watchdog has stopped: {why}"
                raise WorkerStuck(msg)
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Stop watching."""
        faulthandler.cancel_dump_traceback_later()
        self._watching.cancel()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join)
            self._loop.close()
            self._loop = None

    def suspects(self) -> dict[str, str]:
        """Return the stalls that make the worker not ready, by part."""
        return {stall.name: f"{stall.trouble} for {stall.stalled_s:.0f} s" for stall in suspects(self.stalls)}

    # -- in the watchdog's loop ----------------------------------------------------------------------------------------
    async def ask(self, question: Callable[[], Any]) -> Any:
        """Return the answer of the worker's loop. Raises: TimeoutError if the loop does not run."""
        asked = asyncio.run_coroutine_threadsafe(_answer(question), self._worker)
        return await asyncio.wait_for(asyncio.wrap_future(asked), ANSWER_S)

    def not_alive(self) -> str:
        """Return why the worker should be restarted; "" if it need not."""
        return self.reason or ("the watchdog has stopped" if self._watching.done() else "")

    async def _watch(self) -> None:
        """Observe until the worker is stuck; then stop it."""
        dog = Watchdog()
        while not self.reason:
            faulthandler.dump_traceback_later(2 * self._patience_s() + GRACE_S, exit=True)
            loop = Vital(LOOP, self._turns, "has not run", self._patience_s())
            self.stalls = dog.look(time.monotonic(), (loop, *self._seen))
            self.reason = stuck(self.stalls)
            await asyncio.sleep(LOOK_S)
        if not any(stall.name == LOOP for stall in suspects(self.stalls)):
            self._worker.call_soon_threadsafe(self._crash, WorkerStuck(self.reason))
            await asyncio.sleep(GRACE_S)
        self._end()

    def _end(self) -> NoReturn:
        """Exit the process regardless of the worker's loop; print the reason and that loop's stack."""
        where = sys._current_frames().get(self._main)  # noqa: SLF001 the only way to another thread's stack
        sys.stderr.write(f"himari: worker stuck: {self.reason}\n{''.join(traceback.format_stack(where))}")
        leave(WorkerStuck.exit_code)


async def _answer(question: Callable[[], Any]) -> Any:
    return question()
