"""The generated pages of the docs are what the running data says."""

from streams.journal.topics import DLQ
from streams.stages.topology import TOPOLOGY
from tools.generate_docs import drawing, files, metrics


def test_the_generated_pages_are_current():
    stale = [path.name for path, text in files().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: make docs"


def test_the_drawing_has_every_stage_and_every_topic_that_one_reads_or_writes():
    drawn = drawing()
    for stage in TOPOLOGY:
        assert f"[{stage.name}]" in drawn
        for topic in (stage.source, *stage.outputs):
            assert topic.endswith(DLQ) or f"([{topic}])" in drawn


def test_prose_above_a_generated_table_stays():
    page = "# Metrics\n\nBy hand.\n\n| family | type | labels | unit | recorded at | meaning |\nstale\n"
    assert metrics(page).startswith("# Metrics\n\nBy hand.\n\n| family |")
    assert "stale" not in metrics(page).splitlines()
