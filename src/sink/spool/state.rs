//! What a spool knows, without the waiting: which records are on disk, which in memory, which were handed
//! out, and which are done with. Whoever changes it holds the spool's lock.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::recent::Recent;
use super::{Before, findings};
use crate::amount::counted;
use crate::sink::clock;
use crate::sink::counters::Counters;
use crate::sink::entry::Entry;
use crate::sink::error::remedy;
use crate::sink::word::Word;

/// Bytes of records in memory, where there is no disk or it takes nothing: some 5,000 records, half a
/// second of a flood, and little beside the tables of flows.
pub(super) const MEMORY_BYTES: usize = 16 << 20;
/// How long a disk that took nothing is left alone.
pub(super) const DISK_RETRY: Duration = Duration::from_secs(1);

/// What the threads share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) disk: Option<Disk>,
    /// The limit of a spool that somebody still has; nothing is handed out until it is ours, so that
    /// numbers can follow those on disk.
    pub(super) awaited: Option<(u64, Before)>,
    /// Files beside the spool whose records are taken in and not known to be on disk here yet.
    pub(super) collected: Vec<PathBuf>,
    /// Records that are on disk beside a spool that is not ours yet.
    pub(super) aside: u64,
    /// When the disk last took nothing; `None` while it works.
    refused: Option<Instant>,
    /// The last of those on disk.
    recent: Recent,
    /// Records behind those on disk.
    pub(super) memory: VecDeque<(u64, Arc<Entry>)>,
    memory_bytes: usize,
    /// Number of the next record that comes in.
    pub(super) next: u64,
    /// Number of the next record that is handed out.
    pub(super) read: u64,
    /// Number after the last record that was handed out.
    handed: u64,
    /// Every record before this is done with.
    pub(super) committed: u64,
    pub(super) saved: u64,
    /// Nothing more comes; what is there may be delivered until then.
    pub(super) closing: Option<Instant>,
    /// The spool's limit was reached, or its disk failed: said once until it is over.
    pub(super) news: Vec<Word>,
    limit_told: bool,
    /// Its files are let go of: nothing is handed out or remembered any more.
    pub(super) is_gone: bool,
    /// Somebody waits for a record.
    pub(super) awaits_records: bool,
    /// Somebody waits for room.
    pub(super) awaits_room: bool,
}

impl State {
    pub(super) fn new(disk: Option<Disk>, next: u64, read: u64) -> Self {
        Self {
            disk,
            awaited: None,
            collected: Vec::new(),
            aside: 0,
            refused: None,
            recent: Recent::default(),
            memory: VecDeque::new(),
            memory_bytes: 0,
            next,
            read,
            handed: read,
            committed: read,
            saved: read,
            closing: None,
            news: Vec::new(),
            limit_told: false,
            is_gone: false,
            awaits_records: false,
            awaits_room: false,
        }
    }

