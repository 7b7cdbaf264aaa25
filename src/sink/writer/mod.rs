//! The threads behind the outputs, from their start to their end. Records reach the distributing one through
//! a bounded queue: in `run` a full queue costs a record, counted, and never makes the engine wait; in
//! `read` it makes the reader wait. Each output has a thread of its own for its receiver, so that one bad
//! output does not hold up the others.

mod distribute;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, unbounded};

use super::delivery::{Delivery, Tell};
use super::open::{Outlet, Place, Way};
use super::spool::{Patience, Spool, findings};
use super::{Counters, Emitted, Word, clock};
use crate::record::{Emission, Record};
use distribute::{Branch, End, distribute, write_directly};

/// Records that may wait for a direct output: standard output is read by somebody or is not.
const DIRECT_RECORDS: usize = 1024;
/// How often spools are forced to disk: what a power failure may cost (a crash of the program alone
/// costs nothing that is in a spool).
const SYNC_EVERY: Duration = Duration::from_millis(500);
/// How often somebody who waits for records to be written looks whether they are.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long a receiver may be silent at the end of `read` before what waits is given up.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// How long `run` waits for its receivers at its end; what is not delivered then stays in the spools.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// What became of the records of one output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputTotals {
    /// The output as the user named it.
    pub name: String,
    /// Records that it holds.
    pub written: u64,
    /// Records that it should hold and does not.
    pub lost: u64,
    /// Records that wait on disk for the next start.
    pub left: u64,
    /// The reader of a capture's records went away: what came later was not wanted, and is not lost.
    pub closed: bool,
}

/// What became of all records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// A row an output, in the user's order.
    pub outputs: Vec<OutputTotals>,
    /// Records that found the queue full.
    pub dropped: u64,
}

impl Totals {
    /// Records that some output should hold and does not.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.dropped + self.outputs.iter().map(|output| output.lost).sum::<u64>()
    }
}

/// State that all threads see.
#[derive(Debug)]
struct Shared {
    dropped: AtomicU64,
    /// Records that [`Output::send`] put into the queue.
    sent: AtomicU64,
    /// Records that were taken out of it and handed to the outputs.
    distributed: AtomicU64,
    outputs: Vec<(String, Arc<Counters>)>,
    reopened: Arc<AtomicU64>,
}

/// The near end of the queue: cheap to clone, for whoever makes records.
#[derive(Debug, Clone)]
pub struct Output {
    queue: Sender<Emitted>,
    shared: Arc<Shared>,
}

impl Output {
    /// Gives a record to the writer; `false` when it was dropped and counted because the queue is
    /// full. Never waits.
    pub fn try_send(&self, record: Record, emission: &Emission) -> bool {
        match self.queue.try_send(Emitted::new(record, emission.clone())) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Gives a record to the writer; waits while the queue is full.
    pub fn send(&self, record: Record, emission: &Emission) {
        if self
            .queue
            .send(Emitted::new(record, emission.clone()))
            .is_err()
        {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.shared.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody reads any output any more (standard output was a pipe, and the only output).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let closed = |(_, counters): &(_, Arc<Counters>)| counters.closed.load(Ordering::Relaxed);
        !self.shared.outputs.is_empty() && self.shared.outputs.iter().all(closed)
    }

    /// Records lost so far, those that found the queue full included.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost()
    }

    /// The same for later.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally(Arc::clone(&self.shared))
    }

    /// Records that found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Records that wait in the queue before the outputs.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Every output's name and numbers.
    #[must_use]
    pub fn counters(&self) -> &[(String, Arc<Counters>)] {
        &self.shared.outputs
    }

