"""What is printed holds nothing that a terminal obeys or hides, and JSON means what it meant."""

import ast
import io
import json
import logging
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import streams.cli
from streams.cli.terminal import LogFormatter, harmless, harmless_json

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN", "B", "S"}
"""Unicode's own classes of what reorders a line, ends it, or is not there: https://www.unicode.org/reports/tr9/."""
HOSTILE = "ops\n\x1b[2J\x1b]0;x\x07\u202eEVITCA\u2066\u200b\x9b31m\r\u2028all\u2029\ufeff\U000e0041\u115f\x7f\ufe0f"


def obeyed(text):
    """Return the characters that act on a terminal or are not seen, by Unicode's tables."""
    return [each for each in text if unicodedata.category(each)[0] == "C" or unicodedata.bidirectional(each) in BIDI]


@given(st.text(st.characters(), max_size=60))
@example(HOSTILE)
def test_nothing_is_left_that_a_terminal_obeys_or_hides(text):
    assert obeyed(harmless(text)) == []
    assert obeyed(harmless_json(text)) == []
    assert harmless(harmless(text)) == harmless(text)


@pytest.mark.parametrize("text", ["plain", "Größe 1 €", "価格", "é as e\u0301", "नमस्ते", "→ · –", "😀", ""])
def test_ordinary_text_of_any_script_stays_as_it_is(text):
    assert harmless(text) == text


def test_what_is_not_seen_is_shown_and_marks_do_not_pile_up():
    assert harmless("a\u3164b\u2800c\ufe0fd\U000e0101") == "a\\u3164b\\u2800c\\ufe0fd\\U000e0101"
    assert harmless("a" + "\u0301" * 5) == "a" + "\u0301" * 3 + "\\u0301" * 2


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=30) | st.integers() | st.lists(st.text(max_size=8))))
@example({HOSTILE: HOSTILE})
def test_json_means_what_it_meant_in_one_line_however_it_was_laid_out(fields):
    for text in (json.dumps(fields, ensure_ascii=False, indent=1), json.dumps(fields)):
        shown = harmless_json(text)
        assert json.loads(shown) == fields
        assert shown.splitlines() == [shown]


def test_a_log_line_is_not_forged_by_a_record_and_a_traceback_keeps_its_lines():
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
    try:
        int(HOSTILE)
    except ValueError as error:
        raised = (ValueError, error, error.__traceback__)
        handler.emit(logging.LogRecord("trial", logging.ERROR, "", 1, "said %s", (HOSTILE,), raised))
    lines = written.getvalue().split("\n")
    assert [line for line in lines if obeyed(line)] == []
    assert lines[0].startswith("ERROR said ops\\n\\x1b[2J")
    assert lines[1] == "Traceback (most recent call last):"
    assert not any(line.startswith("all") for line in lines)


OTHER_WAYS = {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"}


def test_commands_print_in_no_other_way():
    """`click.echo`, `print` and writes to stdout and stderr are in `terminal` alone, but for a page of help."""
    found = []
    for file in sorted(Path(streams.cli.__file__).parent.glob("*.py")):
        if file.name == "terminal.py":
            continue
        calls = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        found += [f"{file.name}: {ast.unparse(call)}" for call in calls if ast.unparse(call.func) in OTHER_WAYS]
    assert found == ["__init__.py: click.echo(ctx.get_help())"]
