//! What stands between the thread that distributes records and the one that delivers them. On disk where
//! there is a folder, in memory otherwise, and in memory for a while when the disk takes nothing. It
//! never makes a sensor wait; what it has no room for, it counts. A record leaves it when the receiver
//! has it, not before.

mod aside;
mod disk;
mod held;
mod recent;
mod segment;
mod state;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use disk::Disk;
pub use disk::Found;
use held::Held;
use state::State;

use super::clock;
use super::counters::Counters;
use super::entry::Entry;
use super::word::Word;
use crate::amount::counted;

/// What happens to a record for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It is dropped and counted: nobody may wait for a receiver.
    None,
    /// Its maker waits as long as the receiver makes progress within this time.
    Wait(Duration),
}

/// Whose a spool is that we are about to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// A process that hands over to this one: the operator is told while its end is waited for.
    Process,
    /// The outputs of this process that a reload exchanges: nobody need know.
    Outputs,
}

/// Records of one output that are not delivered yet.
#[derive(Debug)]
pub struct Spool {
    state: Mutex<State>,
    /// There is something to hand out. Nobody is woken for a record while nobody waits: a wake is a call
    /// of the kernel, and a flood has ten thousand records a second.
    filled: Condvar,
    /// Something was committed: there is room.
    emptied: Condvar,
    closed: Condvar,
    counters: Arc<Counters>,
    folder: Option<PathBuf>,
}

impl Spool {
    /// A spool in memory only.
    #[must_use]
    pub fn in_memory(counters: Arc<Counters>) -> Self {
        Self::new(None, None, 0, 0, counters)
    }

    /// A spool in a folder of its own, which is made where it is not there.
    ///
    /// # Errors
    ///
    /// What the system says; `WouldBlock` when another process has this spool.
    pub fn on_disk(
        folder: &Path,
        limit: u64,
        counters: Arc<Counters>,
    ) -> io::Result<(Self, Found)> {
        let (disk, read, found) = Disk::open(folder, limit)?;
        Counters::set(&counters.waiting, found.waiting);
        Counters::set(&counters.spool_bytes, disk.bytes());
        let next = disk.next;
        let folder = Some(folder.to_owned());
        Ok((Self::new(Some(disk), folder, next, read, counters), found))
    }

