"""What the parts of a server count by themselves, as metrics: their names, kinds, labels and meanings.

Owns the translation from a part's `statistics()` to series, part by part. Must never count anything: what is counted
where it happens stands in `router.server_metrics`. `docs/observability.md` lists the same names; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from router.cluster_figures import cluster_statistics
from router.metrics import Group, Rows
from router.process_metrics import PROCESS, read_process

if TYPE_CHECKING:
    from actors.embedders import Embedders
    from actors.usage_journal import UsageJournal
    from router.components import Components

STORE_FILES = Group(
    ("file",),
    ("queue_rows", "memoryrouter_store_queue_rows", "gauge", "Rows that wait for their commit."),
    ("queue_rows_max", "memoryrouter_store_queue_rows_max", "gauge", "Rows that may wait; above: 503."),
    ("queue_bytes", "memoryrouter_store_queue_bytes", "gauge", "Bytes that wait for their commit."),
    ("queue_bytes_max", "memoryrouter_store_queue_bytes_max", "gauge", "Bytes that may wait; above: 503."),
    (
        "wait_seconds", "memoryrouter_store_queue_wait_seconds", "histogram",
        "From a job's hand-over to the beginning of its commit.",
    ),
    ("commit_seconds", "memoryrouter_store_commit_seconds", "histogram", "One commit with its sync to the disk."),
    ("batches", "memoryrouter_store_commits_total", "counter", "Commits, each with a sync to the disk."),
    ("commits", "memoryrouter_store_jobs_total", "counter", "Jobs that were committed, many in one commit."),
    ("failures", "memoryrouter_store_jobs_failed_total", "counter", "Jobs that were not committed."),
    ("rows", "memoryrouter_store_rows_total", "counter", "Rows that were committed."),
    ("bytes", "memoryrouter_store_bytes_total", "counter", "Bytes of these rows."),
    ("wal_bytes", "memoryrouter_store_wal_bytes", "gauge", "Size of the write-ahead log."),
    (
        "truncate_owed", "memoryrouter_store_truncate_owed", "gauge",
        "1 while the write-ahead log still holds what was erased.",
    ),
    ("damaged", "memoryrouter_store_file_damaged", "gauge", "1 for a file that refuses to serve."),
    ("scrub_passes", "memoryrouter_store_scrub_passes_total", "counter", "Times that every row was verified."),
    ("scrub_rows", "memoryrouter_store_scrub_rows_total", "counter", "Rows that were verified."),
    (
        "scrub_damaged_rows", "memoryrouter_store_scrub_damaged_rows", "gauge",
        "Damaged rows that this pass has found, or the last one.",
    ),
)  # fmt: skip

STORE = Group(
    (),
    ("rows_damaged_on_load", "memoryrouter_store_damaged_rows_total", "counter", "Damaged rows that were left out."),
    ("erasures_owed", "memoryrouter_store_erasures_owed", "gauge", "Erasures that are not in the ledger yet."),
    ("disk_full", "memoryrouter_disk_full", "gauge", "1 while nothing new is stored for want of room."),
    ("disk_free_bytes", "memoryrouter_disk_free_bytes", "gauge", "Room on the disk of the data directory."),
    ("ballast_bytes", "memoryrouter_disk_ballast_bytes", "gauge", "Room held back for deletions on a full disk."),
)

EMBEDDERS = Group(
    ("embedder",),
    ("open", "memoryrouter_embedder_open", "gauge", "1 once the model is known and can be asked."),
)

EMBEDDING = Group(
    ("embedder", "lane"),
    ("waiting", "memoryrouter_embedding_queue_requests", "gauge", "Requests that wait for their vectors."),
    ("waiting_max", "memoryrouter_embedding_queue_requests_max", "gauge", "Requests that may wait."),
    ("refused", "memoryrouter_embedding_refused_total", "counter", "Requests that found the queue full."),
    (
        "wait_seconds", "memoryrouter_embedding_queue_wait_seconds", "histogram",
        "From a request's arrival to its batch.",
    ),
    ("batch_seconds", "memoryrouter_embedding_batch_seconds", "histogram", "One batch in the model."),
    ("batch_texts", "memoryrouter_embedding_batch_texts", "histogram", "Texts of one batch."),
    ("texts", "memoryrouter_embedding_texts_total", "counter", "Texts that were embedded."),
    ("batches", "memoryrouter_embedding_batches_total", "counter", "Batches that were embedded."),
    ("failures", "memoryrouter_embedding_failures_total", "counter", "Batches that the model or its endpoint failed."),
)  # fmt: skip

VAULTS = Group(
    (),
    ("live", "memoryrouter_vaults_live", "gauge", "Vaults in memory, or on their way in or out."),
    ("resting", "memoryrouter_vaults_quarantined", "gauge", "Vaults that rest after repeated crashes."),
    ("resuming", "memoryrouter_vaults_resuming", "gauge", "Vaults that are still to be taken up after the start."),
    ("bytes_in_memory", "memoryrouter_vaults_memory_bytes", "gauge", "Estimated memory of the vaults in it."),
    ("memory_max_bytes", "memoryrouter_vaults_memory_max_bytes", "gauge", "Memory that they may take together."),
    ("messages_waiting", "memoryrouter_vaults_mailbox_messages", "gauge", "Messages that wait in all mailboxes."),
    ("mailbox_longest", "memoryrouter_vaults_mailbox_longest", "gauge", "Messages that wait in the fullest mailbox."),
    ("mailbox_messages_max", "memoryrouter_vaults_mailbox_messages_max", "gauge", "Messages that one mailbox takes."),
    (
        "wait_seconds", "memoryrouter_vaults_mailbox_wait_seconds", "histogram",
        "From a message's sending until its vault takes it, loading included.",
    ),
    ("inbox_messages", "memoryrouter_vaults_inbox_messages", "gauge", "Stored messages that are not memories yet."),
    ("inbox_bytes", "memoryrouter_vaults_inbox_bytes", "gauge", "Bytes of their texts."),
    ("hydrated", "memoryrouter_vaults_hydrated_total", "counter", "Vaults that were loaded into memory."),
    ("passivated", "memoryrouter_vaults_passivated_total", "counter", "Vaults that left memory."),
    ("crashed", "memoryrouter_vaults_crashed_total", "counter", "Crashes of vaults."),
    ("quarantined", "memoryrouter_vaults_quarantines_total", "counter", "Times that a vault was sent to rest."),
    ("stored", "memoryrouter_memories_stored_total", "counter", "Memories that were stored."),
    ("duplicates", "memoryrouter_memories_duplicates_total", "counter", "Messages that were known already."),
    ("flagged", "memoryrouter_memories_flagged_total", "counter", "Memories that screening has flagged."),
)  # fmt: skip

UPSTREAM = Group(
    ("provider",),
    ("calls", "memoryrouter_upstream_calls", "gauge", "Calls under way."),
    ("waiting", "memoryrouter_upstream_calls_waiting", "gauge", "Calls that wait for a connection."),
    ("calls_max", "memoryrouter_upstream_calls_max", "gauge", "Calls that may be under way."),
    (
        "first_byte_seconds", "memoryrouter_upstream_first_byte_seconds", "histogram",
        "From a call's beginning to its answer's head, waiting and repeated attempts included.",
    ),
    (
        "total_seconds", "memoryrouter_upstream_duration_seconds", "histogram",
        "From a call's beginning to its end, also where it is cut.",
    ),
    ("retries", "memoryrouter_upstream_retries_total", "counter", "Attempts that were repeated."),
    ("breaker_open", "memoryrouter_upstream_breaker_open", "gauge", "1 while a failing provider is left alone."),
    ("breaker_openings", "memoryrouter_upstream_breaker_openings_total", "counter", "Times that this began."),
)  # fmt: skip

UPSTREAM_RESPONSES = Group(
    ("provider", "status"),
    ("responses", "memoryrouter_upstream_responses_total", "counter", "Answers of providers, by status."),
)

UPSTREAM_ERRORS = Group(
    ("provider", "code"),
    ("errors", "memoryrouter_upstream_errors_total", "counter", "Calls without an answer, by the error's code."),
)

USAGE = Group(
    (),
    ("requests", "memoryrouter_usage_requests_total", "counter", "Requests with a key."),
    ("errors", "memoryrouter_usage_errors_total", "counter", "Of them, those that failed."),
    ("memories_stored", "memoryrouter_usage_memories_stored_total", "counter", "Memories stored on behalf of keys."),
    ("tokens_retrieved", "memoryrouter_usage_tokens_retrieved_total", "counter", "Tokens of memory that were found."),
    ("tokens_injected", "memoryrouter_usage_tokens_injected_total", "counter", "Of them, those given to a model."),
    ("tokens_billed", "memoryrouter_usage_tokens_billed_total", "counter", "Billing units of these tokens."),
    ("input_tokens", "memoryrouter_usage_input_tokens_total", "counter", "Tokens of prompts, as providers say."),
    ("output_tokens", "memoryrouter_usage_output_tokens_total", "counter", "Tokens of replies, as providers say."),
    ("files_waiting", "memoryrouter_usage_files_waiting", "gauge", "Files of counts that wait for the database."),
    ("file_bytes", "memoryrouter_usage_file_bytes", "gauge", "Size of the file that is being written."),
    ("rows_watched", "memoryrouter_usage_rows_watched", "gauge", "Inbox rows whose memories are counted already."),
    ("records", "memoryrouter_usage_records_total", "counter", "Records that were counted."),
    ("records_unwritten", "memoryrouter_usage_records_unwritten_total", "counter", "Records that only memory has."),
    ("folds", "memoryrouter_usage_folds_total", "counter", "Files that went into the database."),
    ("folds_failed", "memoryrouter_usage_folds_failed_total", "counter", "Attempts at that which failed."),
    ("files_failed", "memoryrouter_usage_files_failed_total", "counter", "Files that could not be made."),
    ("files_damaged", "memoryrouter_usage_files_damaged_total", "counter", "Files that could not be read."),
    ("bytes_damaged", "memoryrouter_usage_bytes_damaged_total", "counter", "Bytes that could not be read."),
    ("syncs_failed", "memoryrouter_usage_syncs_failed_total", "counter", "Syncs that the disk refused."),
)

LIMITS = Group(
    (),
    ("keys_tracked", "memoryrouter_limits_keys_tracked", "gauge", "Keys whose rate is remembered."),
    ("keys_busy", "memoryrouter_limits_keys_busy", "gauge", "Keys with requests under way, where that is limited."),
    ("addresses_tracked", "memoryrouter_limits_addresses_tracked", "gauge", "Addresses whose failures are remembered."),
    ("keys_proven", "memoryrouter_limits_keys_proven", "gauge", "Keys that go on whatever their address did."),
)

BODIES = Group(
    (),
    ("bytes", "memoryrouter_bodies_bytes", "gauge", "Bytes of request bodies in memory."),
    ("bytes_max", "memoryrouter_bodies_bytes_max", "gauge", "Bytes that may be; above, large bodies wait."),
    ("waiting", "memoryrouter_bodies_waiting", "gauge", "Requests that wait for room for their body."),
    ("refused", "memoryrouter_bodies_refused_total", "counter", "Requests that waited in vain."),
)

DASHBOARD = Group(
    (),
    ("sessions", "memoryrouter_dashboard_sessions", "gauge", "Browsers that are signed in to the dashboard."),
)

CLUSTER = Group(
    (),
    ("parts_owned", "memoryrouter_cluster_parts_owned", "gauge", "Partitions that this node owns."),
    ("parts_awaited", "memoryrouter_cluster_parts_awaited", "gauge", "Partitions that others are to give up to it."),
    ("parts_moving", "memoryrouter_cluster_parts_moving", "gauge", "Partitions that come to this node or leave it."),
    ("parts_unowned", "memoryrouter_cluster_parts_unowned", "gauge", "Partitions without a living owner, last seen."),
    ("nodes_alive", "memoryrouter_cluster_nodes_alive", "gauge", "Nodes whose lease lasted, last seen."),
    (
        "lease_remaining_s", "memoryrouter_cluster_lease_remaining_seconds", "gauge",
        "What is left of this node's lease as it counts itself; 0 once it is over.",
    ),
    ("beat_seconds", "memoryrouter_cluster_heartbeat_seconds", "histogram", "One renewal of this node's lease."),
    ("failures", "memoryrouter_cluster_heartbeats_failed_total", "counter", "Renewals without an answer."),
    ("lapses", "memoryrouter_cluster_leases_lapsed_total", "counter", "Leases of this node that ran out."),
    ("acquisitions", "memoryrouter_cluster_acquisitions_total", "counter", "Partitions that this node has taken."),
    ("takeovers", "memoryrouter_cluster_takeovers_total", "counter", "Of them, those whose owner had died."),
    ("hand_overs", "memoryrouter_cluster_hand_overs_total", "counter", "Partitions that it gave up in good order."),
    ("losses", "memoryrouter_cluster_losses_total", "counter", "Partitions that it lost without handing them over."),
    ("interrupted", "memoryrouter_cluster_interrupted_total", "counter", "Connections broken for want of an answer."),
)  # fmt: skip

FORWARDING = Group(
    (),
    ("forwarded", "memoryrouter_forwarded_requests_total", "counter", "Requests sent on, by answers of other nodes."),
    ("redirected", "memoryrouter_forwarded_redirected_total", "counter", "Of them, those that named another owner."),
    ("failed", "memoryrouter_forwarded_failed_total", "counter", "Requests whose vault was not reached: 503."),
    ("handed_over", "memoryrouter_connections_handed_over_total", "counter",
     "Clients' connections that went to the worker of the vault that was asked for."),
)  # fmt: skip

WORKERS = Group(
    ("worker",),
    ("up", "memoryrouter_worker_up", "gauge", "1 for a worker that has answered this scrape, 0 for one that has not."),
    ("restarts", "memoryrouter_worker_restarts_total", "counter", "Times that a worker was started again."),
)
"""Only where there are several; `router.worker_answers` reads them."""

READINESS = Group(
    ("part",),
    ("ready", "memoryrouter_part_ready", "gauge", "1 for a part that is ready, 0.5 if it serves less, 0 if it fails."),
)

TRACES = Group(
    (),
    ("ended", "memoryrouter_trace_spans_total", "counter", "Spans that were sampled and ended."),
    ("exported", "memoryrouter_trace_spans_exported_total", "counter", "Of them, those that the receiver has."),
    ("failed", "memoryrouter_trace_spans_failed_total", "counter", "Of them, those that it did not take."),
)


def watch_parts(components: Components, usage: UsageJournal | None) -> None:
    """Show on the server's page what its parts count."""
    page = components.metrics.page
    page.watch(STORE_FILES, partial(_store_files, components))
    page.watch(STORE, lambda: [((), components.store.statistics())])
    page.watch(EMBEDDERS, partial(_embedders, components.supervisor.embedders))
    page.watch(EMBEDDING, partial(_lanes, components.supervisor.embedders))
    page.watch(VAULTS, lambda: [((), _vaults(components))])
    page.watch(UPSTREAM, lambda: [((name,), numbers) for name, numbers in components.upstream.statistics().items()])
    page.watch(UPSTREAM_RESPONSES, lambda: _counts(components, "responses"))
    page.watch(UPSTREAM_ERRORS, lambda: _counts(components, "errors"))
    page.watch(USAGE, lambda: [] if usage is None else [((), {**usage.statistics(), **usage.totals()})])
    page.watch(LIMITS, lambda: [((), components.limits.statistics())])
    page.watch(BODIES, lambda: [((), _bodies(components))])
    page.watch(DASHBOARD, lambda: [((), components.dashboard.sessions.statistics())])
    page.watch(CLUSTER, lambda: [((), numbers) for numbers in cluster_statistics(components)])
    page.watch(FORWARDING, lambda: [] if components.forwarder is None else [((), components.forwarder.counters)])
    page.watch(READINESS, lambda: [((part,), {"ready": value}) for part, value in _readiness(components)])
    page.watch(TRACES, lambda: [((), components.tracing.statistics())])
    page.watch(PROCESS, lambda: [((), read_process())])


