//! The thread of one output: takes records from its spool, hands them to the transport, tries again with
//! growing waits, keeps aside what the receiver refuses, and tells the operator once when it fails and
//! once when it works again. It gives up nothing by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::clock;
use super::counters::Counters;
use super::dead::DeadLetters;
use super::entry::Entry;
use super::spool::Spool;
use super::transport::{Failure, Fate, Transport};
use super::word::Word;
use crate::amount::counted;

/// How often what is under way is asked for while nothing else is to be done.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Records under way, at the most: beyond them the receiver's word is waited for. Only their numbers are
/// kept.
const UNDER_WAY: usize = 1 << 18;

/// Where sentences for the operator go.
pub(super) type Tell = Arc<dyn Fn(&Word) + Send + Sync>;

/// One output's delivery.
pub(super) struct Delivery {
    pub(super) name: String,
    pub(super) spool: Arc<Spool>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) counters: Arc<Counters>,
    pub(super) tell: Tell,
    pub(super) retry_max: Duration,
}

/// What the loop remembers between turns.
struct Course {
    backoff: Backoff,
    dead: DeadLetters,
    /// Taken from the spool and not yet sent for good.
    pending: Vec<(u64, Arc<Entry>)>,
    /// Sent and not confirmed, by number.
    under_way: VecDeque<u64>,
    /// Not before this.
    wait_until: Option<Instant>,
    refusals_told: bool,
}

impl Delivery {
    /// Until the spool is closed and empty, or its deadline is there.
    pub(super) fn run(mut self) {
        let mut course = Course {
            backoff: Backoff::new(self.retry_max),
            dead: DeadLetters::new(self.spool.folder()),
            pending: Vec::new(),
            under_way: VecDeque::new(),
            wait_until: None,
            refusals_told: false,
        };
        loop {
            for word in self.spool.news() {
                self.tell(word);
            }
            self.confirm(&mut course);
            let deadline = self.spool.closing();
            if deadline.is_some_and(|deadline| clock::now() >= deadline) {
                break;
            }
            if let Some(until) = course.wait_until {
                let left = until.saturating_duration_since(clock::now());
                if !left.is_zero() {
                    match deadline {
                        // Closing ends every wait of the spool's own; only the clock is left.
                        Some(_) => std::thread::sleep(clock::wait(left.min(ASK_EVERY))),
                        None => self.spool.pause(left),
                    }
                    continue;
                }
                course.wait_until = None;
            }
            if course.pending.is_empty() && course.under_way.len() < UNDER_WAY {
                self.fill(&mut course);
            }
            if !course.pending.is_empty() {
                self.attempt(&mut course);
            } else if deadline.is_some() && self.spool.unread() == 0 {
                break;
            } else if course.under_way.len() >= UNDER_WAY || self.spool.unread() > 0 {
                // The receiver's word is missing, or the disk does not give back what it holds.
                std::thread::sleep(clock::wait(ASK_EVERY));
            } else {
                self.spool.wait(if course.under_way.is_empty() {
                    Duration::from_secs(1)
                } else {
                    ASK_EVERY
                });
            }
        }
        self.finish(&mut course);
    }

    fn fill(&self, course: &mut Course) {
        let count = self.transport.batch_records();
        let linger = self.transport.linger();
        if !linger.is_zero() && (1..count as u64).contains(&self.spool.unread()) {
            self.spool.pause(linger);
        }
        course.pending = self.spool.take(count, self.transport.batch_bytes());
        if course.pending.is_empty() && course.under_way.is_empty() {
            // All that there was could not be read: it is done with.
            self.spool.commit(self.spool.position());
        }
    }

    fn attempt(&mut self, course: &mut Course) {
        let numbered = std::mem::take(&mut course.pending);
        let (numbers, batch): (Vec<u64>, Vec<Arc<Entry>>) = numbered.into_iter().unzip();
        let delivered = self.transport.deliver(&batch);
        debug_assert_eq!(delivered.fates.len(), batch.len());
        let mut taken = 0;
        let mut again = Vec::new();
        let fates = delivered
            .fates
            .into_iter()
            .chain(std::iter::repeat(Fate::Again));
        for ((number, entry), fate) in numbers.into_iter().zip(batch).zip(fates) {
            match fate {
                Fate::Taken => taken += 1,
                Fate::Sent => {
                    Counters::add(&self.counters.sent, 1);
                    course.under_way.push_back(number);
                }
                Fate::Refused(reason) => self.refuse(course, &entry, &reason),
                Fate::Again => again.push((number, entry)),
            }
        }
        Counters::add(&self.counters.delivered, taken);
        course.pending = again;
        self.commit(course);
        match delivered.failure {
            Some(failure) => self.fail(course, &failure),
            None if course.under_way.is_empty() => self.recovered(course),
            None => {}
        }
    }

