"""`himari config`: validate, show, compare and apply settings."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import click

from config.diff import diff as differences
from config.diff import leaves
from config.load import load
from config.removals import of_decisions, refusal
from config.settings import decision_tree
from engines.parameters import settings_hash
from schemas.errors import ConfigurationException, SizingError
from streams.cli.answers import leave
from streams.cli.answers import show as show_answers
from streams.cli.common import BY, common, connection, loaded, names, not_empty, operator
from streams.cli.terminal import say, say_json
from streams.kafka.orders import OrderAnswers, give, give_and_wait, settings_in_force
from streams.stages.control import settings_order


class _Group(click.Group):
    """A command group that reports expected errors in one line, even when invoked on its own."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. An expected error prints one line on stderr and sets its exit code."""
        try:
            return super().invoke(ctx)
        except SizingError as error:
            say(f"himari: {error}", err=True)
            ctx.exit(error.exit_code)


def _json(value: object) -> None:
    say_json(value)


@click.group(cls=_Group)
def config() -> None:
    """Validate, show, compare and apply settings."""


@config.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common
def validate(file: str | None, config: str | None, bootstrap: str | None, *, as_json: bool) -> None:
    """Validate FILE (or --config, or the defaults) together with the environment. Exit 5 if invalid."""
    try:
        found = loaded(file or config, bootstrap)
    except ConfigurationException as error:
        if as_json:
            _json({"valid": False, "file": error.file, "line": error.line, "key": error.key, "rule": error.rule})
        raise
    name = settings_hash(decision_tree(found.settings))
    chosen = file or config or (click.get_current_context().obj or {}).get("config")
    if as_json:
        _json({"valid": True, "file": chosen, "settings_hash": name})
    else:
        say(f"{chosen or 'defaults'}: valid, decision settings {name[:12]}")


@config.command()
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common
def show(config: str | None, bootstrap: str | None, *, origin: bool, as_json: bool) -> None:
    """Show every setting as this process reads it: defaults, file, environment and options."""
    found = loaded(config, bootstrap)
    tree = found.settings.model_dump()
    if as_json:
        shown = {"settings": tree, "settings_hash": settings_hash(decision_tree(found.settings))}
        _json(shown | {"origin": found.origin} if origin else shown)
        return
    values = {key: json.dumps(value, ensure_ascii=False) for key, value in leaves(tree).items()}
    width = max(len(f"{key}: {value}") for key, value in values.items())
    for key, value in values.items():
        line = f"{key}: {value}"
        say(f"{line:<{width}}  # {found.origin[key]}" if origin else line)


@config.command("apply")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--allow-removals", is_flag=True, help="Allow FILE to reset settings to their defaults by omitting them.")
@click.option("--reason", default="config apply", show_default=True, help="Reason, recorded in the journal.")
@BY
@click.option("--wait", is_flag=True, help="Wait until every journal partition has answered.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Seconds to wait.")
@common
def apply_settings(
    file: str,
    config: str | None,
    bootstrap: str | None,
    reason: str,
    by: str | None,
    timeout: float,
    *,
    wait: bool,
    allow_removals: bool,
) -> None:
    """Apply FILE's decision settings through the journal. With --wait, exit 6 if a partition does not answer.

    Exit 5 if FILE would reset settings in force to their defaults by omitting them: it is empty, lacks a whole
    section, or lacks two or more settings. Use --allow-removals if that is intended.
    """
    settings = loaded(config, bootstrap).settings
    asked_for, ordered_by = load(file), operator(by)
    wanted = decision_tree(asked_for.settings)
    cluster, topics = connection(settings), names(settings)

    async def work() -> OrderAnswers:
        base = await settings_in_force(cluster, topics)
        removal = None if allow_removals else of_decisions(base, asked_for)
        if removal is not None:
            raise refusal(file, removal)
        payload = {"base_hash": settings_hash(base), "hash": settings_hash(wanted), "tree": wanted}
        order = settings_order(payload, not_empty("--reason", reason), ordered_by, time.time_ns())
        if not wait:
            await give(cluster, topics, order)
            return OrderAnswers({}, [])
        return await give_and_wait(cluster, topics, order, timeout)

    answers, missing = asyncio.run(work())
    say(f"requested decision settings {settings_hash(wanted)[:12]}")
    show_answers(answers)
    leave(answers, missing)


@config.command()
@click.argument("a", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("b", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def diff(a: Path, b: Path, *, as_json: bool) -> None:
    """Compare the settings of two files, defaults included; the environment is ignored."""
    changes = differences(load(a).settings.model_dump(), load(b).settings.model_dump())
    if as_json:
        _json({"differences": [{"key": key, "a": before, "b": after} for key, before, after in changes]})
        return
    for key, before, after in changes:
        say(f"{key}: {json.dumps(before)} → {json.dumps(after)}")
    if not changes:
        say(f"{os.fspath(a)} and {os.fspath(b)} give the same settings", err=True)
