"""Progress bar of a long command, on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar:
    """Progress of one task; prints nothing if `progress` is None."""

    def __init__(self, progress: Progress | None, what: str) -> None:
        self._progress = progress
        self._task: Any = None if progress is None else progress.add_task(what, total=None)

    def start(self, total: int) -> None:
        """Set the total."""
        if self._progress is not None:
            self._progress.update(self._task, total=total)

    def advance(self, more: int) -> None:
        """Add completed work."""
        if self._progress is not None:
            self._progress.advance(self._task, more)


@contextmanager
def progress_bar(what: str, *, shown: bool = True) -> Iterator[ProgressBar]:
    """Yield a progress bar; it is silent unless `shown` and stderr is a terminal."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield ProgressBar(None, what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        yield ProgressBar(progress, what)
