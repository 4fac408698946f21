"""HTML without injection: all text is escaped unless it is `Markup`."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

VOID = frozenset({"meta", "line", "rect", "path", "polyline", "polygon"})

STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --dim: #667; --line: #d5d9e0; --paper: #fff; --up: #1d7f5f;
  --down: #b8442e; --mark: #2f5fb3 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --dim: #9aa3ad; --line: #3a414a; --paper: #15181c; --up: #4cc39a; --down: #ee7d66;
    --mark: #7fa8f0 }
}
body { font: 14px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
th { color: var(--dim); font-weight: 600 }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.ok { color: var(--up) } .bad { color: var(--down); font-weight: 600 } .dim { color: var(--dim) }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--ink) } svg .dim { fill: var(--dim) }
.up { fill: var(--up) } .down { fill: var(--down) } .mark { fill: var(--mark) } .axis { stroke: var(--line) }
.a, .b { fill: none; stroke-width: 2 } .a { stroke: var(--dim) } .b { stroke: var(--mark) }
.s0, .s1, .s2, .s3, .s4 { fill: none; stroke-width: 1.4; stroke-linejoin: round } .s0 { stroke: var(--mark) }
.s1 { stroke: var(--up) } .s2 { stroke: var(--down) } .s3 { stroke: var(--dim) } .s4 { stroke: var(--ink) }
.dash { stroke-dasharray: 5 3 } .area { fill: var(--down); opacity: .35 } .band { fill: var(--mark); opacity: .3 }
.plus { background: color-mix(in srgb, var(--up) 18%, transparent) }
.minus { background: color-mix(in srgb, var(--down) 18%, transparent) }
@media print { body { max-width: none; margin: 0; font-size: 11px } h2 { break-after: avoid }
  svg, tr { break-inside: avoid } }
"""


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def tag(element: str, *children: object, **attributes: Any) -> Markup:
    """Return an element; attributes and children other than `Markup` are escaped.

    >>> tag("td", "<script>", class_="n")
    '<td class="n">&lt;script&gt;</td>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items()
    )
    if element in VOID:
        return Markup(f"<{element}{given}>" if element == "meta" else f"<{element}{given}/>")
    return Markup(f"<{element}{given}>{join(children)}</{element}>")


def join(children: Iterable[object]) -> Markup:
    """Return the concatenated children, escaped unless they are `Markup`."""
    return Markup("".join(each if isinstance(each, Markup) else html.escape(str(each)) for each in children))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> Markup:
    """Return a table; columns in `numbers` are right-aligned."""
    right = frozenset(numbers)

    def row(name: str, cells: Sequence[object]) -> Markup:
        return tag(
            "tr",
            *(tag(name, cell, **({"class_": "n"} if place in right else {})) for place, cell in enumerate(cells)),
        )

    return tag("table", tag("thead", row("th", head)), tag("tbody", *(row("td", cells) for cells in rows)))


def document(title: str, *parts: object) -> str:
    """Return a page that loads no resources and runs no scripts."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width"),
        tag("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('h1', title), *parts), lang='en')}\n"
