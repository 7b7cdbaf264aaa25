//! The spool as its two threads use it.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::state::{DISK_RETRY, MEMORY_BYTES};
use super::{Before, Patience, Spool};
use crate::sink::clock;
use crate::sink::counters::Counters;
use crate::sink::entry::Entry;
use crate::sink::scratch::folder;

const LIMIT: u64 = 1 << 20;

fn entry(number: u64, bytes: usize) -> Arc<Entry> {
    Arc::new(Entry {
        id: format!("id-{number}"),
        key: String::new(),
        time_ns: 1,
        severity: 6,
        label: "remote".to_owned(),
        body: vec![b'x'; bytes],
    })
}

fn said(spool: &Spool) -> Vec<String> {
    spool.news().iter().map(ToString::to_string).collect()
}

fn ids(taken: &[(u64, Arc<Entry>)]) -> Vec<&str> {
    taken.iter().map(|(_, entry)| entry.id.as_str()).collect()
}

#[test]
fn what_is_not_committed_is_handed_out_again_and_after_a_new_start_too() {
    let folder = folder("spool-again");
    let counters = Arc::new(Counters::default());
    let (spool, _) = Spool::on_disk(&folder, LIMIT, Arc::clone(&counters)).unwrap();
    for number in 0..5 {
        assert_eq!(spool.append(&[entry(number, 10)], Patience::None), 1);
    }
    assert_eq!(ids(&spool.take(3, usize::MAX)), ["id-0", "id-1", "id-2"]);
    spool.commit(2);
    assert_eq!(ids(&spool.take(9, usize::MAX)), ["id-3", "id-4"]);
    spool.rewind();
    assert_eq!(ids(&spool.take(9, usize::MAX)), ["id-2", "id-3", "id-4"]);
    assert_eq!(Counters::get(&counters.waiting), 3);
    spool.sync();
    drop(spool);
    let (spool, found) = Spool::on_disk(&folder, LIMIT, counters).unwrap();
    assert_eq!(found.waiting, 3);
    assert_eq!(spool.append(&[entry(5, 10)], Patience::None), 1);
    let again = spool.take(9, usize::MAX);
    assert_eq!(ids(&again), ["id-2", "id-3", "id-4", "id-5"]);
}

#[test]
fn the_limit_drops_the_oldest_and_every_record_is_accounted_for() {
    let folder = folder("spool-limit");
    let counters = Arc::new(Counters::default());
    let (spool, _) = Spool::on_disk(&folder, 64 << 10, Arc::clone(&counters)).unwrap();
    for number in 0..1000 {
        assert_eq!(spool.append(&[entry(number, 200)], Patience::None), 1);
        // A receiver that took 50 and then fell silent with 50 under way.
        if number == 100 {
            assert_eq!(spool.take(100, usize::MAX).len(), 100);
            spool.commit(50);
        }
    }
    let news = spool.news();
    assert_eq!(news.len(), 1, "{news:?}");
    assert!(
        news[0].is_warning() && news[0].to_string().contains("spool_size"),
        "{news:?}"
    );
    spool.rewind();
    let left = spool.take(1000, 1 << 30);
    assert_eq!(left.last().unwrap().1.id, "id-999");
    let dropped = Counters::get(&counters.dropped);
    assert_eq!(50 + dropped + left.len() as u64, 1000);
    assert!(dropped > 500, "{dropped}");
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_is_counted() {
    let counters = Arc::new(Counters::default());
    let spool = Spool::in_memory(Arc::clone(&counters));
    let size = MEMORY_BYTES / 10;
    let fit = (0..20)
        .filter(|number| spool.append(&[entry(*number, size)], Patience::None) == 1)
        .count();
    assert_eq!(fit, 9);
    assert_eq!(Counters::get(&counters.dropped), 11);
    assert_eq!(spool.take(100, usize::MAX).len(), 9);
    spool.commit(9);
    assert_eq!(spool.append(&[entry(20, size)], Patience::None), 1);
    assert_eq!(ids(&spool.take(100, usize::MAX)), ["id-20"]);
}

#[test]
fn who_may_wait_waits_for_room_and_gives_up_without_progress() {
    let counters = Arc::new(Counters::default());
    let spool = Arc::new(Spool::in_memory(Arc::clone(&counters)));
    let size = MEMORY_BYTES / 2;
    assert_eq!(spool.append(&[entry(0, size)], Patience::None), 1);
    let other = Arc::clone(&spool);
    let taker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        other.take(1, usize::MAX);
        other.commit(1);
    });
    let patience = Patience::Wait(Duration::from_secs(20));
    assert_eq!(spool.append(&[entry(1, size)], patience), 1);
    taker.join().unwrap();
    assert_eq!(
        spool.append(&[entry(2, size)], Patience::Wait(Duration::from_millis(20))),
        0
    );
    assert_eq!(Counters::get(&counters.dropped), 1);
}

