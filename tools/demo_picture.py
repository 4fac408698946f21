"""`python -m tools.demo_picture` runs the demo and writes its live table as docs/images/demo.svg, for the README."""

import asyncio
import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from streams.demo import runner
from streams.demo.runner import Options
from streams.demo.screen import Picture, Screen

TARGET = Path(__file__).parents[1] / "docs/images/demo.svg"
WIDTH, HEIGHT = 112, 40
SECONDS = 20
SHOWN_UNTIL = "2026-01-01T17"
"""Simulated hour of the frame: the crash of the tenth hour is over, its cuts are still in force."""


class Recorder(Screen):
    """A screen that keeps one frame as SVG."""

    frame = ""

    def refresh(self) -> None:
        """Draw as usual, and keep the newest frame until the hour that is shown."""
        super().refresh()
        at = datetime.fromtimestamp(self.dashboard.now_ns / 1e9, UTC).isoformat()
        if at <= SHOWN_UNTIL:
            Recorder.frame = svg(Picture(self.dashboard))


def svg(picture: Any) -> str:
    """Return a renderable as SVG without fonts from elsewhere."""
    console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    console.print(picture)
    drawn = console.export_svg(title="himari demo")
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)


def main() -> None:
    """Run the demo and write the picture."""
    runner.Screen = Recorder  # type: ignore[misc]
    asyncio.run(runner.run(Options(seconds=SECONDS, data=(), seed=7, kafka=False, as_json=False)))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(Recorder.frame, encoding="utf-8")


if __name__ == "__main__":
    main()
