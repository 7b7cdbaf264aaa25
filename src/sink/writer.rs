//! The thread that writes. Records reach it through a bounded queue: in `run` a full queue costs a
//! record, counted, and never makes the engine wait; in `read` it makes the reader wait. One bad
//! output does not hold up the others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::{Emitted, Error, Sink};
use crate::record::{Emission, Record};

/// Records that are written together when many wait: some 200 KiB of JSON.
const BATCH_RECORDS: usize = 64;

/// An output under the writer's care.
struct Tended {
    sink: Box<dyn Sink>,
    totals: OutputTotals,
    /// Records are being lost, and the user was told.
    failing: bool,
}

/// What became of the records of one output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputTotals {
    /// The output as the user named it.
    pub name: String,
    /// Records that it holds.
    pub written: u64,
    /// Records that it should hold and does not.
    pub lost: u64,
    /// Its reader went away: what came later was not wanted, and is not lost.
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

/// State that both threads see.
#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    lost: AtomicU64,
    closed: AtomicBool,
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
        }
    }

    /// Nobody reads any output any more (standard output was a pipe, and the only output).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }

    /// Records lost so far, those that found the queue full included.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed) + self.shared.lost.load(Ordering::Relaxed)
    }
}

/// The writer thread.
#[derive(Debug)]
pub struct Writer {
    output: Output,
    thread: JoinHandle<Vec<OutputTotals>>,
}

impl Writer {
    /// Starts the thread. `capacity` is the number of records that may wait; `tell` gets one line
    /// when an output fails and one when it works again.
    ///
    /// # Errors
    ///
    /// What the system says when it has no thread left.
    pub fn spawn(
        sinks: Vec<Box<dyn Sink>>,
        capacity: usize,
        tell: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, records) = bounded(capacity);
        let shared = Arc::new(Shared::default());
        let output = Output {
            queue,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("rstscope-writer".to_owned())
            .spawn(move || write_all(sinks, &records, &shared, tell))?;
        Ok(Self { output, thread })
    }

    /// The near end of the queue.
    #[must_use]
    pub const fn output(&self) -> &Output {
        &self.output
    }

    /// Waits until everything is written. Every clone of [`Output`] must be gone, or it waits for
    /// their owners too.
    #[must_use]
    pub fn finish(self) -> Totals {
        let Self {
            output: Output { queue, shared },
            thread,
        } = self;
        drop(queue);
        // A panic of the thread aborts the program in release builds.
        let outputs = thread.join().unwrap_or_default();
        Totals {
            outputs,
            dropped: shared.dropped.load(Ordering::Relaxed),
        }
    }
}

fn write_all(
    sinks: Vec<Box<dyn Sink>>,
    records: &Receiver<Emitted>,
    shared: &Shared,
    mut tell: impl FnMut(&str),
) -> Vec<OutputTotals> {
    let mut outputs: Vec<Tended> = sinks
        .into_iter()
        .map(|sink| {
            let totals = OutputTotals {
                name: sink.name().to_owned(),
                ..OutputTotals::default()
            };
            Tended {
                sink,
                totals,
                failing: false,
            }
        })
        .collect();
    while let Ok(first) = records.recv() {
        let rest = records.try_iter().take(BATCH_RECORDS - 1);
        for mut emitted in std::iter::once(first).chain(rest) {
            for output in outputs.iter_mut().filter(|output| !output.totals.closed) {
                output.sink.put(&mut emitted);
            }
        }
        for output in outputs.iter_mut().filter(|output| !output.totals.closed) {
            let lost = output.flush(&mut tell);
            shared.lost.fetch_add(lost, Ordering::Relaxed);
        }
        let closed = outputs.iter().all(|output| output.totals.closed);
        shared
            .closed
            .store(closed && !outputs.is_empty(), Ordering::Relaxed);
    }
    outputs.into_iter().map(|output| output.totals).collect()
}