    /// The same for who follows somebody: a spool that is theirs is taken up when they let go of it. Until
    /// then nothing is handed out; records wait in memory, and beside the spool of another process, which
    /// delivers them should it outlive us.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn inherited(
        folder: &Path,
        limit: u64,
        counters: Arc<Counters>,
        before: Before,
    ) -> io::Result<(Self, Found)> {
        match Self::on_disk(folder, limit, Arc::clone(&counters)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let spool = Self::new(None, Some(folder.to_owned()), 0, 0, counters);
                let mut state = spool.lock();
                state.awaited = Some((limit, before));
                if before == Before::Process {
                    let folder = folder.display();
                    state.news.push(Word::Notice(format!(
                        "the spool {folder} is another process's: records wait beside it until that ends"
                    )));
                }
                drop(state);
                Ok((spool, Found::default()))
            }
            opened => opened,
        }
    }

    fn new(
        disk: Option<Disk>,
        folder: Option<PathBuf>,
        next: u64,
        read: u64,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            state: Mutex::new(State::new(disk, next, read)),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            closed: Condvar::new(),
            counters,
            folder,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes records in, in order; says for how many there was room. The others are counted.
    pub fn append(&self, entries: &[Arc<Entry>], patience: Patience) -> usize {
        let mut state = self.lock();
        let mut taken = 0;
        match patience {
            Patience::None => taken = state.append(entries, &self.counters),
            Patience::Wait(patience) => {
                for entry in entries {
                    state = self.wait_for_room(state, entry.size(), patience);
                    taken += state.append(std::slice::from_ref(entry), &self.counters);
                }
            }
        }
        Counters::add(&self.counters.dropped, (entries.len() - taken) as u64);
        self.publish(&state);
        // Whoever sees this number may rely on the records being here, or counted as dropped.
        let accepted = &self.counters.accepted;
        accepted.fetch_add(entries.len() as u64, Ordering::Release);
        self.wake(state);
        taken
    }

    /// Lets go of the state, and wakes whoever waits for records, when there are any.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.awaits_records) {
            drop(state);
            self.filled.notify_all();
        }
    }

    fn wait_for_room<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        bytes: usize,
        patience: Duration,
    ) -> MutexGuard<'a, State> {
        let mut committed = state.committed;
        let mut until = None;
        while !state.has_room(bytes) {
            let until = until.get_or_insert_with(|| clock::now() + patience);
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            // What is here already is what room must come from.
            if std::mem::take(&mut state.awaits_records) {
                self.filled.notify_all();
            }
            state.awaits_room = true;
            state = self
                .emptied
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if state.committed > committed {
                committed = state.committed;
                *until = clock::now() + patience;
            }
        }
        state
    }

    /// Hands out the next records, in order, up to `count` and about `bytes`. They stay here until
    /// [`Spool::commit`].
    pub fn take(&self, count: usize, bytes: usize) -> Vec<(u64, Arc<Entry>)> {
        let mut state = self.lock();
        let (taken, damaged) = state.take(count, bytes);
        Counters::add(&self.counters.damaged, damaged);
        if let Some((_, first)) = taken.first()
            && state.committed == state.read - taken.len() as u64
        {
            let time = u64::try_from(first.time_ns).unwrap_or_default();
            Counters::set(&self.counters.oldest_ns, time);
        }
        taken
    }

    /// The records before this number are done with.
    pub fn commit(&self, number: u64) {
        let mut state = self.lock();
        state.commit(number);
        self.publish(&state);
        if state.committed == state.next {
            Counters::set(&self.counters.oldest_ns, 0);
        }
        if std::mem::take(&mut state.awaits_room) {
            drop(state);
            self.emptied.notify_all();
        }
    }

    /// Hands out again what was not committed; what the limit took meanwhile is counted.
    pub fn rewind(&self) {
        let mut state = self.lock();
        let dropped = state.rewind();
        Counters::add(&self.counters.dropped, dropped);
    }

    /// Waits until there is something to hand out, the spool closes, or the time is over.
    pub fn wait(&self, time: Duration) {
        let mut state = self.lock();
        if state.read < state.next || state.closing.is_some() {
            return;
        }
        state.awaits_records = true;
        drop(self.filled.wait_timeout(state, clock::wait(time)));
    }

    /// Waits without regard to what comes in; ends when the spool closes.
    pub fn pause(&self, time: Duration) {
        let until = clock::now() + time;
        let mut state = self.lock();
        while state.closing.is_none() {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                return;
            }
            state = self
                .closed
                .wait_timeout(state, clock::wait(left))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Records that wait to be handed out.
    #[must_use]
    pub fn unread(&self) -> u64 {
        let state = self.lock();
        state.next - state.read
    }

    /// Number of the next record that is handed out: everything before it was.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.lock().read
    }

    /// Nothing more comes in; deliveries go on until `deadline` at the latest.
    pub fn close(&self, deadline: Instant) {
        self.lock().closing = Some(deadline);
        self.filled.notify_all();
        self.emptied.notify_all();
        self.closed.notify_all();
    }

    /// When deliveries must end; `None` while records may come in.
    #[must_use]
    pub fn closing(&self) -> Option<Instant> {
        self.lock().closing
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Sentences for the operator since the last call.
    pub fn news(&self) -> Vec<Word> {
        std::mem::take(&mut self.lock().news)
    }

    /// Remembers what is done with, and forces to disk what was written and is not. Called every half
    /// second; it waits for the disk, but nobody waits for it.
    pub fn sync(&self) {
        let save = {
            let mut state = self.lock();
            if state.is_gone {
                return;
            }
            if let Some(folder) = &self.folder {
                state.inherit(folder, &self.counters);
            }
            state.drain(true, &self.counters);
            self.publish(&state);
            (state.saved < state.committed).then_some(state.committed)
        };
        if let Some(folder) = &self.folder {
            self.leave_aside(folder);
            self.collect(folder);
        }
        // First: a segment whose records are all delivered need not come to disk any more.
        if let (Some(number), Some(folder)) = (save, &self.folder) {
            match Held::save_cursor(folder, number) {
                Ok(()) => {
                    let mut state = self.lock();
                    state.saved = state.saved.max(number);
                    if let Some(disk) = &mut state.disk {
                        disk.forget_before(number);
                    }
                    self.publish(&state);
                }
                Err(_) => Counters::add(&self.counters.spool_errors, 1),
            }
        }
        self.force();
    }

    /// Forces to disk what was written, and forgets then where it was collected from.
    fn force(&self) {
        let (written, collected) = {
            let mut state = self.lock();
            let written = state.disk.as_mut().map(Disk::unsynced);
            (written.unwrap_or_default(), state.collected_on_disk())
        };
        let failed = written.iter().filter(|file| file.sync_data().is_err());
        let failed = failed.count() as u64;
        Counters::add(&self.counters.spool_errors, failed);
        if failed > 0 {
            self.lock().collected.extend(collected);
            return;
        }
        for path in collected {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Counters::add(&self.counters.spool_errors, 1);
                    // It counts as collected, or it would be again each time; the next start does so:
                    // twice, not never.
                    self.lock().collected.push(path);
                }
                _ => {}
            }
        }
    }

    /// Leaves what waits in memory beside a spool that is another process's.
    fn leave_aside(&self, folder: &Path) {
        let Some((limit, entries)) = self.lock().for_aside() else {
            return;
        };
        let left = aside::leave(folder, limit, &entries);
        let mut state = self.lock();
        match left {
            Ok(()) => {
                Counters::add(&self.counters.set_aside, entries.len() as u64);
                state.has_left_aside(folder, entries.len());
            }
            Err(error) => {
                Counters::add(&self.counters.spool_errors, 1);
                state.keeps(folder, &entries, &error, &self.counters);
            }
        }
        self.publish(&state);
        self.wake(state);
    }

    /// Takes in what others left beside the spool while it was not theirs.
    fn collect(&self, folder: &Path) {
        // Where the folder cannot be read, nothing was left in it either.
        for path in aside::list(folder).unwrap_or_default() {
            if !self.lock().may_collect(&path) {
                continue;
            }
            let Ok(found) = aside::read(&path) else {
                Counters::add(&self.counters.spool_errors, 1);
                continue;
            };
            let mut state = self.lock();
            let taken = state.append(&found.entries, &self.counters);
            let dropped = (found.entries.len() - taken) as u64;
            Counters::add(&self.counters.dropped, dropped);
            Counters::add(&self.counters.damaged, u64::from(found.is_damaged));
            state.collected.push(path);
            self.publish(&state);
            self.wake(state);
        }
    }

    /// Lets go of the files, though a delivery may not have ended: it is in the middle of a request. What
    /// is in them is for whoever opens them next; what that delivery still gets rid of may arrive twice.
    pub fn let_go(&self) {
        self.lock().let_go();
    }

    /// Takes the files up that somebody had, when they have let go of them. [`Spool::sync`] does so too,
    /// but later: somebody who follows this one may have been there first.
    pub fn take_up(&self) {
        if let Some(folder) = &self.folder {
            let mut state = self.lock();
            state.inherit(folder, &self.counters);
            self.publish(&state);
        }
    }

    /// Records in memory that would be lost if the program ended now.
    #[must_use]
    pub fn only_in_memory(&self) -> u64 {
        self.lock().memory.len() as u64
    }

    /// Records on disk that somebody else delivers, or the next start: the spool never was ours.
    #[must_use]
    pub fn aside(&self) -> u64 {
        self.lock().aside
    }

    fn publish(&self, state: &State) {
        Counters::set(&self.counters.waiting, state.next - state.committed);
        if let Some(disk) = &state.disk {
            Counters::set(&self.counters.spool_bytes, disk.bytes());
        }
    }
}

/// What is to be said of a spool as it was found.
pub(super) fn findings(found: Found) -> impl Iterator<Item = Word> {
    let missing = (found.missing > 0).then(|| {
        let missing = counted(found.missing, "record");
        format!("{missing} of an earlier run found no room in its spool: lost")
    });
    let torn = (found.torn_bytes > 0).then(|| {
        let torn = counted(found.torn_bytes, "byte");
        format!("{torn} at the end of its spool: no whole record, cut off")
    });
    missing.into_iter().chain(torn).map(Word::Warning)
}

#[cfg(test)]
mod tests;