    /// Opens the files of all outputs anew before their next record.
    pub fn reopen(&self) {
        self.shared.reopened.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the outputs of a writer lost, to be asked while that is finished: it holds up nothing.
#[derive(Debug)]
pub struct Tally(Arc<Shared>);

impl Tally {
    /// Records lost so far, those that found the queue full included.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }
}

impl Shared {
    fn lost(&self) -> u64 {
        let lost = self.outputs.iter().map(|(_, counters)| counters.lost());
        self.dropped.load(Ordering::Relaxed) + lost.sum::<u64>()
    }
}

/// The writer thread and those behind it.
#[derive(Debug)]
pub struct Writer {
    output: Output,
    thread: JoinHandle<()>,
    spools: Vec<Option<Arc<Spool>>>,
    /// Every delivery thread sends its number when it is done.
    done: Receiver<usize>,
    stop_sync: Arc<AtomicBool>,
    sync: Option<JoinHandle<()>>,
    patience: Patience,
}

impl Writer {
    /// Starts the threads. `capacity` is the number of records that may wait to be distributed; `tell`
    /// gets one line when an output fails and one when it works again.
    ///
    /// # Errors
    ///
    /// What the system says when it has no thread left.
    pub fn spawn(
        outlets: Vec<Outlet>,
        capacity: usize,
        place: &Place,
        tell: impl Fn(&Word) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let tell: Tell = Arc::new(tell);
        let (queue, records) = bounded(capacity);
        let (done_sender, done) = unbounded();
        let shared = Arc::new(Shared {
            dropped: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            distributed: AtomicU64::new(0),
            outputs: outlets
                .iter()
                .map(|outlet| (outlet.name.clone(), Arc::clone(&outlet.counters)))
                .collect(),
            reopened: Arc::clone(&place.reopened),
        });
        let mut started = Started(Vec::with_capacity(outlets.len()));
        let mut branches = Vec::with_capacity(outlets.len());
        let patience = place.patience;
        for (number, outlet) in outlets.into_iter().enumerate() {
            let branch = start(outlet, number, (&tell, &done_sender), patience)?;
            started.0.push(match &branch.end {
                End::Spooled(spool) => Some(Arc::clone(spool)),
                End::Direct(_) => None,
            });
            branches.push(branch);
        }
        let thread = {
            let shared = Arc::clone(&shared);
            let done = move |count| {
                shared.distributed.fetch_add(count, Ordering::Release);
            };
            thread::Builder::new()
                .name("rst-records".to_owned())
                .spawn(move || distribute(&records, &branches, patience, &done))?
        };
        // The last that may fail: without it nothing would end it.
        let stop_sync = Arc::new(AtomicBool::new(false));
        let sync = start_sync(&started.0, &stop_sync)?;
        Ok(Self {
            output: Output { queue, shared },
            thread,
            spools: started.keep(),
            done,
            stop_sync,
            sync,
            patience,
        })
    }

    /// The near end of the queue.
    #[must_use]
    pub const fn output(&self) -> &Output {
        &self.output
    }

    /// Waits until standard output, and what else is written to directly, has all that came by
    /// [`Output::send`], so that what is said next stands behind it on a terminal. Records that came by
    /// [`Output::try_send`] are not waited for.
    pub fn settle(&self) {
        let shared = &self.output.shared;
        let sent = shared.sent.load(Ordering::Relaxed);
        while shared.distributed.load(Ordering::Acquire) < sent {
            thread::sleep(LOOK_AGAIN);
        }
        let outputs = shared.outputs.iter().zip(&self.spools);
        for ((_, counters), _) in outputs.filter(|(_, spool)| spool.is_none()) {
            while under_way(counters) > 0 {
                thread::sleep(LOOK_AGAIN);
            }
        }
    }

    /// What waits for the receivers.
    #[must_use]
    pub fn spools(&self) -> Vec<Arc<Spool>> {
        self.spools.iter().flatten().cloned().collect()
    }

    /// Waits until everything is delivered, or the time for that is over: what is on disk then stays
    /// there for the next start, what is in memory is lost and counted. Every clone of [`Output`] must
    /// be gone, or it waits for their owners too.
    #[must_use]
    pub fn finish(self) -> Totals {
        let Self {
            output: Output { queue, shared },
            thread,
            spools,
            done,
            stop_sync,
            sync,
            patience,
        } = self;
        drop(queue);
        // A panic of the thread aborts the program in release builds.
        let _ = thread.join();
        wait_for_deliveries(&spools, &done, &shared, patience);
        stop_sync.store(true, Ordering::Relaxed);
        if let Some(sync) = sync {
            sync.thread().unpark();
            let _ = sync.join();
        }
        // What can come to disk is not lost.
        spools.iter().flatten().for_each(|spool| spool.sync());
        let outputs = shared
            .outputs
            .iter()
            .zip(&spools)
            .map(|((name, counters), spool)| totals(name, counters, spool.as_deref()))
            .collect();
        // A receiver that says nothing may hold up a delivery for longer; nobody else waits for that.
        spools.iter().flatten().for_each(|spool| spool.let_go());
        Totals {
            outputs,
            dropped: shared.dropped.load(Ordering::Relaxed),
        }
    }
}

/// The spools whose deliveries run already while the other threads are started. When one of these cannot
/// be, the deliveries end: else they would keep their spools from whoever tries again.
struct Started(Vec<Option<Arc<Spool>>>);

impl Started {
    fn keep(mut self) -> Vec<Option<Arc<Spool>>> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let now = clock::now();
        self.0.iter().flatten().for_each(|spool| spool.close(now));
    }
}

fn totals(name: &str, counters: &Counters, spool: Option<&Spool>) -> OutputTotals {
    let get = Counters::get;
    let waiting = match spool {
        Some(_) => get(&counters.waiting),
        None => under_way(counters),
    };
    let left = match spool {
        Some(spool) if spool.folder().is_some() => waiting.saturating_sub(spool.only_in_memory()),
        _ => 0,
    };
    OutputTotals {
        name: name.to_owned(),
        written: get(&counters.delivered),
        lost: counters.lost() + waiting - left,
        left: left + spool.map_or(0, Spool::aside),
        closed: counters.closed.load(Ordering::Relaxed),
    }
}

/// Records of an output that is written to directly of which it is not known yet what became.
fn under_way(counters: &Counters) -> u64 {
    let get = Counters::get;
    match counters.closed.load(Ordering::Relaxed) {
        true => 0,
        false => get(&counters.accepted)
            .saturating_sub(get(&counters.delivered) + get(&counters.dropped)),
    }
}

/// A sensor gives its receivers a few seconds; who reads captures waits as long as there is progress.
fn wait_for_deliveries(
    spools: &[Option<Arc<Spool>>],
    done: &Receiver<usize>,
    shared: &Shared,
    patience: Patience,
) {
    let limit = match patience {
        Patience::None => LAST_FLUSH,
        Patience::Wait(_) => LAST_PATIENCE,
    };
    let close = || {
        let deadline = clock::now() + limit;
        spools
            .iter()
            .flatten()
            .for_each(|spool| spool.close(deadline));
        deadline
    };
    let delivered = || -> u64 {
        let delivered = shared.outputs.iter().map(|(_, counters)| {
            let get = Counters::get;
            get(&counters.delivered) + get(&counters.refused) + get(&counters.sent)
        });
        delivered.sum()
    };
    let mut deadline = close();
    let mut progress = delivered();
    let mut left = spools.len();
    while left > 0 {
        let until = deadline.saturating_duration_since(clock::now());
        match done.recv_timeout(until.min(Duration::from_millis(100))) {
            Ok(_) => left -= 1,
            Err(_) if clock::now() >= deadline + Duration::from_millis(200) => return,
            Err(_)
                if patience != Patience::None && (delivered() > progress || is_hopeful(shared)) =>
            {
                progress = delivered();
                deadline = close();
            }
            Err(_) => {}
        }
    }
}

/// Some output has records under way, and nothing speaks against their arrival: a request ends with an
/// answer or with a failure.
fn is_hopeful(shared: &Shared) -> bool {
    shared.outputs.iter().any(|(_, counters)| {
        Counters::get(&counters.waiting) > 0 && !counters.failing.load(Ordering::Relaxed)
    })
}

/// Starts the thread of one output.
fn start(
    outlet: Outlet,
    number: usize,
    (tell, done): (&Tell, &Sender<usize>),
    patience: Patience,
) -> io::Result<Branch> {
    let (tell, done) = (Arc::clone(tell), done.clone());
    let counters = Arc::clone(&outlet.counters);
    let builder = thread::Builder::new().name(format!("rst-output-{number}"));
    let end = match outlet.way {
        Way::Direct(sink) => {
            let (sender, records) = bounded(DIRECT_RECORDS);
            let counters = Arc::clone(&counters);
            builder.spawn(move || {
                write_directly(sink, &records, &counters, (&tell, patience));
                let _ = done.send(number);
            })?;
            End::Direct(sender)
        }
        Way::Spooled(spool, transport, found) => {
            let name = &outlet.name;
            findings(found).for_each(|word| tell(&word.of(name)));
            let delivery = Delivery {
                name: outlet.name,
                spool: Arc::clone(&spool),
                transport,
                counters: Arc::clone(&counters),
                tell,
                retry_max: outlet.target.retry_max,
            };
            builder.spawn(move || {
                delivery.run();
                let _ = done.send(number);
            })?;
            End::Spooled(spool)
        }
    };
    Ok(Branch {
        target: outlet.target,
        counters,
        end,
    })
}

fn start_sync(
    spools: &[Option<Arc<Spool>>],
    stop: &Arc<AtomicBool>,
) -> io::Result<Option<JoinHandle<()>>> {
    let durable: Vec<Arc<Spool>> = spools
        .iter()
        .flatten()
        .filter(|spool| spool.folder().is_some())
        .cloned()
        .collect();
    if durable.is_empty() {
        return Ok(None);
    }
    let stop = Arc::clone(stop);
    let thread = thread::Builder::new()
        .name("rst-spool-sync".to_owned())
        .spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                thread::park_timeout(SYNC_EVERY);
                durable.iter().for_each(|spool| spool.sync());
            }
        })?;
    Ok(Some(thread))
}

#[cfg(test)]
mod tests;
