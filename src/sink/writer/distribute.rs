//! What the distributing thread does: it forms each record once for all outputs that want that form, and
//! hands it to spools and to outputs that are written to directly. It waits for no receiver, unless it
//! was told that it may.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use crate::amount::counted;
use crate::record::Format;
use crate::sink::delivery::Tell;
use crate::sink::spool::{Patience, Spool};
use crate::sink::target::Target;
use crate::sink::{Counters, Emitted, Entry, Error, Sink, Word};

/// Records that are written together when many wait: some 200 KiB of JSON.
const BATCH_RECORDS: usize = 64;
/// Records that are formed and spooled together, at the most: one write of a spool.
const TOGETHER: usize = 256;
/// When records come one after the other, the next ones are let gather for so long: to be woken for each
/// costs more than to form it. The queue holds a hundred times as many as come in this time.
const GATHER: Duration = Duration::from_millis(4);

/// An output as the distributor sees it.
pub(super) struct Branch {
    pub(super) target: Target,
    pub(super) counters: Arc<Counters>,
    pub(super) end: End,
}

pub(super) enum End {
    Direct(Sender<Arc<Emitted>>),
    Spooled(Arc<Spool>),
}

/// Takes what came in together, forms it once a format, and hands it to the outputs together; `done` is
/// told how many were.
pub(super) fn distribute(
    records: &Receiver<Emitted>,
    branches: &[Branch],
    patience: Patience,
    done: &impl Fn(u64),
) {
    let mut entries = vec![Vec::new(); branches.len()];
    while let Ok(first) = records.recv() {
        let mut count = 0;
        for emitted in std::iter::once(first).chain(records.try_iter().take(TOGETHER - 1)) {
            count += 1;
            form(Arc::new(emitted), branches, &mut entries, patience);
        }
        for (branch, entries) in branches.iter().zip(&mut entries) {
            if let (End::Spooled(spool), false) = (&branch.end, entries.is_empty()) {
                spool.append(entries, patience);
                entries.clear();
            }
        }
        done(count);
        if (2..TOGETHER as u64).contains(&count) {
            thread::sleep(GATHER);
        }
    }
}

/// Puts a record in the form of each output that wants it; two outputs of one form share it.
fn form(
    emitted: Arc<Emitted>,
    branches: &[Branch],
    entries: &mut [Vec<Arc<Entry>>],
    patience: Patience,
) {
    let mut formed: [Option<Option<Arc<Entry>>>; Format::ALL.len()] = Default::default();
    for (branch, entries) in branches.iter().zip(entries) {
        if !branch.target.filter.wants(&emitted.record) {
            continue;
        }
        let format = branch.target.format;
        match &branch.end {
            End::Direct(sender) => branch.pass(sender, &emitted, patience),
            End::Spooled(_) => {
                let Some(known) = formed.get_mut(format as usize) else {
                    continue;
                };
                let entry = known.get_or_insert_with(|| emitted.entry(format).map(Arc::new));
                entries.extend(entry.clone());
            }
        }
    }
}

impl Branch {
    /// To an output that is written to directly.
    fn pass(&self, sender: &Sender<Arc<Emitted>>, emitted: &Arc<Emitted>, patience: Patience) {
        if self.counters.closed.load(Ordering::Relaxed) {
            return;
        }
        Counters::add(&self.counters.accepted, 1);
        let taken = match patience {
            Patience::None => sender.try_send(Arc::clone(emitted)).is_ok(),
            Patience::Wait(_) => sender.send(Arc::clone(emitted)).is_ok(),
        };
        if !taken && !self.counters.closed.load(Ordering::Relaxed) {
            Counters::add(&self.counters.dropped, 1);
        }
    }
}

/// Writes to an output that has no spool, until nobody is left who sends.
pub(super) fn write_directly(
    mut sink: Box<dyn Sink>,
    records: &Receiver<Arc<Emitted>>,
    counters: &Counters,
    (tell, patience): (&Tell, Patience),
) {
    let name = sink.name().to_owned();
    while let Ok(first) = records.recv() {
        let rest = records.try_iter().take(BATCH_RECORDS - 1);
        for emitted in std::iter::once(first).chain(rest) {
            sink.put(&emitted);
        }
        let flushed = sink.flush();
        Counters::add(&counters.delivered, flushed.written);
        let was_failing = counters.failing.load(Ordering::Relaxed);
        match flushed.error {
            // Whoever reads a capture and closes the pipe has seen enough. A sensor's reader has died.
            Some(Error::Closed) if patience != Patience::None => {
                counters.closed.store(true, Ordering::Relaxed);
                return;
            }
            Some(error @ Error::Closed) if !was_failing => {
                counters.failing.store(true, Ordering::Relaxed);
                let lost = format!("{error}; its records are lost from now on");
                tell(&Word::Warning(lost));
            }
            Some(error) if !was_failing => {
                counters.failing.store(true, Ordering::Relaxed);
                let lost = format!("{error}; its records are lost until that changes");
                tell(&Word::Warning(lost));
            }
            None if was_failing && flushed.written > 0 => {
                counters.failing.store(false, Ordering::Relaxed);
                let lost = counted(counters.lost(), "record");
                tell(&Word::Notice(format!("works again; lost {lost}")).of(&name));
            }
            Some(_) | None => {}
        }
        Counters::add(&counters.dropped, flushed.lost);
    }
}
