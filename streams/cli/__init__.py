"""The command line: data on stdout, progress and logs on stderr, an exit code that says what went wrong.

0 ok · 1 failure · 2 usage · 3 not found · 4 verification mismatch · 5 invalid input or config · 6 a dependency is out
of reach · 130 interrupted.
"""

import importlib
import logging
import sys
from typing import Any

import click

from schemas.errors import SizingError

COMMANDS = {
    "audit": "streams.cli.audit:audit",
    "bench": "streams.cli.bench:bench",
    "broker": "streams.cli.broker:broker",
    "config": "streams.cli.config:config",
    "control": "streams.cli.control:control",
    "demo": "streams.cli.demo:demo",
    "dlq": "streams.cli.dead_letters:dlq",
    "export": "streams.cli.export:export",
    "journal": "streams.cli.journal:journal",
    "portfolio": "streams.cli.portfolio:portfolio",
    "publish": "streams.cli.topics:publish",
    "rl": "streams.cli.rl:rl",
    "tail": "streams.cli.topics:tail",
    "topics": "streams.cli.topics:topics",
    "worker": "streams.cli.worker:worker",
}
"""Command → where it is; imported when it is asked for, so that `himari --help` is quick."""

CHATTY = ("aiokafka", "faust", "mode")
"""Libraries that log what they try again; what matters of it reaches the user as an error of ours."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return sorted(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(dir_okay=False), help="Settings file (YAML).")
@click.option("--bootstrap", metavar="HOST:PORT", help="Kafka broker; wins over the settings.")
@click.version_option(package_name="himari-layer3")
@click.pass_context
def cli(ctx: click.Context, config: str | None, bootstrap: str | None) -> None:
    """HIMARI OPUS V2 Layer 3: how much to hold, provably."""
    ctx.obj = {"config": config, "bootstrap": bootstrap}


def main(arguments: list[str] | None = None) -> None:
    """Run a command; an expected error is one line on stderr and its own exit code."""
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        sys.exit(_run(arguments))
    except SizingError as error:
        click.echo(f"himari: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("himari: interrupted", err=True)
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
