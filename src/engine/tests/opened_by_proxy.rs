//! A host behind a proxy that answers SYNs with cookies (SYNPROXY, a scrubber): SYNs come from the proxy, whatever
//! their addresses, and what clients send themselves comes from wherever they stand.

use crate::engine::testing::{config, segment};
use crate::engine::{Engine, EngineConfig};
use crate::host::KernelTells;
use crate::record::ResetRecord;
use crate::time::{MILLISECOND, SECOND, Timestamp};
use crate::vantage::{InterfaceId, Path, Vantage};
use crate::verdict::Verdict;
use crate::wire::{Flags, FourTuple, Options, Segment, SeqNum, Timestamps};

/// The hop limit that the proxy's own segments come with, and those of its clients.
const PROXY: u8 = 64;
const CLIENT: u8 = 52;
/// As Linux asks, and SYNPROXY in the name of whoever asks it (`synproxy_build_options`).
const LINUX_ORDER: u32 = 0x2_4813;

const IPV4: &str = "198.51.100.1";
const IPV6: &str = "2001:db8:ffff::1";

/// From a client of the network with that number.
fn from(network: u8, port: u16, server: &str) -> FourTuple {
    let src = match server {
        IPV4 => format!("203.0.{network}.7"),
        _ => format!("2001:db8:{network:x}::7"),
    };
    FourTuple {
        src: src.parse().unwrap(),
        src_port: port,
        dst: server.parse().unwrap(),
        dst_port: 443,
    }
}

struct World {
    engine: Engine,
    ms: u64,
    server: &'static str,
    records: Vec<ResetRecord>,
}

impl World {
    fn new(server: &'static str) -> Self {
        Self {
            engine: Engine::new(EngineConfig {
                offline: true,
                kernel: KernelTells::default(),
                flow_capacity: 1_024,
                ..config()
            }),
            ms: 0,
            server,
            records: Vec::new(),
        }
    }

    fn see(&mut self, mut segment: Segment) {
        if self.server == IPV6 {
            (segment.ip_id, segment.dont_fragment) = (None, None);
        }
        let capture = Vantage {
            interface: InterfaceId(0),
            path: Path::Capture,
        };
        self.ms += 5;
        let time = Timestamp::from_nanos(SECOND + self.ms * MILLISECOND);
        let records = &mut self.records;
        let mut emit = |record| records.push(record);
        self.engine
            .observe(time, capture, &segment, None, &mut emit);
    }

    /// SYN and SYN-ACK, as a capture of SYN, FIN and RST has them.
    fn open(&mut self, network: u8, port: u16, hop_limit: u8) {
        let tuple = from(network, port, self.server);
        let options = |value| Options {
            sack_permitted: true,
            order: LINUX_ORDER,
            timestamps: Some(Timestamps { value, echo: 0 }),
            ..Options::default()
        };
        self.see(Segment {
            hop_limit,
            window: 64_240,
            options: options(500),
            ..segment(tuple, Flags::SYN, 1_000)
        });
        self.see(Segment {
            hop_limit: 64,
            window: 65_160,
            options: options(900),
            ack: SeqNum(1_001),
            ..segment(tuple.reversed(), Flags::SYN | Flags::ACK, 7_000)
        });
    }

    fn close(&mut self, network: u8, port: u16, hop_limit: u8) {
        let tuple = from(network, port, self.server);
        self.see(Segment {
            hop_limit,
            window: 500,
            ack: SeqNum(7_300),
            ..segment(tuple, Flags::FIN | Flags::ACK, 1_100)
        });
    }

    /// Aborts without timestamps, as Apple's stack does, and gives the record of it.
    fn abort(mut self, network: u8, port: u16) -> ResetRecord {
        let tuple = from(network, port, self.server);
        self.see(Segment {
            hop_limit: CLIENT,
            window: 2_058,
            ack: SeqNum(7_300),
            ..segment(tuple, Flags::RST | Flags::ACK, 1_100)
        });
        let end = Timestamp::from_nanos(600 * SECOND);
        let records = &mut self.records;
        self.engine.tick(end, &mut |record| records.push(record));
        assert_eq!(self.records.len(), 1, "{:?}", self.records);
        self.records.remove(0)
    }

    /// Twelve clients of six networks come and go.
    fn busy(server: &'static str, opened_at: u8, closed_at: u8) -> Self {
        let mut world = Self::new(server);
        for client in 0..12 {
            world.open(client % 6, 40_000 + u16::from(client), opened_at);
            world.close(client % 6, 40_000 + u16::from(client), closed_at);
        }
        world
    }
}

#[test]
fn a_client_behind_the_proxy_is_not_accused_of_standing_where_it_stands() {
    for server in [IPV4, IPV6] {
        let mut world = World::busy(server, PROXY, CLIENT);
        world.open(77, 50_000, PROXY);
        let record = world.abort(77, 50_000);
        assert_ne!(record.verdict, Verdict::Injected, "{:?}", record.evidence);
    }
}

#[test]
fn nor_is_one_of_which_many_syns_were_heard_and_no_fin() {
    for server in [IPV4, IPV6] {
        let mut world = World::busy(server, PROXY, CLIENT);
        for port in 50_000..50_005 {
            world.open(77, port, PROXY);
        }
        let record = world.abort(77, 50_000);
        assert_ne!(record.verdict, Verdict::Injected, "{:?}", record.evidence);
    }
}

#[test]
fn where_connections_close_from_where_they_opened_a_stranger_is_still_found() {
    for server in [IPV4, IPV6] {
        let mut world = World::busy(server, PROXY, PROXY);
        for port in 50_000..50_005 {
            world.open(77, port, PROXY);
        }
        let record = world.abort(77, 50_000);
        assert_eq!(record.verdict, Verdict::Injected, "{:?}", record.evidence);
    }
}
