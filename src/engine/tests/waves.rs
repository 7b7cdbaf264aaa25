//! Many flows at once: a router that takes over, a server that dies, a device that loses its table.
//! What one flow cannot tell, and what must not be told of any.

use crate::engine::testing::{IN, at, config};
use crate::engine::{Engine, EngineConfig};
use crate::evidence::testing::{SENDER_ISN, Scene};
use crate::host::SocketView;
use crate::record::ResetRecord;
use crate::verdict::{Cause, Verdict};
use crate::wire::{Flags, LinkAddresses, Mac, Options, Segment, SeqNum};

const OLD: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const NEW: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 0xc]);

/// A peer: its address, its port, and the way that its segments come.
#[derive(Clone, Copy)]
struct Peer {
    network: u8,
    host: u8,
    port: u16,
    hop_limit: u8,
    mac: Mac,
}

fn peer(network: u8, host: u8, port: u16) -> Peer {
    Peer {
        network,
        host,
        port,
        hop_limit: 50,
        mac: OLD,
    }
}

impl Peer {
    fn by(self, mac: Mac) -> Self {
        Self { mac, ..self }
    }

    fn at(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    fn segment(self) -> Segment {
        let mut segment = Scene::established().resets[0].segment;
        segment.tuple.src = format!("10.7.{}.{}", self.network, self.host)
            .parse()
            .unwrap();
        segment.tuple.src_port = self.port;
        segment.hop_limit = self.hop_limit;
        segment.link = Some(LinkAddresses {
            src: self.mac,
            dst: None,
        });
        segment
    }

    fn syn(self) -> Segment {
        let usual = Scene::established().flow.sender.unwrap().syn.unwrap();
        Segment {
            flags: Flags(Flags::SYN),
            seq: SENDER_ISN,
            ack: SeqNum(0),
            ip_id: usual.ip_id,
            window: usual.window,
            options: usual.options,
            ..self.segment()
        }
    }

    /// As its kernel answers a segment of a connection that it does not know.
    fn bare(self) -> Segment {
        Segment {
            flags: Flags(Flags::RST),
            ack: SeqNum(0),
            ip_id: Some(0),
            window: 0,
            options: Options::default(),
            ..self.segment()
        }
    }
}

struct Sensor {
    engine: Engine,
    records: Vec<ResetRecord>,
}

impl Sensor {
    fn new() -> Self {
        Self {
            engine: Engine::new(EngineConfig {
                flow_capacity: 1_024,
                episode_capacity: 1_024,
                ..config()
            }),
            records: Vec::new(),
        }
    }

    fn hears(&mut self, ms: u64, segment: &Segment) {
        let time = at(ms);
        let socket = Scene::established().socket(|_| ()).resets[0].socket;
        let met: Option<SocketView> = socket.filter(|_| segment.flags.rst());
        let Self { engine, records } = self;
        engine.tick(time, &mut |record| records.push(record));
        engine.observe(time, IN, segment, met, &mut |record| records.push(record));
    }

    fn connects(&mut self, ms: u64, peers: &[Peer]) {
        peers.iter().for_each(|peer| self.hears(ms, &peer.syn()));
    }

