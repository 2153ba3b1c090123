"""Every setting of MemoryRouter: one frozen Struct a section, each field with range, default and meaning.

Owns what may be set and what it is when nobody sets it; `config.toml` and `docs/settings.md` list the same
keys, and a test compares the three. Reading files and the environment is the business of `models.settings_loading`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from models.audit_settings import AuditSettings
from models.cluster_settings import ClusterSettings
from models.dashboard_settings import DashboardSettings
from models.embedder_settings import EmbedderSettings, EmbeddersSettings
from models.limit_settings import LimitSettings
from models.memory_settings import (
    EmbeddingSettings,
    IndexSettings,
    IngestSettings,
    MemorySettings,
    RecallSettings,
    SessionSettings,
)
from models.provider_settings import BUILT_IN_PROVIDERS, Fallbacks, ProviderSettings, Secret
from models.screening_settings import ScreeningSettings
from models.server_settings import CorsSettings, LogSettings, MetricsSettings, ServerSettings
from models.sizes import GIB, MIB
from models.store_settings import Kind
from models.store_settings import StoreSettings as StoreLimits
from models.tracing_settings import TracingSettings
from models.usage_settings import UsageSettings

_STORE = StoreLimits()  # the store's own defaults, so that they stand in one place


class StoreSettings(StoreLimits, frozen=True, kw_only=True):
    """The durable store's limits, here with their ranges, and the place of the key that seals it."""

    kind: Annotated[
        Kind,
        Meta(description="`sqlite`: files in the data directory. `postgres`: the database at `store.url`."),
    ] = _STORE.kind
    url: Annotated[
        Secret,
        Meta(description="The PostgreSQL database. Give it by the environment: it may hold a password."),
    ] = _STORE.url
    parts: Annotated[
        int,
        Meta(ge=1, le=65_536, description="`postgres`: partitions of the vaults; fixed when the database is prepared."),
    ] = _STORE.parts
    writer_threads: Annotated[
        int, Meta(ge=1, le=64, description="`postgres`: threads, each with a connection, that commit.")
    ] = _STORE.writer_threads
    shards: Annotated[
        int,
        Meta(ge=1, le=64, description="Database files that vaults are spread over; fixed when data is created."),
    ] = _STORE.shards
    queue_rows_max: Annotated[
        int, Meta(ge=1, le=2**20, description="Rows of one shard that may wait for their commit; above: 503.")
    ] = _STORE.queue_rows_max
    queue_bytes_max: Annotated[int, Meta(ge=MIB, le=2**50, description="The same limit in bytes.")] = (
        _STORE.queue_bytes_max
    )
    batch_rows_max: Annotated[
        int, Meta(ge=1, le=2**20, description="Rows after which a commit takes no further request.")
    ] = _STORE.batch_rows_max
    checkpoint_wal_bytes: Annotated[
        int, Meta(ge=MIB, le=2**40, description="Bytes of a write-ahead log that start a checkpoint.")
    ] = _STORE.checkpoint_wal_bytes
    reader_threads: Annotated[int, Meta(ge=1, le=256, description="Threads that read, over all files together.")] = (
        _STORE.reader_threads
    )
    key_cache_max: Annotated[
        int, Meta(ge=1, le=100_000_000, description="Memory Keys whose owner is kept in memory.")
    ] = _STORE.key_cache_max
    data_key_cache_max: Annotated[
        int,
        Meta(ge=1, le=100_000_000, description="Vaults whose data key is kept in memory, about 2.5 kB each."),
    ] = _STORE.data_key_cache_max
    ballast_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=2**40,
            description="Bytes held back on the disk and given up when it is full, so that deletes work. 0: none.",
        ),
    ] = _STORE.ballast_bytes
    scrub_interval_s: Annotated[
        float,
        Meta(ge=0, le=31_536_000, description="Seconds in which every stored row is verified once. 0: never."),
    ] = _STORE.scrub_interval_s
    server_key: Annotated[
        Secret,
        Meta(description="The server's key itself, 32 bytes in base64, instead of a file. Give it by the environment."),
    ] = _STORE.server_key
    server_key_file: Annotated[
        str,
        Meta(
            max_length=4_096,
            description="Path of the server's key. Empty: `server.key` in the data directory.",
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Nothing: the loader checks the ranges above; the base's check is for limits made by hand."""

    @property
    def key_path(self) -> Path | None:
        """Where the server's key is, if not in the data directory."""
        return Path(self.server_key_file) if self.server_key_file else None


class VaultSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The actors: mailboxes, how long a vault stays in memory, what happens to one that crashes."""

    mailbox_messages_max: Annotated[
        int, Meta(ge=1, le=100_000, description="Messages that one vault may have waiting; above: 503.")
    ] = 64
    exchanges_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Unfinished proxied exchanges of one vault; above: chat without storing.",
        ),
    ] = 256
    inbox_messages_max: Annotated[
        int,
        Meta(ge=1, le=100_000_000, description="Stored messages of one vault that may await embedding; above: 503."),
    ] = 20_000
    inbox_bytes_max: Annotated[int, Meta(ge=MIB, le=2**50, description="The same limit in bytes of their texts.")] = (
        256 * MIB
    )
    idle_timeout_s: Annotated[
        float, Meta(gt=0, le=604_800, description="Seconds without work after which a vault leaves memory.")
    ] = 300.0
    residency_min_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Seconds that a loaded vault stays before it may be evicted."),
    ] = 30.0
    memory_max_bytes: Annotated[
        int,
        Meta(
            ge=16 * MIB,
            le=2**50,
            description="Bytes that vaults in memory may take together; above, the oldest leave. "
            "One larger vault may stay on top.",
        ),
    ] = 2 * GIB
    hydrations_max: Annotated[
        int, Meta(ge=1, le=256, description="Vaults that may be loaded from the store at once.")
    ] = 4
    restarts_max: Annotated[
        int,
        Meta(ge=0, le=1_000, description="Crashes within `restart_window_s` before a vault is quarantined."),
    ] = 3
    restart_window_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds over which crashes of a vault are counted.")
    ] = 5.0
    quarantine_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Seconds that a vault rests after too many crashes; meanwhile: 503."),
    ] = 30.0
    ask_timeout_ms: Annotated[
        int,
        Meta(ge=10, le=600_000, description="Deadline of `prepare` and `search` in milliseconds; then: 503."),
    ] = 2_000


class KeySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may mint Memory Keys, and how long a rotated one stays valid."""

    any_key_mints: Annotated[
        bool,
        Meta(description="Whether user keys may mint keys of their account, as in the hosted product."),
    ] = False
    rotation_grace_s: Annotated[
        int,
        Meta(ge=0, le=2_592_000, description="Seconds that a rotated key stays valid, unless the request says."),
    ] = 3_600


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The chat proxy: how long memory may hold a chat up, where it is placed, how much is read along."""

    recall_budget_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=60_000,
            description="Milliseconds that recall may take; then the chat goes on without it.",
        ),
    ] = 300
    commit_wait_ms: Annotated[
        int,
        Meta(ge=0, le=60_000, description="Milliseconds that the end of a reply may wait for the commit."),
    ] = 250
    injection: Annotated[
        Literal["tail", "system"],
        Meta(description="Memory in the last user message (keeps prompt caches), or in the system prompt."),
    ] = "tail"
    block_cache_s: Annotated[
        int,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds that an injected block is kept for the turns of a tool loop.",
        ),
    ] = 600
    event_bytes_max: Annotated[
        int, Meta(ge=1_024, le=GIB, description="Largest streamed event that is read along, in bytes.")
    ] = 64 * MIB
    reply_bytes_max: Annotated[
        int, Meta(ge=1_024, le=GIB, description="Largest reply that is read along and stored, in bytes.")
    ] = 64 * MIB


class ProvidersSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All providers by name, built in and configured. In a file, each is a table `[providers.NAME]`."""

    default: Annotated[
        str, Meta(max_length=64, description="Provider of unknown model names without a prefix. Empty: 404.")
    ] = ""
    by_name: dict[str, ProviderSettings] = msgspec.field(default_factory=BUILT_IN_PROVIDERS.copy)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set; `Settings()` is what an empty configuration means."""

    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    cors: CorsSettings = CorsSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    dashboard: DashboardSettings = DashboardSettings()
    store: StoreSettings = StoreSettings()
    cluster: ClusterSettings = ClusterSettings()
    vaults: VaultSettings = VaultSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    embedders: EmbeddersSettings = msgspec.field(default_factory=EmbeddersSettings)
    index: IndexSettings = IndexSettings()
    usage: UsageSettings = UsageSettings()
    audit: AuditSettings = AuditSettings()
    memory: MemorySettings = MemorySettings()
    ingest: IngestSettings = IngestSettings()
    recall: RecallSettings = RecallSettings()
    screening: ScreeningSettings = ScreeningSettings()
    sessions: SessionSettings = SessionSettings()
    keys: KeySettings = KeySettings()
    proxy: ProxySettings = ProxySettings()
    providers: ProvidersSettings = msgspec.field(default_factory=ProvidersSettings)
    fallbacks: Fallbacks = msgspec.field(default_factory=dict)


class SettingDescription(msgspec.Struct, frozen=True):
    """One key as documentation shows it: `section.key`, its default, what it means."""

    name: str
    default: Any
    description: str


def describe_settings() -> Iterator[SettingDescription]:
    """Every key, section by section; a provider's keys stand as `providers.NAME.key` with their defaults."""
    for section in msgspec.structs.fields(Settings):
        if section.name == "providers":
            yield from _describe(ProvidersSettings, "providers", without="by_name")
            yield from _describe(ProviderSettings, "providers.NAME")
        elif section.name == "embedders":
            yield from _describe(EmbedderSettings, "embedders.NAME")
        elif section.name != "fallbacks":  # its keys are the operator's own
            yield from _describe(section.type, section.name)


def _describe(section: type[msgspec.Struct], name: str, *, without: str = "") -> Iterator[SettingDescription]:
    for field in msgspec.structs.fields(section):
        if field.name == without:
            continue
        information = msgspec.inspect.type_info(field.type)
        description = ""
        if isinstance(information, msgspec.inspect.Metadata):
            description = str((information.extra_json_schema or {}).get("description", ""))
        yield SettingDescription(name=f"{name}.{field.name}", default=field.default, description=description)


__all__ = [
    "BUILT_IN_PROVIDERS",
    "CorsSettings",
    "EmbeddingSettings",
    "IndexSettings",
    "IngestSettings",
    "KeySettings",
    "LimitSettings",
    "LogSettings",
    "MemorySettings",
    "MetricsSettings",
    "ProviderSettings",
    "ProvidersSettings",
    "ProxySettings",
    "RecallSettings",
    "Secret",
    "ServerSettings",
    "SessionSettings",
    "SettingDescription",
    "Settings",
    "StoreSettings",
    "UsageSettings",
    "VaultSettings",
    "describe_settings",
]
