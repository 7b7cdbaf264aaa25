//! What stands between the thread that distributes records and the one that delivers them. On disk where
//! there is a folder, in memory otherwise, and in memory for a while when the disk takes nothing. It
//! never makes a sensor wait; what it has no room for, it counts. A record leaves it when the receiver
//! has it, not before.

mod disk;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use disk::Disk;
pub use disk::Found;

use super::clock;
use super::counters::Counters;
use super::entry::Entry;

/// Bytes of records in memory, where there is no disk or it takes nothing: some 5,000 records, half a
/// second of a flood, and little beside the tables of flows.
const MEMORY_BYTES: usize = 16 << 20;
/// How long a disk that took nothing is left alone.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// What happens to a record for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It is dropped and counted: nobody may wait for a receiver.
    None,
    /// Its maker waits as long as the receiver makes progress within this time.
    Wait(Duration),
}

/// Records of one output that are not delivered yet.
#[derive(Debug)]
pub struct Spool {
    state: Mutex<State>,
    changed: Condvar,
    counters: Arc<Counters>,
    folder: Option<PathBuf>,
}

#[derive(Debug)]
struct State {
    disk: Option<Disk>,
    /// The limit of a spool that another process still has; nothing is handed out until it is ours, so
    /// that numbers can follow those on disk.
    awaited: Option<u64>,
    /// When the disk last took nothing; `None` while it works.
    refused: Option<Instant>,
    /// Records behind those on disk.
    memory: VecDeque<(u64, Vec<u8>)>,
    memory_bytes: usize,
    /// Number of the next record that comes in.
    next: u64,
    /// Number of the next record that is handed out.
    read: u64,
    /// Number after the last record that was handed out.
    handed: u64,
    /// Every record before this is done with.
    committed: u64,
    saved: u64,
    /// What is on disk and not yet forced to it.
    dirty: bool,
    /// Nothing more comes; what is there may be delivered until then.
    closing: Option<Instant>,
    /// The spool's limit was reached, or its disk failed: said once until it is over.
    news: Vec<String>,
    limit_told: bool,
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

