"""What the pages name is there: commands, files, settings, topics and stages."""

import re

import click
import pytest
from pages import PAGES, ROOT, run

from config.diff import leaves
from config.settings import Settings
from streams.cli import COMMANDS, cli
from streams.journal.topics import DLQ
from streams.stages.topology import TOPOLOGY

TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
every_page = pytest.mark.parametrize("name", TEXTS)


def commands(text):
    """Return the commands that a text names, `audit verify` in two words."""
    found = re.findall(r"(?<!from )\bhimari (?:--?\S+ )*([a-z]+)(?: ([a-z-]+))?", text)
    return {" ".join(words).strip() for words in found}


def exists(words):
    name, _, rest = words.partition(" ")
    if name not in COMMANDS:
        return False
    command = cli.get_command(click.Context(cli), name)
    return not isinstance(command, click.Group) or not rest or rest in command.commands


@every_page
def test_a_page_names_only_commands_that_exist(name):
    assert {words for words in commands(TEXTS[name]) if not exists(words)} == set()


@every_page
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    links = re.findall(r"\]\(([^)#:]+)\)", TEXTS[name])
    assert [link for link in links if not (folder / link).exists()] == []


def anchors(text):
    """Return what a link may name after `#`: the headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_anchors_lead_to_a_heading(name):
    folder = (ROOT / name).parent
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", TEXTS[name])
    pages = {page: (folder / page if page else ROOT / name).read_text(encoding="utf-8") for page, _ in links}
    assert [(page, anchor) for page, anchor in links if anchor not in anchors(pages[page])] == []


@every_page
def test_files_that_a_page_names_are_there(name):
    found = re.findall(r"`((?:schemas|engines|config|streams|tests|docs|examples)/[\w/.-]*)`", TEXTS[name])
    found += re.findall(r"`((?:schemas|engines|config|streams|tests)/\w+\.py):", TEXTS[name])
    assert [path for path in found if not (ROOT / path).exists()] == []


@every_page
def test_a_page_names_no_place_of_one_machine(name):
    assert re.findall(r"/(?:work|root|home|tmp|Users)/\S*|https?://\S+", TEXTS[name]) == []


@every_page
def test_settings_that_a_page_names_exist(name):
    tree = Settings().model_dump()
    keys = {*leaves(tree), *tree}
    sections = "|".join(tree)
    named = set(re.findall(rf"`((?:{sections})\.[a-z_.]+[a-z_])`", TEXTS[name]))
    assert {key for key in named if not any(known == key or known.startswith(f"{key}.") for known in keys)} <= {
        "kafka.security"  # named as absent
    }


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md"])
def test_the_drawing_for_terminals_has_every_stage_and_topic(name):
    (drawn,) = [block for block in TEXTS[name].split("```")[1::2] if "─►" in block]
    words = {stage.name for stage in TOPOLOGY} | {stage.source for stage in TOPOLOGY}
    words |= {topic for stage in TOPOLOGY for topic in stage.outputs if not topic.endswith(DLQ)}
    assert {word for word in words if word not in drawn} == set()


def test_the_library_example_of_the_readme_is_true():
    ran = run(ROOT / "README.md")
    assert (ran.failed, ran.attempted > 4) == (0, True)


def test_the_index_of_decisions_is_whole():
    folder = ROOT / "docs/decisions"
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert [name[:4] for name in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for name in records:
        assert name in TEXTS["docs/decisions/README.md"]


def test_what_code_cites_is_a_section_of_the_page():
    """Engines cite `docs/methods.md, section N` and `docs/pipeline.md, stage N`."""
    sections = set(re.findall(r"^## (\d+) ", TEXTS["docs/methods.md"], re.MULTILINE))
    stages = set(re.findall(r"^(?:#+ Stage |\| )(\d+|unpriced)\b", TEXTS["docs/pipeline.md"], re.MULTILINE))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "engines").rglob("*.py"))
    cited = re.findall(r"docs/(methods|pipeline)\.md, (?:section|stage)s? (\w+)(?:(?: and | to |-)(\d+))?", code)
    assert len(cited) > 20
    known = {"methods": sections, "pipeline": stages}
    assert {(page, number) for page, *numbers in cited for number in numbers if number} <= {
        (page, number) for page, numbers in known.items() for number in numbers
    }


PRIVATE = r"\b(told|anew|take that|but for|of no other meaning|slip of the pen|whoever|thereof)\b"


@pytest.mark.parametrize("name", [name for name in TEXTS if not name.startswith(("docs/decisions/", "CHANGELOG"))])
def test_a_page_is_in_plain_english(name):
    prose = re.sub(r"`[^`\n]+`", "", TEXTS[name])  # messages are quoted as they are
    assert re.findall(PRIVATE, prose, re.IGNORECASE) == []