#[test]
fn closing_ends_every_wait() {
    let spool = Arc::new(Spool::in_memory(Arc::new(Counters::default())));
    let other = Arc::clone(&spool);
    let waiter = std::thread::spawn(move || {
        other.pause(Duration::from_secs(60));
        other.wait(Duration::from_secs(60));
    });
    spool.close(clock::now());
    waiter.join().unwrap();
    assert!(spool.closing().is_some());
}

/// A file system of 256 KiB, unmounted when it is dropped.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(name: &str) -> Self {
        let path = folder(name);
        let options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&path).status();
        assert!(mounted.unwrap().success());
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_is_bridged_by_memory_and_used_again_without_a_restart() {
    let small = Small::mount("spool-full");
    let counters = Arc::new(Counters::default());
    let place = small.0.join("spool");
    let (spool, _) = Spool::on_disk(&place, 64 << 20, Arc::clone(&counters)).unwrap();
    let ballast = small.0.join("ballast");
    fs::write(&ballast, vec![0; 128 << 10]).unwrap();
    for number in 0..200 {
        let taken = spool.append(&[entry(number, 1000)], Patience::None);
        assert_eq!(taken, 1, "{number}");
    }
    assert!(spool.only_in_memory() > 50);
    assert!(said(&spool).concat().contains("free some space"));
    // Half is delivered from disk and memory, in order.
    let taken = spool.take(500, usize::MAX);
    assert_eq!(taken[0].1.id, "id-0");
    let half = taken.last().unwrap().0 + 1;
    spool.commit(half);
    fs::remove_file(&ballast).unwrap();
    std::thread::sleep(DISK_RETRY);
    spool.sync();
    assert_eq!(spool.only_in_memory(), 0);
    assert!(said(&spool).concat().contains("works again"));
    for number in 200..210 {
        assert_eq!(spool.append(&[entry(number, 1000)], Patience::None), 1);
    }
    drop(spool);
    let (spool, found) = Spool::on_disk(&place, 64 << 20, Arc::clone(&counters)).unwrap();
    assert_eq!(found.waiting, 210 - half);
    let rest = spool.take(500, usize::MAX);
    assert_eq!(rest.first().unwrap().1.id, format!("id-{half}"));
    assert_eq!(rest.len() as u64, 210 - half);
    assert_eq!(counters.lost(), 0);
}

#[test]
fn a_spool_of_another_process_is_waited_for_and_its_records_come_first() {
    let folder = folder("spool-inherited");
    let (theirs, _) = Spool::on_disk(&folder, LIMIT, Arc::default()).unwrap();
    for number in 0..3 {
        theirs.append(&[entry(number, 10)], Patience::None);
    }
    theirs.take(1, usize::MAX);
    theirs.commit(1);
    theirs.sync();
    assert!(Spool::on_disk(&folder, LIMIT, Arc::default()).is_err());
    let counters = Arc::new(Counters::default());
    let (ours, _) =
        Spool::inherited(&folder, LIMIT, Arc::clone(&counters), Before::Process).unwrap();
    for number in 3..5 {
        assert_eq!(ours.append(&[entry(number, 10)], Patience::None), 1);
    }
    assert_eq!((ours.only_in_memory(), ours.unread()), (2, 2));
    ours.sync();
    assert!(ours.take(9, usize::MAX).is_empty(), "it is theirs still");
    assert_eq!((ours.only_in_memory(), ours.aside()), (0, 2));
    assert!(said(&ours)[0].contains("another process's"));
    drop(theirs);
    ours.sync();
    assert_eq!(ours.aside(), 0);
    let news = ours.news();
    assert!(!news[0].is_warning(), "{news:?}");
    assert!(
        news[0]
            .to_string()
            .contains("with 2 records of the process before")
    );
    assert_eq!(ours.only_in_memory(), 0);
    assert_eq!(Counters::get(&counters.waiting), 4);
    let taken = ours.take(9, usize::MAX);
    assert_eq!(ids(&taken), ["id-1", "id-2", "id-3", "id-4"]);
    ours.commit(ours.position());
    assert_eq!(Counters::get(&counters.waiting), 0);
    assert_eq!(ours.append(&[entry(5, 10)], Patience::None), 1);
    assert_eq!(ids(&ours.take(9, usize::MAX)), ["id-5"]);
}

