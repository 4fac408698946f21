"""Authentication with the broker. Settings never contain a secret: they name the variable or file that does."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from schemas.base import Frozen
from schemas.rules import Fault, broken

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_SSL"]
Mechanism = Literal["SCRAM-SHA-256", "SCRAM-SHA-512"]

IN_THE_CLEAR = "must not be in settings: name a variable in {name}_env, or a file in {name}_file"
"""Rule for a key that would contain the secret itself."""
SECRETS = frozenset({"password", "key_password"})
"""The secrets that `*_env` and `*_file` refer to."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


def _a_variable(value: Any) -> Any:
    """Refuse a value that is not a variable name, without showing it: it may be the secret."""
    if value is None or (isinstance(value, str) and _VARIABLE.fullmatch(value)):
        return value
    raise broken(Fault("malformed", "", "must name an environment variable, in capitals (the value is not shown)"))


def _a_path(value: Any) -> Any:
    """Refuse a value that is not a path, without showing it: it may be the secret."""
    if value is None or (isinstance(value, str) and 0 < len(value) <= 4096 and "\0" not in value):
        return value
    raise broken(Fault("malformed", "", "must be the path of a file (the value is not shown)"))


Variable = Annotated[str, BeforeValidator(_a_variable)] | None
File = Annotated[str, BeforeValidator(_a_path)] | None


def bearer_token(text: str) -> str | None:
    """Return the bearer token in a text, blanks around it removed; None if there is none of printable ASCII."""
    token = text.strip()
    return token if token and token.isascii() and token.isprintable() else None


class SecuritySettings(Frozen):
    """Encryption and authentication of broker connections."""

    protocol: SecurityProtocol = Field(
        "PLAINTEXT",
        description="PLAINTEXT; SSL: TLS, mutual if a certificate is given; SASL_SSL: TLS and a password",
    )
    ca_file: File = Field(None, description="PEM file of trusted certificate authorities; null: the system's")
    certificate_file: File = Field(None, description="PEM file of the client certificate and its chain; null: none")
    key_file: File = Field(None, description="PEM file of the client certificate's private key")
    key_password_env: Variable = Field(None, description="environment variable with the password of the private key")
    key_password_file: File = Field(None, description="file with the password of the private key")
    mechanism: Mechanism = Field("SCRAM-SHA-512", description="SASL mechanism")
    username: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = Field(
        None, description="user name for SASL_SSL"
    )
    password_env: Variable = Field(None, description="environment variable with the password")
    password_file: File = Field(None, description="file with the password")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse settings that would have no effect: a password that is not used gives a false sense of security."""
        for broken_rule, field, rule in self._rules():
            if broken_rule:
                raise broken(Fault("inconsistent", field, rule))
        return self

    def _rules(self) -> Iterator[tuple[bool, str, str]]:
        """Yield (whether it is broken, field, rule); the first broken rule is reported."""
        tls, sasl = self.protocol != "PLAINTEXT", self.protocol == "SASL_SSL"
        for name in ("ca_file", "certificate_file", "key_file", "key_password_env", "key_password_file"):
            yield not tls and getattr(self, name) is not None, name, "must be null without TLS (protocol)"
        for name in ("username", "password_env", "password_file"):
            yield not sasl and getattr(self, name) is not None, name, "must be null unless protocol is SASL_SSL"
        yield sasl and self.username is None, "username", "must be given with SASL_SSL"
        password = (self.password_env, self.password_file)
        yield sasl and password == (None, None), "password_env", "or password_file must be given with SASL_SSL"
        yield None not in password, "password_file", "must be null where password_env is given"
        yield (
            self.certificate_file is not None and self.key_file is None,
            "key_file",
            "must be given with a certificate",
        )
        yield (
            self.key_file is not None and self.certificate_file is None,
            "certificate_file",
            "must be given with a key",
        )
        for_key = (self.key_password_env, self.key_password_file)
        yield for_key != (None, None) and self.key_file is None, "key_file", "must be given with its password"
        yield None not in for_key, "key_password_file", "must be null where key_password_env is given"
