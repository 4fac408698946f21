"""How a worker calls the policy: its part of the `rl` section, in addition to the decision settings."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from config.addresses import is_link_local, is_loopback
from config.security import File, Variable
from engines.parameters import RlParams
from schemas.base import Frozen
from schemas.rules import Fault, broken

PolicyProtocol = Literal["oip", "predict", "mock"]


def _reachable(url: str) -> str:
    """Refuse a port that does not exist, and the addresses at which clouds answer with credentials."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise broken(Fault("out_of_range", "", f"must be a URL with a port of 1 to 65535, was {url}")) from error
    if port == 0 or is_link_local(parts.hostname or ""):
        raise broken(Fault("out_of_range", "", f"must not be port 0 or a link-local address, was {url}"))
    return url


Url = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[A-Za-z0-9._~:\[\]-]{1,255}(/[A-Za-z0-9._~%/+-]{0,255})?$"),
    AfterValidator(_reachable),
]
"""Without user, query and fragment, which could contain a secret and would be shown."""
ModelName = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")]


class TensorNames(Frozen):
    """A model's names for its input and outputs (Open Inference)."""

    state: ModelName = Field("state", description="input: the state vector")
    nudge: ModelName = Field("nudge", description="output: relative change of the size")
    confidence: ModelName = Field("confidence", description="output: confidence in the nudge")
    predicted_return: ModelName = Field("predicted_return", description="output, optional")
    predicted_volatility: ModelName = Field("predicted_volatility", description="output, optional")

    @model_validator(mode="after")
    def _each_its_own(self) -> Self:
        seen: set[str] = set()
        for field, name in self.outputs().items():
            if name in seen:
                raise broken(Fault("inconsistent", field, f"must differ from the other outputs' names, was {name!r}"))
            seen.add(name)
        return self

    def outputs(self) -> dict[str, str]:
        """Return the model's name of each output, by field name."""
        return {field: getattr(self, field) for field in OUTPUTS}


OUTPUTS = ("nudge", "confidence", "predicted_return", "predicted_volatility")
"""The outputs that are read; the first two are required."""


class RlSettings(RlParams):
    """The decision settings of the policy, which are journaled, and how a worker calls it, which is local."""

    protocol: PolicyProtocol = Field(
        "oip", description="oip: Open Inference v2; predict: plain JSON (docs/hybrid.md); mock: in-process noise"
    )
    endpoint: Url | None = Field(None, description="URL of the policy; null: it is not called (mock needs none)")
    model: ModelName = Field("policy", description="name of the model (oip)")
    tensors: TensorNames = TensorNames()
    proxy: Url | None = Field(None, description="URL of an HTTP proxy for the policy; null: none")
    timeout_sec: Annotated[float, Gt(0), Le(300)] = Field(5.0, description="timeout of one question, seconds")
    max_in_flight: Annotated[int, Ge(1), Le(10_000)] = Field(128, description="largest number of concurrent questions")
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = Field(0, description="random seed of mock")
    token_env: Variable = Field(None, description="environment variable with a bearer token; null: none is sent")
    token_file: File = Field(None, description="file with a bearer token; null: none is sent")

    @property
    def in_the_clear(self) -> bool:
        """Whether a token is sent unencrypted to another machine."""
        if self.endpoint is None or (self.token_env is None and self.token_file is None):
            return False
        parts = urlsplit(self.endpoint)
        return parts.scheme == "http" and not is_loopback(parts.hostname or "")

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_env is not None and self.token_file is not None:
            msg = "token_env and token_file must not both be given"
            raise ValueError(msg)
        return self

    def decision(self) -> RlParams:
        """Return only the decision settings."""
        return RlParams(**{name: getattr(self, name) for name in RlParams.model_fields})