    /// So many bytes would be taken in.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        (self.disk.is_some() && self.refused.is_none())
            || self.memory.is_empty()
            || self.memory_bytes + bytes <= MEMORY_BYTES
    }

    /// Takes records in as far as there is room; says how many it took.
    pub(super) fn append(&mut self, entries: &[Arc<Entry>], counters: &Counters) -> usize {
        self.drain(false, counters);
        let mut taken = 0;
        if self.memory.is_empty() && self.retry_is_due(false) {
            taken = self.write_through(entries, counters);
            self.next += taken as u64;
        }
        for entry in entries.iter().skip(taken) {
            if self.memory_bytes + entry.size() <= MEMORY_BYTES {
                self.memory_bytes += entry.size();
                self.memory.push_back((self.next, Arc::clone(entry)));
                self.next += 1;
                taken += 1;
            }
        }
        taken
    }

    /// Takes the spool up that somebody had, when they have let go of it. What waits here comes behind
    /// what they left.
    pub(super) fn inherit(&mut self, folder: &Path, counters: &Counters) {
        let Some((limit, before)) = self.awaited.filter(|_| !self.is_gone) else {
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
                // They are found in the folder, unless who had the spool took them.
                self.aside = 0;
                self.news.extend(findings(found));
                if before == Before::Process {
                    let (folder, waiting) = (folder.display(), counted(found.waiting, "record"));
                    self.news.push(Word::Notice(format!(
                        "the spool {folder} is ours now, with {waiting} of the process before"
                    )));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => Counters::add(&counters.spool_errors, 1),
        }
    }

    /// What waits in memory for a spool that is another process's, and that one's limit. The records are
    /// the caller's then.
    pub(super) fn for_aside(&mut self) -> Option<(u64, Vec<Arc<Entry>>)> {
        let (limit, before) = self.awaited?;
        if before != Before::Process || self.memory.is_empty() || self.is_gone {
            return None;
        }
        // Nothing of a spool that is awaited was handed out: numbers begin anew.
        (self.next, self.memory_bytes) = (0, 0);
        let entries = self.memory.drain(..).map(|(_, entry)| entry);
        Some((limit, entries.collect()))
    }

    /// So many records are on disk beside the spool.
    pub(super) fn has_left_aside(&mut self, folder: &Path, count: usize) {
        if self.awaited.is_none() {
            return;
        }
        self.aside += count as u64;
        if self.refused.take().is_some() {
            let folder = folder.display();
            let again = format!("the spool {folder} works again");
            self.news.push(Word::Notice(again));
        }
    }

    /// Those records are not: they wait in memory again.
    pub(super) fn keeps(
        &mut self,
        folder: &Path,
        entries: &[Arc<Entry>],
        error: &io::Error,
        counters: &Counters,
    ) {
        let taken = self.append(entries, counters);
        Counters::add(&counters.dropped, (entries.len() - taken) as u64);
        if self.awaited.is_some() {
            self.refuse(folder, error);
        }
    }

    /// This file's records may be taken in: they would come to disk, and have not been.
    pub(super) fn may_collect(&self, path: &PathBuf) -> bool {
        let works = self.disk.is_some() && self.refused.is_none() && self.memory.is_empty();
        works && !self.is_gone && !self.collected.contains(path)
    }

    /// The collected files whose records were all written to the disk.
    pub(super) fn collected_on_disk(&mut self) -> Vec<PathBuf> {
        match self.memory.is_empty() && !self.is_gone {
            true => std::mem::take(&mut self.collected),
            false => Vec::new(),
        }
    }

    /// Lets go of disk and memory. A spool in which nothing waits leaves nothing behind.
    pub(super) fn let_go(&mut self) {
        self.is_gone = true;
        match self.disk.take() {
            Some(disk) if self.committed == self.next => disk.remove(),
            _ => {}
        }
        self.memory.clear();
        self.memory_bytes = 0;
    }

    /// Brings to disk what waits in memory, where the disk works again.
    pub(super) fn drain(&mut self, now: bool, counters: &Counters) {
        if self.disk.is_none() {
            return;
        }
        while let Some((number, entry)) = self.memory.pop_front() {
            // Delivered from memory meanwhile, which the numbers on disk must follow.
            if number < self.committed {
                self.memory_bytes -= entry.size();
                continue;
            }
            if let Some(disk) = &mut self.disk {
                disk.skip_to(number);
            }
            let one = std::slice::from_ref(&entry);
            if !self.retry_is_due(now) || self.write_through(one, counters) == 0 {
                self.memory.push_front((number, entry));
                return;
            }
            self.memory_bytes -= entry.size();
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

    /// Writes records to disk, where there is one that works; says how many.
    fn write_through(&mut self, entries: &[Arc<Entry>], counters: &Counters) -> usize {
        let Some(disk) = &mut self.disk else {
            return 0;
        };
        let first = disk.next;
        let (written, error) = disk.append(entries);
        for (number, entry) in (first..).zip(entries.iter().take(written)) {
            self.recent.keep(number, entry);
        }
        if written > 0 {
            self.wrote(counters);
        }
        if let Some(error) = error {
            Counters::add(&counters.spool_errors, 1);
            if let Some(disk) = &self.disk {
                let folder = disk.folder().to_owned();
                self.refuse(&folder, &error);
            }
        }
        written
    }

    /// The disk took nothing, which is said once until it works again.
    fn refuse(&mut self, folder: &Path, error: &io::Error) {
        if self.refused.replace(clock::now()).is_none() {
            self.news.push(Word::Warning(format!(
                "the spool {} cannot be written to: {error}{}; records wait in memory and are \
                 dropped when that is full",
                folder.display(),
                remedy(error)
            )));
        }
    }

    /// The disk took something.
    fn wrote(&mut self, counters: &Counters) {
        let Some(disk) = &mut self.disk else {
            return;
        };
        if self.refused.take().is_some() {
            let again = format!("the spool {} works again", disk.folder().display());
            self.news.push(Word::Notice(again));
        }
        let first = disk.shrink();
        if self.read < first {
            if !std::mem::replace(&mut self.limit_told, true) {
                self.news.push(Word::Warning(format!(
                    "the spool {} is full: its oldest records are dropped until the receiver takes \
                     some (?spool_size= gives it more room)",
                    disk.folder().display()
                )));
            }
            Counters::add(&counters.dropped, first - self.read);
            self.read = first;
        }
    }

    /// The next records, and how many could not be read.
    pub(super) fn take(&mut self, count: usize, bytes: usize) -> (Vec<(u64, Arc<Entry>)>, u64) {
        if self.awaited.is_some() || self.is_gone {
            return (Vec::new(), 0);
        }
        let mut damaged = 0;
        let mut taken = self.recent.take(self.read, count, bytes);
        if taken.is_empty() {
            (taken, damaged) = match self.is_on_disk(self.read) {
                true => self.take_from_disk(count, bytes),
                false => (self.take_from_memory(count, bytes), 0),
            };
        } else {
            self.read += taken.len() as u64;
        }
        self.handed = self.read;
        (taken, damaged)
    }

    fn is_on_disk(&self, number: u64) -> bool {
        self.disk.as_ref().is_some_and(|disk| number < disk.next)
            && self.memory.front().is_none_or(|(first, _)| number < *first)
    }

    fn take_from_disk(&mut self, count: usize, bytes: usize) -> (Vec<(u64, Arc<Entry>)>, u64) {
        let Some(Ok(found)) = self
            .disk
            .as_mut()
            .map(|disk| disk.read(self.read, count, bytes))
        else {
            // The disk may answer later; what it holds is not lost yet.
            return (Vec::new(), 0);
        };
        self.read += found.records.len() as u64 + found.damaged;
        let mut damaged = found.damaged;
        let mut taken = Vec::with_capacity(found.records.len());
        for (number, bytes) in found.records {
            match Entry::decode(&bytes) {
                Some(entry) => taken.push((number, Arc::new(entry))),
                None => damaged += 1,
            }
        }
        (taken, damaged)
    }

    fn take_from_memory(&mut self, count: usize, bytes: usize) -> Vec<(u64, Arc<Entry>)> {
        let from = self
            .memory
            .partition_point(|(number, _)| *number < self.read);
        let mut taken = Vec::new();
        let mut size = 0;
        for (number, entry) in self.memory.iter().skip(from).take(count) {
            if size >= bytes {
                break;
            }
            size += entry.size();
            taken.push((*number, Arc::clone(entry)));
        }
        if let Some((last, _)) = taken.last() {
            self.read = last + 1;
        }
        taken
    }

    pub(super) fn commit(&mut self, number: u64) {
        self.committed = self.committed.max(number.min(self.read));
        if self.committed == self.read {
            self.limit_told = false;
        }
        while self
            .memory
            .front()
            .is_some_and(|(front, _)| *front < self.committed)
        {
            if let Some((_, entry)) = self.memory.pop_front() {
                self.memory_bytes -= entry.size();
            }
        }
    }

    pub(super) fn rewind(&mut self) -> u64 {
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