    /// Everything before the oldest record that is not settled is done with.
    fn commit(&self, course: &Course) {
        let pending = course.pending.first().map(|(number, _)| *number);
        let under_way = course.under_way.front().copied();
        let position = self.spool.position();
        let oldest = pending
            .unwrap_or(position)
            .min(under_way.unwrap_or(position));
        self.spool.commit(oldest);
    }

    fn confirm(&mut self, course: &mut Course) {
        if course.under_way.is_empty() {
            return;
        }
        match self.transport.confirmed() {
            Ok(0) => {}
            Ok(count) => {
                self.settle(course, count);
                // What is pending was not taken: the receiver has only what it had before that.
                if course.pending.is_empty() {
                    self.recovered(course);
                }
            }
            Err(failure) => {
                // They are in the spool still; what is pending stands behind them there.
                course.under_way.clear();
                course.pending.clear();
                self.spool.rewind();
                self.fail(course, &failure);
            }
        }
    }

    fn settle(&self, course: &mut Course, count: usize) {
        let count = count.min(course.under_way.len());
        course.under_way.drain(..count);
        Counters::add(&self.counters.delivered, count as u64);
        self.commit(course);
    }

    fn refuse(&self, course: &mut Course, entry: &Entry, reason: &str) {
        Counters::add(&self.counters.refused, 1);
        let kept = course.dead.keep(entry, reason);
        if std::mem::replace(&mut course.refusals_told, true) {
            return;
        }
        let fate = match (kept, course.dead.path()) {
            (Ok(()), Some(path)) => format!("it is kept in {}", path.display()),
            (Ok(()), None) => "it is lost".to_owned(),
            (Err(error), _) => format!("it is lost, for it cannot be kept aside: {error}"),
        };
        self.tell(Word::Warning(format!(
            "the receiver refuses a record: {reason}; {fate}, and so are further ones"
        )));
    }

    fn tell(&self, word: Word) {
        (self.tell)(&word.of(&self.name));
    }

    fn fail(&self, course: &mut Course, failure: &Failure) {
        Counters::add(&self.counters.failures, 1);
        let wait = course.backoff.next(failure.retry_after);
        course.wait_until = Some(clock::now() + wait);
        if !self.counters.failing.swap(true, Ordering::Relaxed) {
            let what = &failure.what;
            self.tell(Word::Warning(format!(
                "{what}; its records wait, and it is tried again"
            )));
        }
    }

    fn recovered(&self, course: &mut Course) {
        course.backoff.reset();
        if self.counters.failing.swap(false, Ordering::Relaxed) {
            let waiting = Counters::get(&self.counters.waiting);
            let lost = self.counters.lost();
            let waiting = counted(waiting, "record");
            self.tell(Word::Notice(format!(
                "works again; {waiting} still to be sent, {lost} lost"
            )));
        }
    }

