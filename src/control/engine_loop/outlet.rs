//! The way of a record out of the engine's thread: to the writer, counted by verdict and cause. It never
//! waits: a record that finds the writer's queue full is counted there and dropped.

use std::sync::Arc;

use super::shared::{Causes, EngineShared};
use crate::control::clock;
use crate::control::container::Containers;
use crate::record::{Emission, Record, ResetRecord};
use crate::sink::Output;
use crate::verdict::Cause;

/// The cause of a record that has none, in the numbers.
pub(in crate::control) const NO_CAUSE: &str = "unknown";

/// The way of a record out of the thread.
pub(in crate::control) struct Outlet {
    pub(super) output: Output,
    pub(super) shared: Arc<EngineShared>,
    /// Records so far.
    pub(super) causes: Causes,
    pub(super) emission: Emission,
    containers: Containers,
}

impl Outlet {
    pub(in crate::control) fn new(
        output: &Output,
        shared: &Arc<EngineShared>,
        emission: Emission,
    ) -> Self {
        Self {
            output: output.clone(),
            shared: Arc::clone(shared),
            causes: Causes::new(),
            emission,
            containers: Containers::default(),
        }
    }

    /// Names the process's container, which is asked for now, while the process may still be there.
    pub(super) fn send(&mut self, mut record: ResetRecord) {
        if let Some(process) = record.process {
            record.container = self
                .containers
                .of(process.pid, record.closed_at, record.end);
        }
        let cause = record.cause.map_or(NO_CAUSE, Cause::name);
        *self
            .causes
            .entry((record.verdict.name(), cause))
            .or_default() += 1;
        let took = clock::monotonic().since(record.end);
        self.shared.verdicts_took.record(took);
        self.pass(Record::Reset(Box::new(record)));
    }

    /// A full queue counts the loss itself.
    pub(super) fn pass(&mut self, record: Record) {
        self.output.try_send(record, &self.emission);
    }
}
