//! The outputs of a run, which may be exchanged while it goes on: the engine holds its records back for
//! that moment, the old outputs are finished, the new ones opened. When a new one does not open, the old
//! ones are taken up again. Records that were held go to whichever stand then; none is left out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::Sender;

use super::engine_loop::Order;
use super::error::Error;
use crate::config::RunConfig;
use crate::notice;
use crate::privilege::Jail;
use crate::sink::{self, Output, Patience, Place, Style, Target, Writer};

/// Records that may wait for a slow output: at 3 KB each some 24 MB at the most.
pub(super) const RECORDS_WAITING: usize = 8192;

/// How long to wait before the old outputs are tried again, when neither they nor the new ones open.
const AGAIN: Duration = Duration::from_secs(1);

/// What an exchange came to.
struct Exchanged {
    /// What the outputs before came to.
    before: sink::Totals,
    /// `None` when the run ended before any output could be opened.
    now: Option<(Writer, Vec<Target>)>,
}

enum State {
    Open(Writer),
    Exchanging(JoinHandle<Exchanged>),
    /// Nothing could be opened before the end.
    Closed,
}

/// The outputs.
pub(super) struct Outputs {
    state: State,
    targets: Vec<Target>,
    /// The folder of their spools.
    spool: PathBuf,
    /// Of outputs that were exchanged.
    earlier: sink::Totals,
    is_ending: Arc<AtomicBool>,
}

impl Outputs {
    /// Opens them; their threads are made within the jail.
    pub(super) fn open(config: &RunConfig, jail: &Jail) -> Result<Self, Error> {
        let (targets, spool) = (&config.outputs, &config.spool);
        let writer = jail
            .within_to_write(|| open(targets, spool, config.replace))
            .map_err(Error::Privilege)??;
        Ok(Self {
            state: State::Open(writer),
            targets: targets.clone(),
            spool: spool.clone(),
            earlier: sink::Totals::default(),
            is_ending: Arc::default(),
        })
    }

    /// The end of the queue for the engine; `None` during an exchange.
    pub(super) fn output(&self) -> Option<&Output> {
        match &self.state {
            State::Open(writer) => Some(writer.output()),
            _ => None,
        }
    }

    /// Records that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.earlier.lost() + self.output().map_or(0, Output::lost)
    }

    /// Whether these outputs stand already.
    pub(super) fn are(&self, targets: &[Target]) -> bool {
        self.targets == targets
    }

    /// Begins to exchange them; [`Outputs::follow`] ends it. Does nothing while an exchange is under
    /// way, and answers `false` then.
    pub(super) fn exchange(
        &mut self,
        targets: &[Target],
        jail: &Jail,
        orders: &Sender<Order>,
    ) -> Result<bool, Error> {
        let State::Open(writer) = std::mem::replace(&mut self.state, State::Closed) else {
            return Ok(false);
        };
        // The engine must let go of the old writer's queue, or that would wait for it for ever.
        let _ = orders.send(Order::Hold);
        let (old, new) = (self.targets.clone(), targets.to_vec());
        let is_ending = Arc::clone(&self.is_ending);
        let spool = self.spool.clone();
        let begun = jail.within_to_write(move || {
            std::thread::Builder::new()
                .name("rst-reload".to_owned())
                .spawn(move || exchange(writer, old, new, &spool, &is_ending))
        });
        let thread = begun
            .map_err(Error::Privilege)?
            .map_err(|error| Error::System("start a thread for the new outputs", error))?;
        self.state = State::Exchanging(thread);
        Ok(true)
    }

    /// Ends an exchange that is done: gives the engine its outputs. `true` when it did.
    pub(super) fn follow(&mut self, orders: &Sender<Order>) -> bool {
        let is_done = matches!(&self.state, State::Exchanging(thread) if thread.is_finished());
        if is_done {
            self.settle(orders);
        }
        is_done
    }

    /// Waits for an exchange that is under way.
    pub(super) fn settle(&mut self, orders: &Sender<Order>) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        let State::Exchanging(thread) = state else {
            self.state = state;
            return;
        };
        // A panic of the thread aborts release builds.
        let Ok(done) = thread.join() else { return };
        self.earlier.dropped += done.before.dropped;
        self.earlier.outputs.extend(done.before.outputs);
        if let Some((writer, targets)) = done.now {
            let _ = orders.send(Order::Output(writer.output().clone()));
            self.targets = targets;
            self.state = State::Open(writer);
        }
    }

    /// No output is waited for any longer.
    pub(super) fn note_end(&self) {
        self.is_ending.store(true, Ordering::Release);
    }

    /// Waits until everything is written; to be called when the engine has ended.
    pub(super) fn finish(self) -> sink::Totals {
        let mut totals = self.earlier;
        if let State::Open(writer) = self.state {
            let last = writer.finish();
            totals.dropped += last.dropped;
            totals.outputs.extend(last.outputs);
        }
        totals
    }
}

fn open(targets: &[Target], spool: &Path, inherits: bool) -> Result<Writer, Error> {
    let place = Place {
        spool: Some(spool.to_owned()),
        patience: Patience::None,
        reopened: Arc::default(),
        inherits,
    };
    let outlets = sink::open_all(targets, Style::default(), &place).map_err(Error::Sink)?;
    Writer::spawn(outlets, RECORDS_WAITING, &place, |line| notice::warn(line))
        .map_err(|e| Error::System("start the writer", e))
}

/// Whether the system refused the place: after the start that is mostly our own confinement.
fn is_refused(error: &Error) -> bool {
    let Error::Sink(sink::Error::Open { source, .. } | sink::Error::Spool { source, .. }) = error
    else {
        return false;
    };
    source.kind() == std::io::ErrorKind::PermissionDenied
}

fn exchange(
    writer: Writer,
    old: Vec<Target>,
    new: Vec<Target>,
    spool: &Path,
    is_ending: &AtomicBool,
) -> Exchanged {
    let before = writer.finish();
    let error = match open(&new, spool, false) {
        Ok(writer) => {
            let now = Some((writer, new));
            return Exchanged { before, now };
        }
        Err(error) => error,
    };
    let remedy = if is_refused(&error) {
        "; a sensor that runs reaches only the folders that its configuration named at its start (those \
         below them too): a restart reaches others"
    } else {
        ""
    };
    notice::warn(format_args!(
        "the outputs stay as they were: {error}{remedy}"
    ));
    loop {
        match open(&old, spool, false) {
            Ok(writer) => {
                let now = Some((writer, old));
                return Exchanged { before, now };
            }
            Err(_) if is_ending.load(Ordering::Acquire) => {
                return Exchanged { before, now: None };
            }
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}