    fn finish(&mut self, course: &mut Course) {
        if !course.under_way.is_empty() {
            let deadline = self.spool.closing().unwrap_or_else(clock::now);
            let count = self.transport.finish(deadline);
            self.settle(course, count);
        }
        self.spool.sync();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::{Duration, Instant};

    use super::{Delivery, Tell, Word};
    use crate::sink::clock;
    use crate::sink::counters::Counters;
    use crate::sink::entry::Entry;
    use crate::sink::scratch::folder;
    use crate::sink::spool::{Patience, Spool};
    use crate::sink::transport::{Delivered, Failure, Fate, Transport};

    fn entry(number: u64) -> Arc<Entry> {
        Arc::new(Entry {
            id: number.to_string(),
            key: String::new(),
            time_ns: 1,
            severity: 6,
            label: "remote".to_owned(),
            body: b"{}".to_vec(),
        })
    }

    /// Answers by a script and notes what it was given.
    struct Scripted<F> {
        seen: mpsc::Sender<Vec<String>>,
        answer: F,
        confirmations: Vec<Result<usize, Failure>>,
        last: usize,
    }

    impl<F: FnMut(&[Arc<Entry>]) -> Delivered + Send> Transport for Scripted<F> {
        fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
            let _ = self
                .seen
                .send(batch.iter().map(|entry| entry.id.clone()).collect());
            (self.answer)(batch)
        }

        fn confirmed(&mut self) -> Result<usize, Failure> {
            if self.confirmations.is_empty() {
                Ok(0)
            } else {
                self.confirmations.remove(0)
            }
        }

        fn finish(&mut self, _: std::time::Instant) -> usize {
            self.last
        }
    }

    struct Course {
        counters: Arc<Counters>,
        told: Vec<String>,
        seen: Vec<Vec<String>>,
        spool: Arc<Spool>,
    }

