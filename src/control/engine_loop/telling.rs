//! What the engine's thread passes on to the workers: which connections are established, and which resets
//! went past them. It waits for no worker: what finds no room is counted there ([`worker::Shared`]).

use std::sync::Arc;

use crate::engine::Engine;
use crate::flow::{Confirmed, FlowKey, PassedReset};
use crate::host::{KernelEvent, KernelEventKind, SocketView};
use crate::time::Timestamp;
use crate::wire::Segment;
use crate::worker::{self, NewsItem};

/// Tells all workers of a connection that is established: which queue's it is, only they know.
pub(super) fn tell(workers: &[Arc<worker::Shared>], event: &KernelEvent) {
    if let KernelEventKind::Established { .. } = event.kind {
        let confirmed = Confirmed {
            key: FlowKey::of(event.tuple).0,
            time: event.time,
        };
        for worker in workers {
            worker.tell(NewsItem::Confirmed(confirmed));
        }
    }
}

/// Tells all workers of the first reset of a connection that went past them, so that they pass on
/// what its purported sender says next. Of a reset that opened no episode there is nothing to be
/// asked any more, and of a sweep one is enough.
pub(super) fn tell_of_reset(
    workers: &[Arc<worker::Shared>],
    engine: &Engine,
    segment: &Segment,
    (time, socket): (Timestamp, Option<SocketView>),
) {
    let (key, side) = FlowKey::of(segment.tuple);
    if engine.resets_open(&key, side) != 1 {
        return;
    }
    let reset = PassedReset {
        key,
        side,
        time,
        is_living: socket.is_some_and(|socket| socket.sequence().is_some()),
    };
    for worker in workers {
        worker.tell(NewsItem::Passed(reset));
    }
}
