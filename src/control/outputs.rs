//! The outputs of a run, which may be exchanged while it goes on: the new ones are opened while the old
//! ones take every record; then the engine turns to the new ones, and the old ones are finished. When the
//! new ones do not open, nothing has changed. There is no time without outputs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::engine_loop::Order;
use super::error::Error;
use crate::config::RunConfig;
use crate::notice;
use crate::privilege::Jail;
use crate::sink::{self, Before, Output, Patience, Place, Style, Tally, Target, Totals, Writer};

/// Records that may wait for a slow output: at 3 KB each some 24 MB at the most.
pub(super) const RECORDS_WAITING: usize = 8192;

/// How long the end waits for new outputs that are being opened: to open one calls no receiver, and takes
/// longer only where a file system hangs or a pipe has no reader.
const LAST_OPENING: Duration = Duration::from_secs(2);

/// An exchange that is under way, in a thread of its own.
struct Exchange {
    targets: Vec<Target>,
    /// Tells once whether the new ones are open.
    opened: Receiver<Result<Writer, Error>>,
    /// Takes the outputs before, to finish them.
    before: Sender<Writer>,
    /// What the outputs before came to.
    thread: JoinHandle<Totals>,
    /// The outputs before, once they are being finished.
    leaving: Option<Tally>,
}

/// What came of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchanged {
    /// The new outputs have taken over.
    Whole,
    /// They could not be opened, which was said: nothing has changed.
    Refused,
}

/// The outputs.
pub(super) struct Outputs {
    writer: Writer,
    targets: Vec<Target>,
    /// The folder of their spools.
    spool: PathBuf,
    /// Of outputs that were exchanged.
    earlier: Totals,
    exchange: Option<Exchange>,
}

impl Outputs {
    /// Opens them; their threads are made within the jail.
    pub(super) fn open(config: &RunConfig, jail: &Jail) -> Result<Self, Error> {
        let (targets, spool) = (&config.outputs, &config.spool);
        let before = config.replace.then_some(Before::Process);
        let writer = jail
            .within_to_write(|| open(targets, spool, before))
            .map_err(Error::Privilege)??;
        Ok(Self {
            writer,
            targets: targets.clone(),
            spool: spool.clone(),
            earlier: Totals::default(),
            exchange: None,
        })
    }

    /// The end of the queue for the engine.
    pub(super) fn output(&self) -> &Output {
        self.writer.output()
    }

