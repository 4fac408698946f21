"""The command line: data on stdout, progress and logs on stderr, one exit code for each kind of error.

0 ok · 1 failure · 2 usage · 3 not found · 4 verification mismatch · 5 invalid input or config · 6 dependency
unreachable · 130 interrupted.
"""

import importlib
import logging
import sys
from typing import Any

import click

from schemas.errors import SizingError
from streams.cli.terminal import say

GROUPS = {
    "Try it": {"demo": "streams.cli.demo:demo", "bench": "streams.cli.bench:bench"},
    "Look back": {"backtest": "streams.cli.backtest:backtest"},
    "Run it": {
        "broker": "streams.cli.broker:broker",
        "topics": "streams.cli.topics:topics",
        "worker": "streams.cli.worker:worker",
        "dashboard": "streams.cli.dashboard:dashboard",
    },
    "Send and follow": {
        "publish": "streams.cli.topics:publish",
        "tail": "streams.cli.topics:tail",
        "dlq": "streams.cli.dead_letters:dlq",
    },
    "Operate": {
        "control": "streams.cli.control:control",
        "config": "streams.cli.config:config",
        "rl": "streams.cli.rl:rl",
        "portfolio": "streams.cli.portfolio:portfolio",
    },
    "Prove and report": {
        "audit": "streams.cli.audit:audit",
        "export": "streams.cli.export:export",
        "journal": "streams.cli.journal:journal",
    },
}
"""Section of the help → commands → `module:attribute`. Modules are imported on use, which keeps startup fast."""
SHORT_HELP_CHARS = 200
COMMANDS = {name: place for commands in GROUPS.values() for name, place in commands.items()}

CHATTY = ("aiokafka", "faust", "mode")
"""Libraries that log every retry. A failure that matters reaches the user as a `SizingError`."""


class LazyGroup(click.Group):
    """A command group that imports each command on first use."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the command names."""
        return sorted(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a command; None if there is no such command."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, grouped by task."""
        for title, commands in GROUPS.items():
            rows = []
            for name in commands:
                command = self.get_command(ctx, name)
                rows.append((name, "" if command is None else command.get_short_help_str(SHORT_HELP_CHARS)))
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--config", type=click.Path(dir_okay=False), help="Settings file (YAML).")
@click.option("--bootstrap", metavar="HOST:PORT", help="Kafka broker; overrides the settings file.")
@click.version_option(package_name="himari-layer3")
@click.pass_context
def cli(ctx: click.Context, config: str | None, bootstrap: str | None) -> None:
    """HIMARI OPUS V2 Layer 3: position sizing with verifiable decisions."""
    ctx.obj = {"config": config, "bootstrap": bootstrap}
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run a command. An expected error prints one line on stderr and sets its exit code."""
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        sys.exit(_run(arguments))
    except SizingError as error:
        say(f"himari: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        say("himari: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def _run(arguments: list[str] | None) -> Any:
    try:
        return cli.main(args=arguments, standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
