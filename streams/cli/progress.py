"""How far a long command is: a bar on stderr, where somebody looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar:
    """Told how much there is, and how much of it is done."""

    def __init__(self, progress: Progress | None, what: str) -> None:
        self._progress = progress
        self._task: Any = None if progress is None else progress.add_task(what, total=None)

    def begun(self, total: int) -> None:
        """Take how much there is."""
        if self._progress is not None:
            self._progress.update(self._task, total=total)

    def told(self, more: int) -> None:
        """Take that so much more is done."""
        if self._progress is not None:
            self._progress.advance(self._task, more)


@contextmanager
def progress_bar(what: str, *, shown: bool = True) -> Iterator[ProgressBar]:
    """Give a bar; it is silent where nobody asked for it, or stderr is no terminal."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield ProgressBar(None, what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        yield ProgressBar(progress, what)