    /// The same for who follows another process: a spool that is that one's is taken up when it ends.
    /// Until then records wait in memory and nothing is handed out.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn inherited(
        folder: &Path,
        limit: u64,
        counters: Arc<Counters>,
    ) -> io::Result<(Self, Found)> {
        match Self::on_disk(folder, limit, Arc::clone(&counters)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let spool = Self::new(None, Some(folder.to_owned()), 0, 0, counters);
                let mut state = spool.lock();
                state.awaited = Some(limit);
                state.news.push(format!(
                    "the spool {} is another process's: records wait in memory until that ends",
                    folder.display()
                ));
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
            state: Mutex::new(State {
                disk,
                awaited: None,
                refused: None,
                memory: VecDeque::new(),
                memory_bytes: 0,
                next,
                read,
                handed: read,
                committed: read,
                saved: read,
                dirty: false,
                closing: None,
                news: Vec::new(),
                limit_told: false,
            }),
            changed: Condvar::new(),
            counters,
            folder,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record in; `false` when there is no room, which is counted.
    pub fn append(&self, entry: &Entry, patience: Patience) -> bool {
        let bytes = entry.encode();
        let mut state = self.lock();
        if let Patience::Wait(patience) = patience {
            state = self.wait_for_room(state, bytes.len(), patience);
        }
        let taken = state.append(bytes, &self.counters);
        if !taken {
            Counters::add(&self.counters.dropped, 1);
        }
        self.publish(&state);
        // Whoever sees this number may rely on the record being here, or counted as dropped.
        self.counters.accepted.fetch_add(1, Ordering::Release);
        drop(state);
        self.changed.notify_all();
        taken
    }

    fn wait_for_room<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        bytes: usize,
        patience: Duration,
    ) -> MutexGuard<'a, State> {
        let mut committed = state.committed;
        let mut until = clock::now() + patience;
        while !state.has_room(bytes) {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if state.committed > committed {
                committed = state.committed;
                until = clock::now() + patience;
            }
        }
        state
    }

    /// Hands out the next records, in order, up to `count` and about `bytes`. They stay here until
    /// [`Spool::commit`].
    pub fn take(&self, count: usize, bytes: usize) -> Vec<(u64, Entry)> {
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
        drop(state);
        self.changed.notify_all();
    }

    /// Hands out again what was not committed; what the limit took meanwhile is counted.
    pub fn rewind(&self) {
        let mut state = self.lock();
        let dropped = state.rewind();
        Counters::add(&self.counters.dropped, dropped);
    }

    /// Waits until there is something to hand out, the spool closes, or the time is over.
    pub fn wait(&self, time: Duration) {
        let state = self.lock();
        if state.read < state.next || state.closing.is_some() {
            return;
        }
        drop(self.changed.wait_timeout(state, time));
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
                .changed
                .wait_timeout(state, left)
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
        self.changed.notify_all();
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
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().news)
    }

    /// Forces to disk what was written, and remembers what is done with. Called every half second; it
    /// waits for the disk, but nobody waits for it.
    pub fn sync(&self) {
        let (writer, save) = {
            let mut state = self.lock();
            if let Some(folder) = &self.folder {
                state.inherit(folder, &self.counters);
            }
            state.drain(true, &self.counters);
            self.publish(&state);
            let dirty = std::mem::take(&mut state.dirty);
            let writer = state.disk.as_ref().and_then(Disk::writer).filter(|_| dirty);
            let save = (state.saved < state.committed).then_some(state.committed);
            (writer, save)
        };
        if let Some(writer) = writer
            && writer.sync_data().is_err()
        {
            Counters::add(&self.counters.spool_errors, 1);
        }
        if let (Some(number), Some(folder)) = (save, &self.folder) {
            match Disk::save_cursor(folder, number) {
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
    }

    /// Records in memory that would be lost if the program ended now.
    #[must_use]
    pub fn only_in_memory(&self) -> u64 {
        self.lock().memory.len() as u64
    }

    fn publish(&self, state: &State) {
        Counters::set(&self.counters.waiting, state.next - state.committed);
        if let Some(disk) = &state.disk {
            Counters::set(&self.counters.spool_bytes, disk.bytes());
        }
    }
}

/// What is to be said of a spool as it was found.
pub(super) fn findings(found: Found) -> impl Iterator<Item = String> {
    let missing = (found.missing > 0).then(|| {
        let missing = found.missing;
        format!("{missing} records of an earlier run found no room in its spool and are lost")
    });
    let torn = (found.torn_bytes > 0).then(|| {
        let torn = found.torn_bytes;
        format!("{torn} bytes at the end of its spool were no whole record and are cut off")
    });
    missing.into_iter().chain(torn)
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        (self.disk.is_some() && self.refused.is_none())
            || self.memory.is_empty()
            || self.memory_bytes + bytes <= MEMORY_BYTES
    }

    fn append(&mut self, bytes: Vec<u8>, counters: &Counters) -> bool {
        self.drain(false, counters);
        if self.memory.is_empty()
            && self.retry_is_due(false)
            && self.write_through(&bytes, counters)
        {
            self.next += 1;
            return true;
        }
        if self.memory_bytes + bytes.len() > MEMORY_BYTES {
            return false;
        }
        self.memory_bytes += bytes.len();
        self.memory.push_back((self.next, bytes));
        self.next += 1;
        true
    }

    /// Takes the spool up that another process had, when that has let go of it. What waits here comes
    /// behind what that one left.
    fn inherit(&mut self, folder: &Path, counters: &Counters) {
        let Some(limit) = self.awaited else {
            return;
        };
        match Disk::open(folder, limit) {
            Ok((disk, read, found)) => {
                for (number, _) in &mut self.memory {
                    *number += disk.next;
                }
                self.next += disk.next;
                (self.read, self.handed, self.committed, self.saved) = (read, read, read, read);
                self.disk = Some(disk);
                self.awaited = None;
                self.news.extend(findings(found));
                self.news.push(format!(
                    "the spool {} is ours now, with {} records of the process before",
                    folder.display(),
                    found.waiting
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => Counters::add(&counters.spool_errors, 1),
        }
    }

    /// Brings to disk what waits in memory, where the disk works again.
    fn drain(&mut self, now: bool, counters: &Counters) {
        if self.disk.is_none() {
            return;
        }
        while let Some((number, bytes)) = self.memory.pop_front() {
            // Delivered from memory meanwhile, which the numbers on disk must follow.
            if number < self.committed {
                self.memory_bytes -= bytes.len();
                continue;
            }
            if let Some(disk) = &mut self.disk {
                disk.skip_to(number);
            }
            if !self.retry_is_due(now) || !self.write_through(&bytes, counters) {
                self.memory.push_front((number, bytes));
                return;
            }
            self.memory_bytes -= bytes.len();
        }
        if let Some(disk) = &mut self.disk {
            disk.skip_to(self.next);
        }
    }

    fn retry_is_due(&self, now: bool) -> bool {
        now || self
            .refused
            .is_none_or(|since| clock::now().saturating_duration_since(since) >= DISK_RETRY)
    }

    fn write_through(&mut self, bytes: &[u8], counters: &Counters) -> bool {
        let Some(disk) = &mut self.disk else {
            return false;
        };
        if let Err(error) = disk.append(bytes) {
            Counters::add(&counters.spool_errors, 1);
            if self.refused.replace(clock::now()).is_none() {
                self.news.push(format!(
                    "the spool {} cannot be written to: {error}; records wait in memory and are \
                     dropped when that is full: free some space",
                    disk.folder().display()
                ));
            }
            return false;
        }
        if self.refused.take().is_some() {
            self.news
                .push(format!("the spool {} works again", disk.folder().display()));
        }
        self.dirty = true;
        let first = disk.shrink();
        if self.read < first {
            if !std::mem::replace(&mut self.limit_told, true) {
                self.news.push(format!(
                    "the spool {} is full: its oldest records are dropped until the receiver takes \
                     some (?spool_size= gives it more room)",
                    disk.folder().display()
                ));
            }
            Counters::add(&counters.dropped, first - self.read);
            self.read = first;
        }
        true
    }

    fn take(&mut self, count: usize, bytes: usize) -> (Vec<(u64, Entry)>, u64) {
        let mut damaged = 0;
        let mut raw = Vec::new();
        if self.awaited.is_some() {
            return (Vec::new(), 0);
        }
        if let Some(disk) = &mut self.disk
            && self.read < disk.next
            && self
                .memory
                .front()
                .is_none_or(|(first, _)| self.read < *first)
        {
            match disk.read(self.read, count, bytes) {
                Ok(taken) => {
                    damaged += taken.damaged;
                    self.read += taken.records.len() as u64 + taken.damaged;
                    raw = taken.records;
                }
                // The disk may answer later; what it holds is not lost yet.
                Err(_) => return (Vec::new(), 0),
            }
        } else {
            let from = self
                .memory
                .partition_point(|(number, _)| *number < self.read);
            let mut size = 0;
            for (number, record) in self.memory.iter().skip(from).take(count) {
                if size >= bytes {
                    break;
                }
                size += record.len();
                raw.push((*number, record.clone()));
            }
            if let Some((last, _)) = raw.last() {
                self.read = last + 1;
            }
        }
        self.handed = self.read;
        let mut taken = Vec::with_capacity(raw.len());
        for (number, bytes) in raw {
            match Entry::decode(&bytes) {
                Some(entry) => taken.push((number, entry)),
                None => damaged += 1,
            }
        }
        (taken, damaged)
    }

    fn commit(&mut self, number: u64) {
        self.committed = self.committed.max(number.min(self.read));
        if self.committed == self.read {
            self.limit_told = false;
        }
        while self
            .memory
            .front()
            .is_some_and(|(front, _)| *front < self.committed)
        {
            if let Some((_, bytes)) = self.memory.pop_front() {
                self.memory_bytes -= bytes.len();
            }
        }
    }

    fn rewind(&mut self) -> u64 {
        let memory = self.memory.front().map_or(self.next, |(first, _)| *first);
        let first = match &self.disk {
            Some(disk) if disk.first() < disk.next => disk.first(),
            _ => memory,
        };
        // What was never handed out was counted when it was dropped.
        let read = self.committed.max(first.min(self.read));
        let dropped = read.min(self.handed).saturating_sub(self.committed);
        (self.read, self.handed, self.committed) = (read, read, read);
        dropped
    }
}

#[cfg(test)]
mod tests;
