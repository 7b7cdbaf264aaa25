//! Delivery of records to receivers that are real (rsyslog, syslog-ng) or that misbehave on purpose,
//! while they and the sensor are killed. `RSTSCOPE_RECORDS=100000` plays the long form.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that panics has failed, and says why; it waits by the clock"
)]

mod bulk;
mod campaign;
mod clickhouse;
mod daemons;
mod feeder;
mod file;
mod http;
mod https;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_tls;
mod syslog;
