-- From a trace to its spans. A row says "was put there at this revision"; whether the span still is there, links says.
CREATE TABLE IF NOT EXISTS {database}.trace_members {cluster}
(
    trace_id FixedString(16),
    span_id UInt64,
    start_ns UInt64 CODEC(Delta, ZSTD(1)),
    revision UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = {engine}ReplacingMergeTree(revision)
PARTITION BY toYYYYMMDD(fromUnixTimestamp64Nano(toInt64(start_ns), 'UTC'))
ORDER BY (trace_id, span_id)
