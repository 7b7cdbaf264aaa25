//! Distribution to several outputs, good and bad.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{OutputTotals, Totals, Writer};
use crate::record::Record;
use crate::record::sample::{coverage, emission, injected};
use crate::sink::open::{Outlet, Place};
use crate::sink::scratch::folder;
use crate::sink::spool::{Patience, Spool};
use crate::sink::target::Target;
use crate::sink::transport::{Delivered, Failure, Fate, Transport};
use crate::sink::{Counters, Emitted, Entry, Error, Filter, Flushed, Sink, Style, Word, open};

fn record() -> Record {
    Record::Coverage(Box::new(coverage()))
}

fn place(patience: Patience) -> Place {
    Place {
        spool: None,
        patience,
        reopened: Arc::default(),
        inherits: None,
    }
}

fn direct(sink: impl Sink + 'static) -> Outlet {
    Outlet::direct(Box::new(sink), Filter::default())
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

    fn put(&mut self, _: &Emitted) {
        self.taken += 1;
    }

    fn flush(&mut self) -> Flushed {
        let _ = self.go.recv();
        let _ = self.done.send(());
        let taken = std::mem::take(&mut self.taken);
        let error = if self.script.is_empty() {
            None
        } else {
            self.script.remove(0)
        };
        let (written, lost) = if error.is_none() {
            (taken, 0)
        } else {
            (0, taken)
        };
        Flushed {
            written,
            lost,
            error,
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
    let outlets = vec![
        direct(Scripted {
            name: "bad",
            taken: 0,
            script: vec![full(), full()],
            go: bad,
            done: done.clone(),
        }),
        direct(Scripted {
            name: "good",
            taken: 0,
            script: Vec::new(),
            go: good,
            done,
        }),
    ];
    let (told, lines) = mpsc::channel();
    let tell = move |word: &Word| told.send(word.to_string()).unwrap();
    let writer = Writer::spawn(outlets, 8, &place(Patience::None), tell).unwrap();
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
    assert!(lines[1].contains("works again; lost 2 records"));
}

#[test]
fn a_stuck_output_never_makes_the_engine_wait_and_every_record_is_accounted_for() {
    let (go, wait) = mpsc::channel();
    let sink = Scripted {
        name: "slow",
        taken: 0,
        script: Vec::new(),
        go: wait,
        done: mpsc::channel().0,
    };
    let writer = Writer::spawn(vec![direct(sink)], 2, &place(Patience::None), |_| {}).unwrap();
    let total = 5000;
    let sent = (0..total)
        .filter(|_| writer.output().try_send(record(), &emission()))
        .count() as u64;
    drop(go);
    let totals = writer.finish();
    let row = &totals.outputs[0];
    assert_eq!(totals.dropped, total - sent);
    assert_eq!(row.written + row.lost, sent);
    assert!(totals.lost() > 0);
}

#[test]
fn a_sensors_reader_that_went_away_is_said_once_and_what_comes_later_is_lost() {
    let ((go, wait), (done, flushes)) = (mpsc::channel(), mpsc::channel());
    let sink = Scripted {
        name: "-",
        taken: 0,
        script: vec![None, Some(Error::Closed), Some(Error::Closed)],
        go: wait,
        done,
    };
    let (tell, said) = mpsc::channel();
    let tell = move |word: &Word| tell.send(word.to_string()).unwrap();
    let writer = Writer::spawn(vec![direct(sink)], 9, &place(Patience::None), tell).unwrap();
    for _ in 0..3 {
        assert!(writer.output().try_send(record(), &emission()));
        go.send(()).unwrap();
        flushes.recv().unwrap();
    }
    drop(go);
    let totals = writer.finish();
    assert_eq!((totals.outputs[0].written, totals.lost()), (1, 2));
    let said: Vec<String> = said.try_iter().collect();
    assert_eq!(
        said,
        ["the reader of standard output went away; its records are lost from now on"]
    );
}

#[test]
fn a_captures_reader_that_went_away_is_no_loss() {
    let (go, wait) = mpsc::channel();
    let sink = Scripted {
        name: "-",
        taken: 0,
        script: vec![Some(Error::Closed)],
        go: wait,
        done: mpsc::channel().0,
    };
    let patience = Patience::Wait(Duration::from_secs(1));
    let writer = Writer::spawn(vec![direct(sink)], 2, &place(patience), |_| {}).unwrap();
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

/// Takes everything, or nothing.
struct Simple {
    works: bool,
    seen: mpsc::Sender<Arc<Entry>>,
}

impl Transport for Simple {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        if !self.works {
            return Delivered::failed(batch.len(), Failure::new("away"));
        }
        for entry in batch {
            let _ = self.seen.send(Arc::clone(entry));
        }
        Delivered::all(batch.len(), Fate::Taken)
    }
}

fn spooled(url: &str, disk: bool, works: bool) -> (Outlet, mpsc::Receiver<Arc<Entry>>) {
    let (seen, entries) = mpsc::channel();
    let target = Target::parse(url).unwrap();
    let counters = Arc::new(Counters::default());
    let spool = if disk {
        let folder = folder(&target.folder_name());
        Spool::on_disk(&folder, 1 << 20, Arc::clone(&counters))
            .unwrap()
            .0
    } else {
        Spool::in_memory(Arc::clone(&counters))
    };
    let transport = Box::new(Simple { works, seen });
    (Outlet::spooled(target, spool, counters, transport), entries)
}

#[test]
fn each_output_gets_what_its_filter_wants() {
    let (all, all_seen) = spooled("http://a", false, true);
    let (some, some_seen) = spooled("http://b?verdict=injected&coverage=no", false, true);
    let (none, none_seen) = spooled("http://c?verdict=local&coverage=no", false, true);
    let writer = Writer::spawn(vec![all, some, none], 8, &place(Patience::None), |_| {}).unwrap();
    writer.output().send(record(), &emission());
    writer
        .output()
        .send(Record::Reset(Box::new(injected())), &emission());
    let totals = writer.finish();
    let written: Vec<u64> = totals.outputs.iter().map(|output| output.written).collect();
    assert_eq!(written, [2, 1, 0]);
    assert_eq!(all_seen.try_iter().count(), 2);
    assert_eq!(some_seen.try_iter().next().unwrap().label, "injected");
    assert_eq!(none_seen.try_iter().count(), 0);
}

#[test]
fn at_the_end_what_is_on_disk_stays_and_what_is_in_memory_is_lost_and_said_so() {
    let (disk, _disk_seen) = spooled("http://d?name=last-disk", true, false);
    let (memory, _memory_seen) = spooled("http://m", false, false);
    let writer = Writer::spawn(vec![disk, memory], 8, &place(Patience::None), |_| {}).unwrap();
    for _ in 0..3 {
        writer.output().send(record(), &emission());
    }
    let Totals { outputs, .. } = writer.finish();
    let rows: Vec<_> = outputs
        .iter()
        .map(|o| (o.written, o.left, o.lost))
        .collect();
    assert_eq!(rows, [(0, 3, 0), (0, 0, 3)]);
}

/// Is in the middle of a request until the test lets it go.
struct Silent(mpsc::Receiver<()>);

impl Transport for Silent {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        let _ = self.0.recv();
        Delivered::all(batch.len(), Fate::Taken)
    }
}

#[test]
fn a_receiver_that_says_nothing_keeps_no_spool_from_the_outputs_that_follow() {
    let folder = folder("writer-silent");
    let counters = Arc::new(Counters::default());
    let (spool, _) = Spool::on_disk(&folder, 1 << 20, Arc::clone(&counters)).unwrap();
    let (answer, silence) = mpsc::channel();
    let target = Target::parse("http://s?name=writer-silent").unwrap();
    let outlet = Outlet::spooled(target, spool, counters, Box::new(Silent(silence)));
    let writer = Writer::spawn(vec![outlet], 8, &place(Patience::None), |_| {}).unwrap();
    for _ in 0..3 {
        writer.output().send(record(), &emission());
    }
    let totals = writer.finish();
    assert_eq!((totals.outputs[0].left, totals.lost()), (3, 0));
    let (spool, found) = Spool::on_disk(&folder, 1 << 20, Arc::default()).unwrap();
    assert_eq!(found.waiting, 3);
    // The answer comes after all: what follows has them to itself.
    answer.send(()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    spool.sync();
    assert_eq!(spool.take(9, usize::MAX).len(), 3);
    drop(spool);
    let (_, found) = Spool::on_disk(&folder, 1 << 20, Arc::default()).unwrap();
    assert_eq!(found.waiting, 3);
}

#[test]
fn a_file_gets_whole_lines_and_is_opened_anew_on_request() {
    let path = folder("writer-file").join("out");
    let place = place(Patience::Wait(Duration::from_secs(5)));
    let target = Target::parse(&format!("file://{}", path.display())).unwrap();
    let outlet = open(&target, Style::default(), &place).unwrap();
    let writer = Writer::spawn(vec![outlet], 8, &place, |_| {}).unwrap();
    writer.output().send(record(), &emission());
    writer.output().reopen();
    writer.output().send(record(), &emission());
    let totals = writer.finish();
    assert_eq!((totals.outputs[0].written, totals.lost()), (2, 0));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.ends_with("}\n"));
}
