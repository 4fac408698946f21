"""The settings tree: decision sections take effect through the journal, worker sections are local to a process."""

from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field, StringConstraints

from config.policy import RlSettings
from config.security import SecuritySettings
from engines.models.circuit_breaker import BreakerParams
from engines.parameters import DecisionParams, RlParams
from schemas.base import Frozen

Host = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Port = Annotated[int, Ge(0), Le(65_535)]
PARTITIONS_MAX: Final = 1_000
"""Largest number of partitions of journal and allocations."""
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class KafkaSettings(Frozen):
    """Broker address, batch sizes and checkpoint intervals."""

    bootstrap_servers: Annotated[str, StringConstraints(pattern=r"^[^\s,:]+:[0-9]+(,[^\s,:]+:[0-9]+)*$")] = Field(
        "127.0.0.1:9092", description="brokers, HOST:PORT, comma-separated"
    )
    fetch_max_wait_ms: Annotated[int, Ge(1), Le(10_000)] = Field(
        10, description="milliseconds that a fetch may wait for records; at least 50 on the embedded broker"
    )
    session_timeout_s: Annotated[float, Ge(1), Le(300)] = Field(
        6.0, description="seconds without a heartbeat until a worker loses its partitions"
    )
    chunk_records: Annotated[int, Ge(1), Le(100_000)] = Field(2_000, description="largest number of records per batch")
    checkpoint_interval_s: Annotated[float, Gt(0), Le(3_600)] = Field(
        10.0, description="largest interval between checkpoints, seconds"
    )
    checkpoint_entries: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        5_000, description="largest number of entries between checkpoints"
    )
    max_ahead_s: Annotated[float, Ge(60), Le(31_536_000)] = Field(
        86_400.0, description="how far a journal entry may be ahead of this worker's clock before it stops, seconds"
    )
    data_dir: Annotated[str, StringConstraints(min_length=1)] = Field(
        ".himari", description="folder of the local tables, relative to the working directory"
    )
    security: SecuritySettings = SecuritySettings()


class TopicSettings(Frozen):
    """Names and partition counts of the topics."""

    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = Field(
        "himari", description="topics are named PREFIX.NAME.v1"
    )
    partitions: Annotated[int, Ge(1), Le(PARTITIONS_MAX)] = Field(
        12, description="partitions of journal, rl-requests and allocations; cannot be changed later"
    )
    replication: Annotated[int, Ge(1), Le(9)] | None = Field(
        None, description="replication factor; null: 3 with three or more brokers, else 1"
    )


class MonitoringSettings(Frozen):
    """Metrics, pages, logs and stall detection of a worker."""

    metrics_enabled: bool = Field(default=True, description="whether /metrics is served")
    metrics_host: Host = Field("127.0.0.1", description="address of /metrics")
    metrics_port: Port = Field(9090, description="port of /metrics; 0: any free one")
    web_host: Host = Field("127.0.0.1", description="address of the page and its API")
    web_port: Port = Field(6066, description="port of the page and its API; 0: any free one")
    log_level: LogLevel = Field("WARNING", description="lowest severity that is logged")
    stuck_after_s: Annotated[float, Ge(2), Le(3_600)] = Field(
        60.0, description="seconds without progress in one part after which the worker stops"
    )
    ready_lag_records: Annotated[int, Ge(0), Le(1_000_000_000)] = Field(
        10_000, description="largest lag of a partition, in records, at which the worker is ready"
    )


class HotReloadSettings(Frozen):
    """Reloading of the settings file while the worker runs."""

    enabled: bool = Field(default=True, description="whether the file is watched while the worker runs")
    poll_interval_sec: Annotated[float, Gt(0), Le(3_600)] = Field(5.0, description="seconds between two reads")


class Settings(DecisionParams):
    """Every setting, fully resolved. `rl` has both kinds: decision settings are journaled, the rest is local."""

    rl: RlSettings = RlSettings()
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    hot_reload: HotReloadSettings = HotReloadSettings()
    circuit_breaker: BreakerParams = BreakerParams()

    def decision(self) -> DecisionParams:
        """Return only the decision settings."""
        sections = {name: getattr(self, name) for name in DecisionParams.model_fields}
        return DecisionParams(**sections | {"rl": self.rl.decision()})


def decision_tree(settings: DecisionParams) -> dict[str, Any]:
    """Return the decision settings, defaults included, as plain values: the tree in Genesis and settings changes."""
    return settings.model_dump(
        include=dict.fromkeys(DecisionParams.model_fields, True) | {"rl": set(RlParams.model_fields)}
    )


def worker_tree(settings: Settings) -> dict[str, Any]:
    """Return the worker settings, defaults included, as plain values."""
    return settings.model_dump(
        exclude=dict.fromkeys(DecisionParams.model_fields, True) | {"rl": set(RlParams.model_fields)}
    )
