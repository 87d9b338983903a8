-- What the assembler knows of each span: its trace and its parent. The highest revision counts. parent_id 0: it has none.
CREATE TABLE IF NOT EXISTS {database}.links {cluster}
(
    start_ns UInt64 CODEC(Delta, ZSTD(1)),
    span_id UInt64,
    trace_id FixedString(16),
    parent_id UInt64,
    method LowCardinality(String),
    confidence Float32 CODEC(ZSTD(1)),
    revision UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = {engine}ReplacingMergeTree(revision)
PARTITION BY toYYYYMMDD(fromUnixTimestamp64Nano(toInt64(start_ns), 'UTC'))
ORDER BY (intDiv(start_ns, 60000000000), span_id)