impl Tended {
    /// Writes what waits; gives the number of records that are lost by it.
    fn flush(&mut self, tell: &mut impl FnMut(&str)) -> u64 {
        let flushed = self.sink.flush();
        self.totals.written += flushed.written;
        match flushed.error {
            Some(Error::Closed) => {
                self.totals.closed = true;
                return 0;
            }
            Some(error) if !self.failing => {
                self.failing = true;
                tell(&format!("{error}; its records are lost until that changes"));
            }
            None if self.failing && flushed.written > 0 => {
                self.failing = false;
                let lost = self.totals.lost;
                tell(&format!(
                    "output {}: works again; {lost} records were lost",
                    self.totals.name
                ));
            }
            Some(_) | None => {}
        }
        self.totals.lost += flushed.lost;
        flushed.lost
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::{OutputTotals, Writer};
    use crate::record::Record;
    use crate::record::sample::{coverage, emission};
    use crate::sink::{Emitted, Error, Flushed, Sink};

    fn record() -> Record {
        Record::Coverage(Box::new(coverage()))
    }

    /// Fails, or closes, for some flushes; each flush waits for a word from the test.
    struct Scripted {
        name: &'static str,
        taken: u64,
        script: Vec<Option<Error>>,
        go: mpsc::Receiver<()>,
        done: mpsc::Sender<()>,
    }

    impl Sink for Scripted {
        fn name(&self) -> &str {
            self.name
        }

        fn put(&mut self, _: &mut Emitted) {
            self.taken += 1;
        }

        fn flush(&mut self) -> Flushed {
            let _ = self.go.recv();
            let _ = self.done.send(());
            let taken = std::mem::take(&mut self.taken);
            match if self.script.is_empty() {
                None
            } else {
                self.script.remove(0)
            } {
                None => Flushed {
                    written: taken,
                    lost: 0,
                    error: None,
                },
                error => Flushed {
                    written: 0,
                    lost: taken,
                    error,
                },
            }
        }
    }

    fn full() -> Option<Error> {
        let source = io::ErrorKind::StorageFull.into();
        Some(Error::Write {
            output: "bad".to_owned(),
            source,
        })
    }

    #[test]
    fn one_bad_output_is_told_once_and_the_other_goes_on() {
        let (go_bad, bad) = mpsc::channel();
        let (go_good, good) = mpsc::channel();
        let (done, flushed) = mpsc::channel();
        let script = vec![full(), full()];
        let sinks: Vec<Box<dyn Sink>> = vec![
            Box::new(Scripted {
                name: "bad",
                taken: 0,
                script,
                go: bad,
                done: done.clone(),
            }),
            Box::new(Scripted {
                name: "good",
                taken: 0,
                script: Vec::new(),
                go: good,
                done,
            }),
        ];
        let (told, lines) = mpsc::channel();
        let writer =
            Writer::spawn(sinks, 8, move |line| told.send(line.to_owned()).unwrap()).unwrap();
        for _ in 0..4 {
            assert!(writer.output().try_send(record(), &emission()));
            go_bad.send(()).unwrap();
            go_good.send(()).unwrap();
            // The next record shall be a batch of its own.
            flushed.recv().unwrap();
            flushed.recv().unwrap();
        }
        drop((go_bad, go_good));
        let totals = writer.finish();
        let rows: Vec<_> = totals
            .outputs
            .iter()
            .map(|o| (o.name.as_str(), o.written, o.lost))
            .collect();
        assert_eq!(rows, [("bad", 2, 2), ("good", 4, 0)]);
        assert_eq!((totals.dropped, totals.lost()), (0, 2));
        let lines: Vec<String> = lines.try_iter().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("bad") && lines[0].contains("free some space"));
        assert!(lines[1].contains("works again; 2 records were lost"));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (go, wait) = mpsc::channel();
        let done = mpsc::channel().0;
        let sink = Scripted {
            name: "slow",
            taken: 0,
            script: Vec::new(),
            go: wait,
            done,
        };
        let writer = Writer::spawn(vec![Box::new(sink)], 2, |_| {}).unwrap();
        let sent = (0..100)
            .filter(|_| writer.output().try_send(record(), &emission()))
            .count();
        assert!(sent < 100);
        drop(go);
        let totals = writer.finish();
        assert_eq!(totals.dropped, 100 - sent as u64);
        assert_eq!(totals.outputs[0].written, sent as u64);
    }

    #[test]
    fn a_reader_that_went_away_is_no_loss() {
        let (go, wait) = mpsc::channel();
        let (script, done) = (vec![Some(Error::Closed)], mpsc::channel().0);
        let sink = Scripted {
            name: "-",
            taken: 0,
            script,
            go: wait,
            done,
        };
        let writer = Writer::spawn(vec![Box::new(sink)], 2, |_| {}).unwrap();
        drop(go);
        writer.output().send(record(), &emission());
        while !writer.output().is_closed() {
            std::thread::yield_now();
        }
        writer.output().send(record(), &emission());
        let totals = writer.finish();
        assert_eq!(totals.lost(), 0);
        let row = OutputTotals {
            name: "-".to_owned(),
            closed: true,
            ..OutputTotals::default()
        };
        assert_eq!(totals.outputs, [row]);
    }
}