    /// Records that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        let exchange = self.exchange.as_ref();
        let leaving = exchange.and_then(|exchange| exchange.leaving.as_ref());
        self.earlier.lost() + self.output().lost() + leaving.map_or(0, Tally::lost)
    }

    /// What they are, in the order of their counters.
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether these outputs stand already.
    pub(super) fn are(&self, targets: &[Target]) -> bool {
        self.targets == targets
    }

    /// Whether an exchange is under way.
    pub(super) fn is_exchanging(&self) -> bool {
        self.exchange.is_some()
    }

    /// Begins to exchange them, where no exchange is under way; [`Outputs::follow`] ends it.
    ///
    /// # Errors
    ///
    /// [`Error`] when there is no thread for it: nothing has changed then.
    pub(super) fn exchange(&mut self, targets: &[Target], jail: &Jail) -> Result<(), Error> {
        let (tell_opened, opened) = bounded(1);
        let (before, finish) = bounded(1);
        let (new, spool) = (targets.to_vec(), self.spool.clone());
        let begun = jail.within_to_write(move || {
            std::thread::Builder::new()
                .name("rst-reload".to_owned())
                .spawn(move || exchange(&new, &spool, &tell_opened, &finish))
        });
        let thread = begun
            .map_err(Error::Privilege)?
            .map_err(|error| Error::System("start a thread for the new outputs", error))?;
        self.exchange = Some(Exchange {
            targets: targets.to_vec(),
            opened,
            before,
            thread,
            leaving: None,
        });
        Ok(())
    }

    /// Takes an exchange as far as it is: gives the engine its outputs. Tells when it is done.
    pub(super) fn follow(&mut self, orders: &Sender<Order>) -> Option<Exchanged> {
        let exchange = self.exchange.as_mut()?;
        if exchange.leaving.is_none() {
            match exchange.opened.try_recv() {
                Ok(Ok(writer)) => self.turn_to(writer, orders),
                Ok(Err(error)) => {
                    refuse(&error);
                    self.exchange = None;
                    return Some(Exchanged::Refused);
                }
                Err(_) => return None,
            }
        }
        let is_done = self
            .exchange
            .as_ref()
            .is_some_and(|exchange| exchange.thread.is_finished());
        is_done.then(|| {
            self.settle();
            Exchanged::Whole
        })
    }

    /// The new outputs are open: the engine gets them, and lets go of those before, which can end then.
    fn turn_to(&mut self, writer: Writer, orders: &Sender<Order>) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let _ = orders.send(Order::Output(writer.output().clone()));
        let before = std::mem::replace(&mut self.writer, writer);
        self.targets.clone_from(&exchange.targets);
        exchange.leaving = Some(before.output().tally());
        // The thread waits for it; a panic of it aborts release builds.
        let _ = exchange.before.send(before);
    }

    /// Waits until the outputs before are finished.
    fn settle(&mut self) {
        // A panic of the thread aborts release builds.
        if let Some(exchange) = self.exchange.take()
            && let Ok(mut before) = exchange.thread.join()
        {
            for output in &mut before.outputs {
                // What waits of an output that is there still waits for that one.
                if self.targets.iter().any(|target| target.name == output.name) {
                    output.left = 0;
                }
            }
            self.earlier.dropped += before.dropped;
            self.earlier.outputs.extend(before.outputs);
        }
    }

    /// Ends an exchange that is under way, before everything is taken down.
    pub(super) fn end_exchange(&mut self, orders: &Sender<Order>) {
        let Some(exchange) = &self.exchange else {
            return;
        };
        if exchange.leaving.is_none() {
            match exchange.opened.recv_timeout(LAST_OPENING) {
                Ok(Ok(writer)) => self.turn_to(writer, orders),
                Ok(Err(error)) => refuse(&error),
                // The thread is left behind, and ends with the process.
                Err(_) => {}
            }
        }
        if self
            .exchange
            .as_ref()
            .is_some_and(|it| it.leaving.is_some())
        {
            self.settle();
        }
        self.exchange = None;
    }

    /// Waits until everything is written; to be called when the engine has ended.
    pub(super) fn finish(self) -> Totals {
        let mut totals = self.earlier;
        let last = self.writer.finish();
        totals.dropped += last.dropped;
        totals.outputs.extend(last.outputs);
        totals
    }
}

fn open(targets: &[Target], spool: &Path, inherits: Option<Before>) -> Result<Writer, Error> {
    let place = Place {
        spool: Some(spool.to_owned()),
        patience: Patience::None,
        reopened: Arc::default(),
        inherits,
    };
    let outlets = sink::open_all(targets, Style::default(), &place).map_err(Error::Sink)?;
    Writer::spawn(outlets, RECORDS_WAITING, &place, |word| {
        notice::tell(word.is_warning(), word);
    })
    .map_err(|e| Error::System("start the writer", e))
}

/// What the thread of an exchange does.
fn exchange(
    targets: &[Target],
    spool: &Path,
    opened: &Sender<Result<Writer, Error>>,
    before: &Receiver<Writer>,
) -> Totals {
    // The outputs before have the spools still.
    let new = open(targets, spool, Some(Before::Outputs));
    let heirs = new.as_ref().map(Writer::spools).unwrap_or_default();
    let _ = opened.send(new);
    let totals = before.recv().map(Writer::finish).unwrap_or_default();
    // Before the exchange is over: the next one's must not find them free.
    heirs.iter().for_each(|spool| spool.take_up());
    totals
}

/// Says why the new outputs were not taken.
fn refuse(error: &Error) {
    let remedy = if is_refused(error) {
        "; a sensor that runs reaches only the folders that its configuration named at its start (those \
         below them too): a restart reaches others"
    } else {
        ""
    };
    notice::warn(format_args!(
        "the outputs stay as they were: {error}{remedy}"
    ));
}

/// Whether the system refused the place: after the start that is mostly our own confinement.
fn is_refused(error: &Error) -> bool {
    let Error::Sink(sink::Error::Open { source, .. } | sink::Error::Spool { source, .. }) = error
    else {
        return false;
    };
    source.kind() == std::io::ErrorKind::PermissionDenied
}
