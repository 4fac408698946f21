"""`python -m tools.generate_docs` generates docs/topology.md and the table of docs/metrics.md from the code."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from streams.journal.entries import TOPIC as JOURNAL
from streams.journal.topics import DLQ, HOUR_MS, TABLES, TOPICS, Topic
from streams.monitoring import families
from streams.stages.topology import TOPOLOGY, Stage

FOLDER: Final = Path(__file__).parents[1] / "docs"
DEAD_LETTERS: Final = f"TOPIC{DLQ}"
"""Represents all dead-letter topics in the drawing."""
DAY_MS: Final = 24 * HOUR_MS

HEAD: Final = """# Topology

Written by `make docs` from `streams/stages/topology.py` and `streams/journal/topics.py`. A test checks that it is
current.
Faust runs these stages live, the `Driver` runs them in memory.
"""


def drawing() -> str:
    """Return the stages and topics as a mermaid flowchart: topics are round, stages are boxes, time is dotted."""
    edges = [f"  {_id(stage.source)}([{stage.source}]) --> {stage.name}[{stage.name}]" for stage in TOPOLOGY]
    edges += [
        f"  {stage.name} --> {_id(topic)}([{topic}])" for stage in TOPOLOGY for topic in map(_drawn, stage.outputs)
    ]
    edges += [
        f"  {stage.name} -. tick, when idle .-> {_id(JOURNAL)}"
        for stage in TOPOLOGY
        if isinstance(stage, Stage) and stage.idle_tick
    ]
    return "\n".join(["```mermaid", "flowchart LR", *dict.fromkeys(edges), "```"])


def topology() -> str:
    """Return `docs/topology.md`."""
    return "\n".join([HEAD, drawing(), "", *_stages(), "", *_topics(), "", *_tables(), ""])


def metrics(page: str) -> str:
    """Return `docs/metrics.md` with a generated table and its prose unchanged."""
    table = families.markdown()
    return page[: page.index(table.partition("\n")[0])] + table


def files() -> dict[Path, str]:
    """Return path → content of the generated pages."""
    page = FOLDER / "metrics.md"
    return {FOLDER / "topology.md": topology(), page: metrics(page.read_text(encoding="utf-8"))}


def _id(topic: str) -> str:
    return f"t_{topic}".replace("-", "_").replace(".", "_")


def _drawn(topic: str) -> str:
    return DEAD_LETTERS if topic.endswith(DLQ) else topic


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _stages() -> Iterator[str]:
    yield from ("## Stages", "", "| stage | reads | writes | keeps | does |", "|---|---|---|---|---|")
    for stage in TOPOLOGY:
        tables = ", ".join(stage.tables) if isinstance(stage, Stage) else "–"
        yield _row((stage.name, stage.source, ", ".join(stage.outputs), tables, stage.summary))


def _topics() -> Iterator[str]:
    yield from ("## Topics", "", "On the broker: `himari.NAME.v1`, dead letters `himari.NAME.v1.dlq`.")
    yield from ("P is `topics.partitions`, fixed for life; *input* begins with P and may grow.", "")
    yield from ("| topic | key | partitions | kept | max.message.bytes | holds |", "|---|---|---|---|---|---|")
    for topic in TOPICS:
        size = f"{topic.bytes_max:,}"
        yield _row((topic.name, topic.key, topic.partitions, _kept(topic), size, topic.description))


def _kept(topic: Topic) -> str:
    retention_ms = int(topic.config["retention.ms"])
    return "for ever" if retention_ms < 0 else f"{retention_ms // DAY_MS} days"


def _tables() -> Iterator[str]:
    yield from (
        "## Tables",
        "",
        "The changelog of each is the compacted topic `himari-NAME-changelog`: the checkpoint.",
        "",
    )
    yield from ("| table | partitions of | key | holds |", "|---|---|---|---|")
    for table in TABLES:
        yield _row((table.name, table.source, table.key, table.description))


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
