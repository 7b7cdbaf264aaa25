//! Connections that this host routes, and translates: what is known of one when its translation is forgotten.

use crate::engine::testing::{OUT, THROUGH, event, observe, records, segment, sent, tuple};
use crate::flow::Endpoint;
use crate::host::KnownReason;
use crate::time::MILLISECOND;
use crate::wire::Flags;

#[test]
fn who_opened_a_translated_connection_is_told_by_the_answer_that_leaves_to_him() {
    // The SYN came in by a worker and left under another address; the SYN-ACK leaves to the client, translated back.
    let (client, host) = (tuple(), tuple().reversed());
    let told = |syn_acks: bool| {
        let records = records(|engine, _| {
            if syn_acks {
                let flags = Flags::SYN | Flags::ACK;
                observe(engine, 1, THROUGH, &segment(host, flags, 499));
            }
            observe(engine, 301, OUT, &segment(host, Flags::RST, 500));
            let kind = sent(false, KnownReason::NoSocket, None);
            engine.kernel_event(&event(301, host, kind));
        });
        let age_ms = records[0].age_ns.map(|age| age / MILLISECOND);
        (records[0].client, age_ms)
    };
    let opener = Endpoint {
        address: client.src,
        port: client.src_port,
    };
    assert_eq!(told(true), (Some(opener), Some(300)));
    assert_eq!(told(false), (None, None));
}

#[test]
fn the_answer_to_a_syn_that_was_routed_tells_nothing_new() {
    let (client, server) = (tuple(), tuple().reversed());
    let records = records(|engine, _| {
        observe(engine, 1, THROUGH, &segment(client, Flags::SYN, 99));
        let flags = Flags::SYN | Flags::ACK;
        observe(engine, 51, THROUGH, &segment(server, flags, 499));
        observe(engine, 301, OUT, &segment(server, Flags::RST, 500));
    });
    let asked = records[0].client.expect("it was heard to ask");
    assert_eq!((asked.address, asked.port), (client.src, client.src_port));
    let age_ms = records[0].age_ns.map(|age| age / MILLISECOND);
    assert_eq!(age_ms, Some(300), "from the SYN on");
}