    fn play(
        spool: Spool,
        counters: Arc<Counters>,
        records: u64,
        answer: impl FnMut(&[Arc<Entry>]) -> Delivered + Send + 'static,
        confirmations: Vec<Result<usize, Failure>>,
        last: usize,
    ) -> Course {
        let spool = Arc::new(spool);
        for number in 0..records {
            spool.append(&[entry(number)], Patience::None);
        }
        let told = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&told);
        let tell: Tell = Arc::new(move |word: &Word| lines.lock().unwrap().push(word.to_string()));
        let (seen, batches) = mpsc::channel();
        let delivery = Delivery {
            name: "test".to_owned(),
            spool: Arc::clone(&spool),
            transport: Box::new(Scripted {
                seen,
                answer,
                confirmations,
                last,
            }),
            counters: Arc::clone(&counters),
            tell,
            retry_max: Duration::from_millis(30),
        };
        let closed = Arc::clone(&spool);
        let closer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(600));
            closed.close(clock::now() + Duration::from_millis(600));
        });
        delivery.run();
        closer.join().unwrap();
        let told = told.lock().unwrap().clone();
        Course {
            counters,
            told,
            seen: batches.try_iter().collect(),
            spool,
        }
    }

    #[test]
    fn only_what_must_be_sent_again_is_and_a_refused_record_is_kept_aside() {
        let folder = folder("delivery");
        let counters = Arc::new(Counters::default());
        let (spool, _) = Spool::on_disk(&folder, 1 << 20, Arc::clone(&counters)).unwrap();
        let mut attempts = 0;
        let answer = move |batch: &[Arc<Entry>]| {
            attempts += 1;
            if attempts > 1 {
                return Delivered::all(batch.len(), Fate::Taken);
            }
            Delivered {
                fates: vec![
                    Fate::Taken,
                    Fate::Refused("odd".into()),
                    Fate::Again,
                    Fate::Taken,
                ],
                failure: Some(Failure::new("busy")),
            }
        };
        let course = play(spool, counters, 4, answer, Vec::new(), 0);
        assert_eq!(course.seen, [vec!["0", "1", "2", "3"], vec!["2"]]);
        assert_eq!(Counters::get(&course.counters.delivered), 3);
        assert_eq!(Counters::get(&course.counters.refused), 1);
        assert_eq!(Counters::get(&course.counters.waiting), 0);
        assert_eq!(course.told.len(), 3, "{:?}", course.told);
        assert!(course.told[0].contains("odd") && course.told[0].contains("dead.jsonl"));
        assert!(course.told[1].contains("busy") && course.told[2].contains("works again"));
        assert!(folder.join("dead.jsonl").exists());
    }

    #[test]
    fn a_broken_way_sends_again_what_was_not_confirmed() {
        let counters = Arc::new(Counters::default());
        let spool = Spool::in_memory(Arc::clone(&counters));
        let answer = |batch: &[Arc<Entry>]| Delivered::all(batch.len(), Fate::Sent);
        let broken = Err(Failure::new("broken"));
        let course = play(spool, counters, 3, answer, vec![Ok(1), broken], 2);
        assert_eq!(course.seen, [vec!["0", "1", "2"], vec!["1", "2"]]);
        assert_eq!(Counters::get(&course.counters.delivered), 3);
        assert_eq!(Counters::get(&course.counters.waiting), 0);
    }

    #[test]
    fn a_receiver_works_again_when_it_takes_what_it_did_not_and_not_when_it_has_what_came_before() {
        let counters = Arc::new(Counters::default());
        let spool = Spool::in_memory(Arc::clone(&counters));
        let mut attempts = 0;
        let answer = move |batch: &[Arc<Entry>]| {
            attempts += 1;
            let mut delivered = match attempts {
                1..=3 => Delivered::failed(batch.len(), Failure::new("full")),
                _ => Delivered::all(batch.len(), Fate::Sent),
            };
            if attempts == 1 {
                delivered.fates[0] = Fate::Sent;
            }
            delivered
        };
        let course = play(spool, counters, 2, answer, vec![Ok(1)], 1);
        assert_eq!(course.seen.len(), 4, "{:?}", course.seen);
        assert_eq!(course.told.len(), 1, "{:?}", course.told);
        assert!(course.told[0].contains("full"), "{:?}", course.told);
        assert_eq!(Counters::get(&course.counters.delivered), 2);
    }

    #[test]
    fn a_receiver_that_is_away_leaves_everything_in_the_spool_at_the_deadline() {
        let folder = folder("delivery-away");
        let counters = Arc::new(Counters::default());
        let (spool, _) = Spool::on_disk(&folder, 1 << 20, Arc::clone(&counters)).unwrap();
        let answer = |batch: &[Arc<Entry>]| Delivered::failed(batch.len(), Failure::new("refused"));
        let course = play(spool, counters, 5, answer, Vec::new(), 0);
        assert!(course.seen.len() > 3, "{}", course.seen.len());
        assert_eq!(course.told.len(), 1, "said once: {:?}", course.told);
        assert_eq!(Counters::get(&course.counters.waiting), 5);
        drop(course.spool);
        let (_, found) = Spool::on_disk(&folder, 1 << 20, course.counters).unwrap();
        assert_eq!(found.waiting, 5);
    }
    /// Takes nothing before its time; notes when it was asked.
    struct Away {
        until: Instant,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Transport for Away {
        fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
            let now = clock::now();
            self.asked.lock().unwrap().push(now);
            if now < self.until {
                return Delivered::failed(batch.len(), Failure::new("nobody listens there"));
            }
            Delivered::all(batch.len(), Fate::Taken)
        }
    }

    #[test]
    fn a_receiver_that_is_down_for_an_hour_gets_everything_and_is_told_of_twice() {
        let hour = Duration::from_secs(3600);
        let (origin, times) = (clock::now(), 1200);
        let folder = folder("delivery-hour");
        let counters = Arc::new(Counters::default());
        let (spool, _) = Spool::on_disk(&folder, 1 << 20, Arc::clone(&counters)).unwrap();
        let spool = Arc::new(spool);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&told);
        let delivery = Delivery {
            name: "test".to_owned(),
            spool: Arc::clone(&spool),
            transport: Box::new(Away {
                until: origin + hour,
                asked: Arc::clone(&asked),
            }),
            counters: Arc::clone(&counters),
            tell: Arc::new(move |word: &Word| lines.lock().unwrap().push(word.to_string())),
            retry_max: Duration::from_secs(60),
        };
        let maker = std::thread::spawn(move || {
            clock::haste::begin(origin, times);
            for number in 0..60 {
                spool.append(&[entry(number)], Patience::None);
                spool.sync();
                std::thread::sleep(clock::wait(Duration::from_secs(60)));
            }
            spool.close(clock::now() + hour);
        });
        clock::haste::begin(origin, times);
        delivery.run();
        maker.join().unwrap();
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("nobody listens there") && told[1].contains("works again"));
        assert_eq!(Counters::get(&counters.delivered), 60);
        assert_eq!((Counters::get(&counters.waiting), counters.lost()), (0, 0));
        // A minute is the longest wait and half of it the usual one; a busy machine asks less often.
        let during = asked
            .lock()
            .unwrap()
            .iter()
            .filter(|at| **at < origin + hour)
            .count();
        assert!((10..1000).contains(&during), "asked {during} times");
    }
}
