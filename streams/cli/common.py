"""Shared by all commands: the common options, the settings and the broker connection."""

import getpass
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from pydantic import TypeAdapter, ValidationError

from config.load import Loaded, load
from config.policy import Url
from config.settings import Settings
from schemas.rules import first
from streams.journal.topics import Names
from streams.kafka.connection import Connection
from streams.kafka.login import connect
from streams.processing.clock import ENVIRONMENT, Clock

ON_BROKER = re.compile(r"[A-Za-z0-9_-]+\.(?P<name>[a-z-]+)\.v1(?P<letters>\.dlq)?", re.ASCII)
"""A topic's name on the broker."""
_URLS: Final[TypeAdapter[str | None]] = TypeAdapter(Url | None)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Accept --config and --bootstrap after the command name too."""
    bootstrap_help = "Kafka broker; overrides the settings file."
    command = click.option("--bootstrap", metavar="HOST:PORT", help=bootstrap_help)(command)
    return click.option("--config", type=click.Path(dir_okay=False), help="Settings file (YAML).")(command)


def loaded(config: str | None = None, bootstrap: str | None = None) -> Loaded:
    """Return the settings of the running command, and the origin of each value.

    Raises:
        ConfigurationException: the file, the environment or the command line has an invalid value.
    """
    chosen = click.get_current_context().obj or {}
    path = config or chosen.get("config")
    broker = bootstrap or chosen.get("bootstrap")
    overrides = {"kafka.bootstrap_servers": broker} if broker else {}
    return load(Path(path) if path else None, dict(os.environ), overrides)


def connection(settings: Settings) -> Connection:
    """Return the broker connection, including TLS and SASL options.

    Raises:
        ConfigurationException: a file or variable with credentials cannot be used.
    """
    return connect(settings)


def names(settings: Settings) -> Names:
    """Return the topic names on the broker."""
    return Names(settings.topics.prefix)


BY = click.option("--by", help="Operator, recorded in the journal. [default: user@host of this process]")
"""The option of every order and change of settings."""


def operator(by: str | None) -> str:
    """Return who gives an order: as stated, else the user and host of this process.

    Raises:
        click.BadParameter: it is empty.
    """
    if by is None:
        return f"{_user()}@{socket.gethostname()}"
    return not_empty("--by", by)


def not_empty(option: str, text: str) -> str:
    """Return the text of an option. Raises: click.BadParameter if it is blank."""
    if not text.strip():
        msg = "must not be empty"
        raise click.BadParameter(msg, param_hint=option)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def short(topic: str) -> str:
    """Return the name of a topic without prefix and version: `himari.signals.v1.dlq` is `signals.dlq`.

    >>> short("desk7.cascade-indicators.v1"), short("signals")
    ('cascade-indicators', 'signals')
    """
    found = ON_BROKER.fullmatch(topic)
    return topic if found is None else found["name"] + (found["letters"] or "")


def policy_url(option: str, value: str | None) -> None:
    """Check a URL of the command line by the rule of the settings; one that may hold a secret is not shown."""
    try:
        _URLS.validate_python(value)
    except ValidationError as error:
        rule = first(error).rule
        if any(each["type"] == "string_pattern_mismatch" for each in error.errors()):
            rule = "must be http(s)://HOST[:PORT][/PATH], without user, query, fragment (value not shown)"
        raise click.BadOptionUsage(option, f"--{option} {rule}") from None


def clock() -> Clock:
    """Return the clock the workers use: the wall clock, unless the environment variable names another one."""
    text = os.environ.get(ENVIRONMENT)
    return Clock.parse(text) if text else Clock()
