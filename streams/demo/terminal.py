"""A terminal's size, and text in the glyphs of its encoding."""

from typing import NamedTuple

from rich.text import Text

BARS = " ▁▂▃▄▅▆▇█"
ASCII = str.maketrans(
    {"↗": "/", "↘": "\\", "→": ">", "≈": "~", "×": "x", "▲": "+", "▼": "-", "·": ".", "…": ".", "−": "-"}
    | dict(zip(BARS, " .:-=+*#@", strict=True))
)


class Terminal(NamedTuple):
    """Size and encoding of a terminal."""

    width: int
    height: int
    ascii_only: bool

    def text(self, text: str, style: str = "") -> Text:
        """Return `text`, transliterated if the terminal is ASCII-only."""
        shown = text.translate(ASCII) if self.ascii_only else text
        return Text(shown.encode("ascii", "replace").decode() if self.ascii_only else shown, style=style)

    def gauge(self, share: float, style: str, width: int = 10) -> Text:
        """Return a share in [0, 1] as a bar filled from the left."""
        filled = min(width, max(0, round(width * share)))
        return Text.assemble(self.text(BARS[5] * filled, style), self.text(BARS[1] * (width - filled), "grey30"))


def column(share: float) -> str:
    """Return a share in [0, 1] as one block glyph of that height."""
    return BARS[min(8, max(1, round(8 * share)))] if share > 0 else BARS[1]
