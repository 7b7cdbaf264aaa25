//! rstscope tells who sent a TCP reset.
//!
//! The core (`amount`, `time`, `vantage`, `wire`, `host`, `flow`, `evidence`, `verdict`, `record`, `engine`) is
//! pure: bytes and times in, records out. The edges (`sys`, `xdp`, `events`, `nic`, `handback`, `pcap`,
//! `sink`, `privilege`, `metrics`) each do one kind of I/O; `worker`, `read` and `control` put them
//! together. docs/ARCHITECTURE.md has the map.

pub mod amount;
pub mod engine;
pub mod evidence;
pub mod flow;
pub mod host;
pub mod record;
pub mod time;
pub mod vantage;
pub mod verdict;
pub mod wire;

#[expect(missing_docs, reason = "generated from the BPF programs")]
pub mod bpf;
pub mod events;
pub mod handback;
pub mod host_bytes;
pub mod metrics;
pub mod nic;
pub mod pcap;
pub mod privilege;
pub mod sink;
pub mod sys;
pub mod xdp;

pub mod cli;
pub mod config;
pub mod control;
pub mod explain;
pub mod notice;
pub mod read;
pub mod worker;
