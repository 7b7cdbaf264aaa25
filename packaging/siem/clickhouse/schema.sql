-- Records of rstscope in ClickHouse: one table that takes them as they are (JSONEachRow, both kinds), one
-- that takes what the sensor's own output sends, and two that keep them. Needs 23.8 or newer (named
-- tuples take JSON objects, unknown keys are skipped). Apply with:
-- clickhouse-client --multiquery <schema.sql
--
-- A record may arrive twice: ReplacingMergeTree keeps one of each event_id; ask with FINAL where the
-- count matters. Rows go 90 days after they were taken, not after their own time: those of an old capture
-- would be gone at once. Nullable means "not known": a 0 that is there was measured.

CREATE DATABASE IF NOT EXISTS rstscope;

-- Takes records and keeps none. Times and addresses stay texts here, so that no setting of the
-- sender decides how they are read.
CREATE TABLE IF NOT EXISTS rstscope.records
(
    `@timestamp` String,
    `message` String,
    `event` Tuple(
        `kind` String, `category` Array(String), `type` Array(String), `action` String,
        `start` String, `end` String, `duration` UInt64, `dataset` String, `id` String),
    `source` Tuple(`ip` String, `port` UInt16, `mac` String),
    `destination` Tuple(`ip` String, `port` UInt16, `mac` String),
    `client` Tuple(`ip` String, `port` UInt16),
    `server` Tuple(`ip` String, `port` UInt16),
    `network` Tuple(
        `type` String, `direction` String, `community_id` String, `vlan` Tuple(`id` String)),
    `observer` Tuple(
        `hostname` String, `version` String,
        `ingress` Tuple(`interface` Tuple(`name` String)),
        `egress` Tuple(`interface` Tuple(`name` String))),
    `process` Tuple(`pid` Nullable(UInt32), `name` String),
    `container` Tuple(`id` String),
    `rstscope` Tuple(
        `schema` String, `verdict` String, `cause` String, `confidence` Float32,
        `total_db` Nullable(Float32), `device` String, `stage` String,
        `evidence` Array(Tuple(
            `name` String, `group` String, `favors` String, `weight_db` Float32,
            `observed` String, `expected` String)),
        `resets` Array(Tuple(
            `time` String, `direction` String, `flags` String, `seq` UInt32,
            `ack` Nullable(UInt32), `seq_fit` String, `seq_offset` Nullable(Int32),
            `hop_limit` UInt8, `ip_id` Nullable(UInt16), `window` UInt16, `mac` String)),
        `reset_count` UInt64,
        `baseline` Tuple(
            `hop_limit` Nullable(UInt8), `mac` String, `window` Nullable(UInt16),
            `timestamps` Nullable(Bool), `source` String),
        `bytes_in` Nullable(UInt64), `bytes_out` Nullable(UInt64),
        `age_ns` Nullable(UInt64), `idle_ns` Nullable(UInt64),
        `kernel` Tuple(
            `accepted` Nullable(Bool), `reset_reason` String, `socket_state` String),
        `related` Array(Tuple(
            `id` String, `source` Tuple(`ip` String, `port` UInt16),
            `destination` Tuple(`ip` String, `port` UInt16),
            `delta_ns` UInt64, `confidence` Float32, `join` String)),
        `aggregate` Tuple(`network` String, `flows` Nullable(UInt64)),
        `coverage` Tuple(
            `observed` UInt64, `passed` Nullable(UInt64), `bypassed` UInt64, `copied` UInt64,
            `lost` UInt64, `complete` Bool))
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS rstscope.resets
(
    `time` DateTime64(9, 'UTC'),
    `event_id` String,
    `host` LowCardinality(String),
    `interface` LowCardinality(String),
    `direction` LowCardinality(String),
    `verdict` LowCardinality(String),
    `cause` LowCardinality(String),
    `confidence` Float32,
    `total_db` Nullable(Float32),
    `stage` LowCardinality(String),
    `device` LowCardinality(String),
    `source_ip` IPv6,
    `source_port` UInt16,
    `destination_ip` IPv6,
    `destination_port` UInt16,
    `client_ip` Nullable(IPv6),
    `client_port` Nullable(UInt16),
    `server_ip` Nullable(IPv6),
    `server_port` Nullable(UInt16),
    `community_id` String,
    `vlan` LowCardinality(String),
    `process_pid` Nullable(UInt32),
    `process_name` LowCardinality(String),
    `container_id` String,
    `first_seq` UInt32,
    `first_flags` LowCardinality(String),
    `first_hop_limit` UInt8,
    `first_seq_fit` LowCardinality(String),
    `baseline_hop_limit` Nullable(UInt8),
    `reset_count` UInt64,
    `duration_ns` UInt64,
    `bytes_in` Nullable(UInt64),
    `bytes_out` Nullable(UInt64),
    `age_ns` Nullable(UInt64),
    `idle_ns` Nullable(UInt64),
    `accepted` Nullable(Bool),
    `reset_reason` LowCardinality(String),
    `evidence` Array(String),
    `related` Array(String),
    `corrects` String,
    `aggregate_network` LowCardinality(String),
    `aggregate_flows` Nullable(UInt64),
    `message` String,
    `taken_at` DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (community_id, time, event_id)
TTL taken_at + INTERVAL 90 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS rstscope.resets_from_records TO rstscope.resets AS
SELECT
    parseDateTime64BestEffort(`@timestamp`, 9, 'UTC') AS time,
    event.id AS event_id,
    observer.hostname AS host,
    if(observer.ingress.interface.name != '', observer.ingress.interface.name,
        observer.egress.interface.name) AS interface,
    network.direction AS direction,
    rstscope.verdict AS verdict,
    rstscope.cause AS cause,
    rstscope.confidence AS confidence,
    rstscope.total_db AS total_db,
    rstscope.stage AS stage,
    rstscope.device AS device,
    toIPv6(source.ip) AS source_ip,
    source.port AS source_port,
    toIPv6(destination.ip) AS destination_ip,
    destination.port AS destination_port,
    toIPv6OrNull(client.ip) AS client_ip,
    if(client.ip = '', NULL, client.port) AS client_port,
    toIPv6OrNull(server.ip) AS server_ip,
    if(server.ip = '', NULL, server.port) AS server_port,
    network.community_id AS community_id,
    network.vlan.id AS vlan,
    process.pid AS process_pid,
    process.name AS process_name,
    container.id AS container_id,
    rstscope.resets[1].seq AS first_seq,
    rstscope.resets[1].flags AS first_flags,
    rstscope.resets[1].hop_limit AS first_hop_limit,
    rstscope.resets[1].seq_fit AS first_seq_fit,
    rstscope.baseline.hop_limit AS baseline_hop_limit,
    rstscope.reset_count AS reset_count,
    event.duration AS duration_ns,
    rstscope.bytes_in AS bytes_in,
    rstscope.bytes_out AS bytes_out,
    rstscope.age_ns AS age_ns,
    rstscope.idle_ns AS idle_ns,
    rstscope.kernel.accepted AS accepted,
    rstscope.kernel.reset_reason AS reset_reason,
    arrayMap(item -> concat(item.name, ' ', toString(item.weight_db), ' dB ', item.favors),
        rstscope.evidence) AS evidence,
    arrayFilter(id -> id != '', arrayMap(item -> item.id, rstscope.related)) AS related,
    arrayFirst(item -> item.join = 'correction', rstscope.related).id AS corrects,
    rstscope.aggregate.network AS aggregate_network,
    rstscope.aggregate.flows AS aggregate_flows,
    message
FROM rstscope.records
WHERE event.dataset = 'rstscope.reset';

CREATE TABLE IF NOT EXISTS rstscope.coverage
(
    `start` DateTime64(9, 'UTC'),
    `end` DateTime64(9, 'UTC'),
    `event_id` String,
    `host` LowCardinality(String),
    `interface` LowCardinality(String),
    `observed` UInt64,
    `passed` Nullable(UInt64),
    `bypassed` UInt64,
    `copied` UInt64,
    `lost` UInt64,
    `complete` Bool,
    `taken_at` DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(end)
ORDER BY (host, interface, end, event_id)
TTL taken_at + INTERVAL 90 DAY;

CREATE MATERIALIZED VIEW IF NOT EXISTS rstscope.coverage_from_records TO rstscope.coverage AS
SELECT
    parseDateTime64BestEffort(event.start, 9, 'UTC') AS start,
    parseDateTime64BestEffort(event.end, 9, 'UTC') AS end,
    event.id AS event_id,
    observer.hostname AS host,
    observer.ingress.interface.name AS interface,
    rstscope.coverage.observed AS observed,
    rstscope.coverage.passed AS passed,
    rstscope.coverage.bypassed AS bypassed,
    rstscope.coverage.copied AS copied,
    rstscope.coverage.lost AS lost,
    rstscope.coverage.complete AS complete
FROM rstscope.records
WHERE event.dataset = 'rstscope.coverage';

-- Takes what the sensor's output sends (clickhouse+https://HOST:8443?table=rstscope.rows): the record as a
-- text beside some columns, so that a newer record never fails for want of one. Keeps none either.
CREATE TABLE IF NOT EXISTS rstscope.rows
(
    `event_id` String,
    `time` Int64,
    `verdict` String,
    `community_id` String,
    `record` String
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS rstscope.records_from_rows TO rstscope.records AS
SELECT
    JSONExtractString(record, '@timestamp') AS `@timestamp`,
    JSONExtractString(record, 'message') AS `message`,
    JSONExtract(record, 'event',
        'Tuple(
            `kind` String, `category` Array(String), `type` Array(String), `action` String,
            `start` String, `end` String, `duration` UInt64, `dataset` String, `id` String)') AS `event`,
    JSONExtract(record, 'source',
        'Tuple(`ip` String, `port` UInt16, `mac` String)') AS `source`,
    JSONExtract(record, 'destination',
        'Tuple(`ip` String, `port` UInt16, `mac` String)') AS `destination`,
    JSONExtract(record, 'client',
        'Tuple(`ip` String, `port` UInt16)') AS `client`,
    JSONExtract(record, 'server',
        'Tuple(`ip` String, `port` UInt16)') AS `server`,
    JSONExtract(record, 'network',
        'Tuple(
            `type` String, `direction` String, `community_id` String, `vlan` Tuple(`id` String))') AS `network`,
    JSONExtract(record, 'observer',
        'Tuple(
            `hostname` String, `version` String,
            `ingress` Tuple(`interface` Tuple(`name` String)),
            `egress` Tuple(`interface` Tuple(`name` String)))') AS `observer`,
    JSONExtract(record, 'process',
        'Tuple(`pid` Nullable(UInt32), `name` String)') AS `process`,
    JSONExtract(record, 'container',
        'Tuple(`id` String)') AS `container`,
    JSONExtract(record, 'rstscope',
        'Tuple(
            `schema` String, `verdict` String, `cause` String, `confidence` Float32,
            `total_db` Nullable(Float32), `device` String, `stage` String,
            `evidence` Array(Tuple(
                `name` String, `group` String, `favors` String, `weight_db` Float32,
                `observed` String, `expected` String)),
            `resets` Array(Tuple(
                `time` String, `direction` String, `flags` String, `seq` UInt32,
                `ack` Nullable(UInt32), `seq_fit` String, `seq_offset` Nullable(Int32),
                `hop_limit` UInt8, `ip_id` Nullable(UInt16), `window` UInt16, `mac` String)),
            `reset_count` UInt64,
            `baseline` Tuple(
                `hop_limit` Nullable(UInt8), `mac` String, `window` Nullable(UInt16),
                `timestamps` Nullable(Bool), `source` String),
            `bytes_in` Nullable(UInt64), `bytes_out` Nullable(UInt64),
            `age_ns` Nullable(UInt64), `idle_ns` Nullable(UInt64),
            `kernel` Tuple(
                `accepted` Nullable(Bool), `reset_reason` String, `socket_state` String),
            `related` Array(Tuple(
                `id` String, `source` Tuple(`ip` String, `port` UInt16),
                `destination` Tuple(`ip` String, `port` UInt16),
                `delta_ns` UInt64, `confidence` Float32, `join` String)),
            `aggregate` Tuple(`network` String, `flows` Nullable(UInt64)),
            `coverage` Tuple(
                `observed` UInt64, `passed` Nullable(UInt64), `bypassed` UInt64, `copied` UInt64,
                `lost` UInt64, `complete` Bool))') AS `rstscope`
FROM rstscope.rows;
