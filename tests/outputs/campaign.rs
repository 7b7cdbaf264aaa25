//! Receiver and sensor are killed at random while records flow; in the end the receiver must have every
//! record that was in the spool, and none that nobody wrote.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::feeder::{Feeder, id};

/// How often each side is killed at least: where chance and a quick machine are at the end of the records
/// before that, there are more of them.
const DEATHS_MIN: u32 = 3;
/// Records of a life that is one more than the records need.
const MORE: u64 = 2_000;
/// How long a receiver that still lacks records may show no new one.
const STANDSTILL: Duration = Duration::from_secs(20);

/// Something that takes records, can be killed and started again, and tells what it has.
pub trait Receiver {
    /// Starts it; its port and its data stay the same.
    fn start(&mut self);
    /// Kills it without warning.
    fn kill(&mut self);
    /// `event.id` of all records that it has.
    fn ids(&mut self) -> BTreeSet<String>;
}

/// Records of one campaign: the number that the requirements name, where somebody has the time.
fn records() -> u64 {
    match std::env::var("RSTSCOPE_RECORDS") {
        Ok(count) => count.parse().expect("RSTSCOPE_RECORDS is a number"),
        Err(_) => 20_000,
    }
}

/// What a test's thread made, gone when it ends.
struct Folders(RefCell<Vec<PathBuf>>);

impl Drop for Folders {
    fn drop(&mut self) {
        for path in self.0.take() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

thread_local! {
    static FOLDERS: Folders = const { Folders(RefCell::new(Vec::new())) };
}

/// An empty folder for one test, which asks for it in its own thread.
pub fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rstscope-out-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    FOLDERS.with(|made| made.0.borrow_mut().push(path.clone()));
    path
}

/// A seeded generator (`SplitMix64`), so that a failure can be played again.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Plays it; fails when a record is missing or was never written.
pub fn play(name: &str, url: &str, receiver: &mut dyn Receiver) {
    let total = records();
    let spool = folder(&format!("{name}-spool"));
    let seed = std::process::id().into();
    println!("{name}: {total} records, seed {seed}");
    let mut random = Random(seed);
    let (mut next, mut sensor_deaths, mut receiver_deaths) = (0, 0_u32, 0_u32);
    // Of the last ones of a life it is not known whether they were in the spool.
    let mut offered = total;
    receiver.start();
    let mut alive = true;
    while next < total || sensor_deaths.min(receiver_deaths) < DEATHS_MIN {
        let end = if next < total { total } else { next + MORE };
        offered = offered.max(end);
        let mut feeder = Feeder::start(url, &spool, next, end);
        let life = Instant::now();
        let lifetime = Duration::from_millis(300 + random.below(1500));
        while life.elapsed() < lifetime && feeder.spooled() < end {
            std::thread::sleep(Duration::from_millis(50 + random.below(300)));
            if random.below(3) == 0 {
                if alive {
                    receiver.kill();
                    receiver_deaths += 1;
                } else {
                    receiver.start();
                }
                alive = !alive;
            }
        }
        next = feeder.kill();
        sensor_deaths += 1;
    }
    if !alive {
        receiver.start();
    }
    // The last life only delivers what is left.
    Feeder::start(url, &spool, next, next).finish();
    let wanted: BTreeSet<String> = (0..next).map(id).collect();
    // A receiver may take its time to show what it has; one that shows nothing new has no more.
    let mut got = receiver.ids();
    let mut until = Instant::now() + STANDSTILL;
    while !got.is_superset(&wanted) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
        let now = receiver.ids();
        if now.len() > got.len() {
            until = Instant::now() + STANDSTILL;
        }
        got = now;
    }
    receiver.kill();
    println!(
        "{name}: sensor killed {sensor_deaths} times, receiver {receiver_deaths} times; {} records \
         received",
        got.len()
    );
    let missing: Vec<_> = wanted.difference(&got).take(5).collect();
    let written = (0..offered).map(id).collect();
    let invented: Vec<_> = got.difference(&written).take(5).collect();
    assert!(
        missing.is_empty(),
        "{name}: missing {missing:?} and perhaps more"
    );
    assert!(invented.is_empty(), "{name}: nobody wrote {invented:?}");
    let _ = std::fs::remove_dir_all(&spool);
}
