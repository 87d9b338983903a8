-- One row per span, written once. The trace is not known here: see links and trace_members.
-- Minute first, so that a page of recent spans and a look-up by (minute, id) both read few granules.
CREATE TABLE IF NOT EXISTS {database}.spans {cluster}
(
    span_id UInt64,
    connection_id UInt64,
    start_ns UInt64 CODEC(Delta, ZSTD(1)),
    request_end_ns UInt64 CODEC(Delta, ZSTD(1)),
    response_start_ns UInt64 CODEC(Delta, ZSTD(1)),
    end_ns UInt64 CODEC(Delta, ZSTD(1)),
    connect_ns UInt64 CODEC(ZSTD(1)),
    request_bytes UInt64 CODEC(ZSTD(1)),
    response_bytes UInt64 CODEC(ZSTD(1)),
    local_addr FixedString(16) CODEC(ZSTD(1)),
    peer_addr FixedString(16) CODEC(ZSTD(1)),
    netns UInt32 CODEC(ZSTD(1)),
    pid UInt32 CODEC(ZSTD(1)),
    req_tid UInt32 CODEC(ZSTD(1)),
    resp_tid UInt32 CODEC(ZSTD(1)),
    connect_tid UInt32 CODEC(ZSTD(1)),
    req_seq UInt32,
    resp_seq UInt32,
    stream_id UInt32 CODEC(ZSTD(1)),
    weight UInt32 CODEC(ZSTD(1)),
    local_port UInt16 CODEC(ZSTD(1)),
    peer_port UInt16 CODEC(ZSTD(1)),
    flags UInt16 CODEC(ZSTD(1)),
    kind UInt8 CODEC(ZSTD(1)),
    protocol UInt8 CODEC(ZSTD(1)),
    status UInt8 CODEC(ZSTD(1)),
    seq_space UInt8 CODEC(ZSTD(1)),
    name LowCardinality(String),
    error_type LowCardinality(String),
    host LowCardinality(String),
    boot_id LowCardinality(String),
    process_start_ns UInt64 CODEC(ZSTD(1)),
    container_id LowCardinality(String),
    comm LowCardinality(String),
    service LowCardinality(String),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    group_id UInt64 CODEC(Delta, ZSTD(1)),
    INDEX by_group group_id TYPE minmax GRANULARITY 1
)
ENGINE = {engine}MergeTree
PARTITION BY toYYYYMMDD(fromUnixTimestamp64Nano(toInt64(start_ns), 'UTC'))
ORDER BY (intDiv(start_ns, 60000000000), span_id)
SETTINGS non_replicated_deduplication_window = 1000