    /// The records of all that was reset since the last time.
    fn records(&mut self) -> Vec<ResetRecord> {
        let Self { engine, records } = self;
        engine.finish(&mut |record| records.push(record));
        std::mem::take(records)
    }
}

fn shows(record: &ResetRecord, name: &str) -> bool {
    record.evidence.iter().any(|fact| fact.name == name)
}

fn shows_a_mac(record: &ResetRecord) -> bool {
    record
        .evidence
        .iter()
        .any(|fact| fact.name.starts_with("mac_mismatch"))
}

/// So many connections of one client, so that its router is well known.
fn busy(network: u8, ports: std::ops::Range<u16>) -> Vec<Peer> {
    ports.map(|port| peer(network, 1, port)).collect()
}

#[test]
fn a_router_that_takes_over_accuses_nobody_whether_flows_are_old_or_new() {
    let mut sensor = Sensor::new();
    let old = busy(1, 1_000..1_040);
    sensor.connects(0, &old);
    // The first to come by the new router are resets, after the pause in which it took over.
    for reset in &old[..10] {
        sensor.hears(4_000, &reset.by(NEW).segment());
    }
    for record in sensor.records() {
        assert_eq!(record.verdict, Verdict::Remote, "{}", record.message);
        assert!(!shows(&record, "mac_mismatch_steady"));
    }
    // Then new connections, of two hosts of the network, and resets of old and new ones.
    let new: Vec<Peer> = (1..3).map(|host| peer(1, host, 2_000).by(NEW)).collect();
    sensor.connects(4_100, &new);
    for reset in old[10..20].iter().chain(&new) {
        sensor.hears(4_200, &reset.by(NEW).segment());
    }
    // And of old ones that still come by the old router, as with two that share the way.
    for reset in &old[20..30] {
        sensor.hears(4_300, &reset.segment());
    }
    let records = sensor.records();
    assert_eq!(records.len(), 22);
    for record in &records {
        assert_eq!(record.verdict, Verdict::Remote, "{}", record.message);
        assert!(!shows_a_mac(record), "{}", record.message);
    }
}

#[test]
fn a_router_that_carries_other_networks_is_known_to_all() {
    let mut sensor = Sensor::new();
    let old = busy(1, 1_000..1_040);
    sensor.connects(0, &old);
    let others: Vec<Peer> = (10..14).map(|net| peer(net, 1, 80).by(NEW)).collect();
    sensor.connects(100, &others);
    sensor.hears(200, &old[0].by(NEW).segment());
    let records = sensor.records();
    assert_eq!(records[0].verdict, Verdict::Remote);
    assert!(!shows_a_mac(&records[0]));
}

#[test]
fn a_neighbor_that_forges_is_told_from_both_routers() {
    let mut sensor = Sensor::new();
    let old = busy(1, 1_000..1_040);
    sensor.connects(0, &old);
    sensor.connects(50, &[peer(1, 2, 9).by(NEW), peer(1, 3, 9).by(NEW)]);
    // It is heard itself: its own address, its own MAC.
    sensor.connects(
        60,
        &[peer(1, 99, 9).by(STRANGER), peer(1, 99, 10).by(STRANGER)],
    );
    sensor.hears(100, &old[0].by(STRANGER).segment());
    let records = sensor.records();
    assert_eq!(
        (records[0].verdict, records[0].cause),
        (Verdict::Injected, Some(Cause::Adjacent))
    );
    assert!(shows(&records[0], "mac_mismatch_steady"));
}

#[test]
fn a_server_that_dies_resets_all_its_flows_and_is_cleared() {
    let mut sensor = Sensor::new();
    let flows = busy(1, 1_000..1_100);
    sensor.connects(0, &flows);
    for (at, flow) in flows.iter().enumerate() {
        // Its process aborts them; its kernel answers for those that it knows no more.
        let reset = if at % 2 == 0 {
            flow.segment()
        } else {
            flow.bare()
        };
        sensor.hears(500, &reset);
    }
    let records = sensor.records();
    assert_eq!(records.len(), 100);
    for record in &records {
        assert_eq!(record.verdict, Verdict::Remote, "{}", record.message);
        assert!(!shows(record, "reset_with_many_from_one_place"));
    }
}

#[test]
fn a_cluster_that_is_restarted_resets_from_everywhere_and_is_cleared() {
    let mut sensor = Sensor::new();
    let flows: Vec<Peer> = (0..60)
        .map(|network| peer(network, 1, 9).at(40 + network % 20))
        .collect();
    sensor.connects(0, &flows);
    flows
        .iter()
        .for_each(|flow| sensor.hears(500, &flow.bare()));
    let records = sensor.records();
    assert_eq!(records.len(), 60);
    for record in &records {
        assert_eq!(record.verdict, Verdict::Remote, "{}", record.message);
        assert_ne!(record.cause, Some(Cause::Middlebox));
    }
}

#[test]
fn a_device_that_loses_its_table_is_told_by_the_many_in_whose_name_it_speaks() {
    let flow = |network: u8| peer(network, 1, 9).at(40 + network);
    let forge = |sensor: &mut Sensor, networks: u8| {
        let flows: Vec<Peer> = (1..=networks).map(flow).collect();
        sensor.connects(0, &flows);
        for peer in &flows {
            sensor.hears(500 + u64::from(peer.network), &peer.at(200).bare());
        }
        sensor.records()
    };
    let records = forge(&mut Sensor::new(), 10);
    assert_eq!(records.len(), 10);
    for record in &records {
        assert_eq!(
            (record.verdict, record.cause),
            (Verdict::Injected, Some(Cause::Middlebox)),
            "{}",
            record.message
        );
        assert!(shows(record, "reset_with_many_from_one_place"));
    }
    // Each of them alone, in shape and sequence its peer's, is not enough.
    for record in forge(&mut Sensor::new(), 3) {
        assert_ne!(record.verdict, Verdict::Injected, "{}", record.message);
    }
}

#[test]
fn one_counter_under_many_names_tells_a_device_where_no_syn_was_heard() {
    let forge = |step: u16| {
        let mut sensor = Sensor::new();
        for network in 1..6 {
            // Heard once, on another port: where it stands is known, not how this flow began.
            sensor.connects(0, &[peer(network, 1, 7).at(52)]);
            let mut reset = peer(network, 1, 9).at(200).segment();
            reset.ip_id = Some(4_000 + u16::from(network) * step);
            sensor.hears(500 + u64::from(network), &reset);
        }
        sensor.records()
    };
    let on = forge(3);
    assert_eq!(on.len(), 5);
    for record in &on {
        assert!(shows(record, "ip_id_counter_shared"), "{}", record.message);
    }
    for record in forge(9_000) {
        assert!(!shows(&record, "ip_id_counter_shared"));
    }
}
