-- The last ledger of each agent and of the server, as JSON.
CREATE TABLE IF NOT EXISTS {database}.ledger {cluster}
(
    agent_id String,
    host LowCardinality(String),
    report String CODEC(ZSTD(1)),
    revision UInt64
)
ENGINE = {engine}ReplacingMergeTree(revision)
ORDER BY agent_id
