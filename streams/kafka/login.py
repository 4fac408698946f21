"""Client credentials from the settings: files and variables are read, and their contents never shown."""

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from config.security import SecuritySettings
from config.settings import Settings
from schemas.errors import ConfigurationException
from streams.kafka.connection import Connection

SECTION = "kafka.security"
FILE_BYTES_MAX = 1024 * 1024
SECRET_BYTES_MAX = 1024
"""OpenSSL's limit for the password of a key."""


class Login(Mapping[str, Any]):
    """aiokafka's login arguments; its text shows only their names."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """`arguments`: by aiokafka's names."""
        self._arguments = dict(arguments)

    def __getitem__(self, name: str) -> Any:
        return self._arguments[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)

    def __repr__(self) -> str:
        return f"Login({', '.join(self._arguments)})"


def connect(settings: Settings, env: Mapping[str, str] = os.environ) -> Connection:
    """Return the connection of the settings; files and variables are read once, now.

    Raises:
        ConfigurationException: a file or a variable cannot be used.
    """
    return Connection(settings.kafka.bootstrap_servers, login(settings.kafka.security, env))


def login(security: SecuritySettings, env: Mapping[str, str]) -> Login:
    """Return the login arguments of a client.

    Raises:
        ConfigurationException: a file or a variable cannot be used; its contents are not shown.
    """
    if security.protocol == "PLAINTEXT":
        return Login({})
    arguments: dict[str, Any] = {"security_protocol": security.protocol, "ssl_context": _context(security, env)}
    if security.protocol == "SASL_SSL":
        arguments |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": _secret(security, "password", env),
        }
    return Login(arguments)


def _context(security: SecuritySettings, env: Mapping[str, str]) -> ssl.SSLContext:
    """Return a context that trusts the authorities, checks the broker's host name, and presents our certificate."""
    authorities = None if security.ca_file is None else _read("ca_file", security.ca_file)
    try:
        context = ssl.create_default_context(cadata=None if authorities is None else authorities.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise _refused("ca_file", "must hold certificates in PEM") from error
    if security.certificate_file is not None and security.key_file is not None:
        _present(context, security, env)
    return context


def _present(context: ssl.SSLContext, security: SecuritySettings, env: Mapping[str, str]) -> None:
    """Load our certificate into a context."""
    certificate, key = str(security.certificate_file), str(security.key_file)
    for name, path in (("certificate_file", certificate), ("key_file", key)):
        _read(name, path)

    def password() -> bytes:
        if security.key_password_env is None and security.key_password_file is None:
            raise _refused("key_file", "is encrypted: key_password_env or key_password_file must be given")
        return _secret(security, "key_password", env).encode()

    try:
        context.load_cert_chain(certificate, key, password)  # without a password OpenSSL would prompt
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or "not PEM, or a wrong password"
        rule = f"must be the PEM key of certificate_file, under its password: {why}"
        raise _refused("key_file", rule) from error


def _secret(security: SecuritySettings, name: str, env: Mapping[str, str]) -> str:
    """Return the contents of a variable or a file, without the final line break.

    Raises:
        ConfigurationException: it is missing, empty, too long, or not UTF-8.
    """
    variable: str | None = getattr(security, f"{name}_env")
    if variable is not None:
        field, value = f"{name}_env", env.get(variable, "")
    else:
        field = f"{name}_file"
        try:
            value = _read(field, str(getattr(security, field))).decode()
        except UnicodeDecodeError:
            raise _refused(field, "must name a file with UTF-8 text") from None
    secret = value.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise _refused(field, "must name a variable that is set" if variable else "must name a file that is not empty")
    if len(secret.encode()) > SECRET_BYTES_MAX:
        raise _refused(field, f"must name at most {SECRET_BYTES_MAX} bytes")
    return secret


def _read(field: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise _refused(field, f"must name a file that can be read: {error.strerror}") from error


def _refused(field: str, rule: str) -> ConfigurationException:
    return ConfigurationException("settings", f"{SECTION}.{field}", rule)