/// A second successor may be there before the first one looks again: then the first one never gets the spool.
#[test]
fn records_of_who_never_gets_the_spool_are_delivered_by_who_has_it() {
    let folder = folder("spool-passed-by");
    let inherited = || Spool::inherited(&folder, LIMIT, Arc::default(), Before::Process).unwrap();
    let (first, _) = Spool::on_disk(&folder, LIMIT, Arc::default()).unwrap();
    let (second, _) = inherited();
    second.append(&[entry(0, 10), entry(1, 10)], Patience::None);
    first.let_go();
    let (third, _) = inherited();
    third.append(&[entry(2, 10)], Patience::None);
    second.sync();
    second.append(&[entry(3, 10)], Patience::None);
    second.sync();
    assert_eq!((second.only_in_memory(), second.aside()), (0, 3));
    second.let_go();
    third.sync();
    let taken = third.take(9, usize::MAX);
    assert_eq!(ids(&taken), ["id-2", "id-0", "id-1", "id-3"]);
    third.commit(third.position());
    third.sync();
    third.let_go();
    assert!(!folder.exists(), "nothing is left of it");
}

#[test]
fn records_left_beside_a_spool_outlive_everybody_who_knew_of_them() {
    let folder = folder("spool-aside");
    let (theirs, _) = Spool::on_disk(&folder, LIMIT, Arc::default()).unwrap();
    let (ours, _) = Spool::inherited(&folder, LIMIT, Arc::default(), Before::Process).unwrap();
    ours.append(&[entry(0, 10)], Patience::None);
    ours.sync();
    drop((theirs, ours));
    let (next, _) = Spool::on_disk(&folder, LIMIT, Arc::default()).unwrap();
    next.sync();
    // Killed before it was delivered, and after it was taken in.
    drop(next);
    let (last, found) = Spool::on_disk(&folder, LIMIT, Arc::default()).unwrap();
    assert_eq!(found.waiting, 1);
    last.sync();
    assert_eq!(ids(&last.take(9, usize::MAX)), ["id-0"]);
}

#[test]
fn what_finds_no_room_beside_the_spool_waits_in_memory_and_is_told() {
    let folder = folder("spool-aside-full");
    let (theirs, _) = Spool::on_disk(&folder, LIMIT, Arc::default()).unwrap();
    let counters = Arc::new(Counters::default());
    let (ours, _) = Spool::inherited(&folder, 500, Arc::clone(&counters), Before::Process).unwrap();
    ours.append(&[entry(0, 400)], Patience::None);
    ours.sync();
    assert_eq!((ours.only_in_memory(), ours.aside()), (0, 1));
    ours.append(&[entry(1, 400)], Patience::None);
    ours.sync();
    assert_eq!((ours.only_in_memory(), ours.aside()), (1, 1));
    assert!(said(&ours).concat().contains("free some space"));
    // Who has the spool takes what is there: there is room again.
    theirs.sync();
    ours.sync();
    assert_eq!((ours.only_in_memory(), ours.aside()), (0, 2));
    assert!(said(&ours).concat().contains("works again"));
    assert_eq!(ids(&theirs.take(9, usize::MAX)), ["id-0"]);
    theirs.sync();
    assert_eq!(ids(&theirs.take(9, usize::MAX)), ["id-1"]);
    assert_eq!(counters.lost(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_file_beside_the_spool_that_cannot_be_removed_is_taken_in_once() {
    let folder = folder("spool-aside-stuck");
    let (theirs, _) = Spool::on_disk(&folder, LIMIT, Arc::default()).unwrap();
    let (ours, _) = Spool::inherited(&folder, LIMIT, Arc::default(), Before::Process).unwrap();
    ours.append(&[entry(0, 10)], Patience::None);
    ours.sync();
    // What something is mounted on cannot be removed.
    let left = super::aside::list(&folder).unwrap().remove(0);
    let mount = |words: &[&str]| {
        let status = std::process::Command::new(words[0])
            .args(&words[1..])
            .arg(&left)
            .status();
        assert!(status.unwrap().success(), "{words:?}");
    };
    mount(&["mount", "--bind", left.to_str().unwrap()]);
    (0..3).for_each(|_| theirs.sync());
    let taken = theirs.take(9, usize::MAX);
    mount(&["umount"]);
    assert_eq!(ids(&taken), ["id-0"]);
    theirs.sync();
    assert!(!left.exists(), "it is removed when it can be");
}