def _store_files(components: Components) -> Rows:
    statistics, settings = components.store.statistics(), components.settings.store
    bounds = {"queue_rows_max": settings.queue_rows_max, "queue_bytes_max": settings.queue_bytes_max}
    files = {"meta": statistics["meta"]}
    name, shards = "shard" if settings.kind == "sqlite" else "writer", statistics["shards"]
    own = statistics.get("shard_numbers", range(len(shards)))  # a worker writes some of them
    files |= {f"{name}-{number}": numbers for number, numbers in zip(own, shards, strict=True)}
    return [((file,), {**numbers, **bounds}) for file, numbers in files.items()]


def _embedders(embedders: Embedders) -> Rows:
    return [((embedder.name,), {"open": embedder.is_open}) for embedder in embedders.all()]


def _lanes(embedders: Embedders) -> Rows:
    return [
        ((embedder.name, lane), numbers) for embedder in embedders.all() for lane, numbers in embedder.lanes().items()
    ]


def _vaults(components: Components) -> Mapping[str, Any]:
    settings = components.settings.vaults
    return {
        **components.supervisor.statistics(),
        "memory_max_bytes": settings.memory_max_bytes,
        "mailbox_messages_max": settings.mailbox_messages_max,
    }


def _counts(components: Components, name: str) -> Rows:
    return [
        ((provider, str(label)), {name: count})
        for provider, numbers in components.upstream.statistics().items()
        for label, count in numbers[name].items()
    ]


def _bodies(components: Components) -> Mapping[str, Any]:
    return {**components.body_budget.statistics(), "bytes_max": components.body_budget.bytes_max}


def _readiness(components: Components) -> Iterator[tuple[str, float]]:
    worth = {"ready": 1.0, "degraded": 0.5, "not ready": 0.0}
    return ((part, worth[state.status]) for part, state in components.readiness.parts().items())
