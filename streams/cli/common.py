"""What every command takes from the options before it: settings, and the way to the broker."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from config.load import Loaded, load
from config.settings import Settings
from streams.journal.topics import Names
from streams.kafka.connection import Connection
from streams.kafka.login import connect
from streams.processing.clock import ENVIRONMENT, Clock


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let --config and --bootstrap stand after the command as well."""
    command = click.option("--bootstrap", metavar="HOST:PORT", help="Kafka broker; wins over the settings.")(command)
    return click.option("--config", type=click.Path(dir_okay=False), help="Settings file (YAML).")(command)


def loaded(config: str | None = None, bootstrap: str | None = None) -> Loaded:
    """Return the settings of a command, and where each came from.

    Raises:
        ConfigurationException: file, environment or command line say something that is not acceptable.
    """
    chosen = click.get_current_context().obj or {}
    path = config or chosen.get("config")
    broker = bootstrap or chosen.get("bootstrap")
    overrides = {"kafka.bootstrap_servers": broker} if broker else {}
    return load(Path(path) if path else None, dict(os.environ), overrides)


def connection(settings: Settings) -> Connection:
    """Return the way to the broker, login and all.

    Raises:
        ConfigurationException: a file or a variable of the login cannot be used.
    """
    return connect(settings)


def names(settings: Settings) -> Names:
    """Return the topics' names on the broker."""
    return Names(settings.topics.prefix)


def clock() -> Clock:
    """Return the clock of the workers beside which a command runs: the wall's, unless the environment names another."""
    text = os.environ.get(ENVIRONMENT)
    return Clock.parse(text) if text else Clock()
