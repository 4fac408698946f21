"""The answers of the journal partitions to an order, printed and turned into an exit code."""

from collections.abc import Mapping, Sequence

import click

from streams.cli.terminal import say
from streams.stages.control import TAKEN

REFUSED, UNANSWERED = 1, 6
"""Exit codes."""


def show(answers: Mapping[int, str]) -> None:
    """Print each partition's answer."""
    for partition, answer in sorted(answers.items()):
        say(f"journal partition {partition}: {answer}")


def leave(answers: Mapping[int, str], missing: Sequence[int]) -> None:
    """Exit with an error, explained on stderr, unless the order is in force on every partition asked.

    Exit code 6 if a partition did not answer, otherwise 1 if one refused.
    """
    refused: dict[str, list[int]] = {}
    for partition, answer in sorted(answers.items()):
        if answer not in TAKEN:
            refused.setdefault(answer, []).append(partition)
    for answer, partitions in refused.items():
        say(f"not in force on journal partitions {_listed(partitions)}: {answer}", err=True)
    if missing:
        say(f"no answer from journal partitions {_listed(missing)}", err=True)
        click.get_current_context().exit(UNANSWERED)
    if refused:
        click.get_current_context().exit(REFUSED)


def _listed(partitions: Sequence[int]) -> str:
    return ", ".join(map(str, partitions))
