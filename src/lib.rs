//! rstscope tells who sent a TCP reset.
//!
//! The core (`time`, `vantage`, `wire`, `host`, `host_bytes`, `flow`, `evidence`, `verdict`, `record`,
//! `engine`) is pure: bytes and times in, records out. The edges (`sys`, `xdp`, `events`, `nic`,
//! `handback`, `pcap`, `sink`) each do one kind of I/O. docs/ARCHITECTURE.md has the map.

pub mod engine;
pub mod evidence;
pub mod flow;
pub mod host;
pub mod record;
pub mod time;
pub mod vantage;
pub mod verdict;
pub mod wire;

pub mod pcap;
pub mod sink;

pub mod notice;
