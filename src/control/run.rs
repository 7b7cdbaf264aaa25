//! `rstscope run`: sets up posts, engine and writer; watches over them until a signal comes; takes
//! everything down in the opposite order, so that no frame and no record is left behind.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, bounded};

use super::clock;
use super::container::Containers;
use super::coverage::{Coverage, Totals};
use super::diagnose::{self, Refusal};
use super::engine_loop::{EngineFinished, EngineLoop, EngineShared, Outlet};
use super::error::Error;
use super::handover::{Heir, Predecessor};
use super::lock::{InterfaceLock, LockError};
use super::post::{Claim, Older, Post};
use super::signals::Signals;
use super::summary;
use crate::cli::Mode;
use crate::config::RunConfig;
use crate::engine::{Engine, EngineConfig};
use crate::events::{self, Events, HostCounters};
use crate::nic::{self, Change, ChangeKind, Interface, Watch};
use crate::notice;
use crate::record::{CoverageRecord, Emission, Observer, live_prefix};
use crate::sink::{self, Patience, Place, Style, Writer};
use crate::sys::watched::OLDER_MAX;
use crate::time::{SECOND, Timestamp};
use crate::vantage::InterfaceId;
use crate::wire::Mac;
use crate::worker::Health;

/// Records that may wait for a slow output: at 3 KB each some 24 MB at the most.
const RECORDS_WAITING: usize = 8192;

/// Episodes that may be open at once: with the default settle time, as many reset flows a second.
const EPISODES: usize = 1 << 16;

/// How long frames of connections that are older than the sensor are looked for: each passed frame
/// costs a map look-up meanwhile, and who is silent for two minutes is seldom heard later.
const LEARN_NS: u64 = 120 * SECOND;

/// How often the watch looks at signals, interfaces and workers.
const WATCH: rustix::time::Timespec = rustix::time::Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// How often the state of the interfaces is asked for: some changes make no notice.
const REFRESH_NS: u64 = SECOND;

/// How often coverage is recorded (design of the record: every 10 s and interface).
const COVERAGE_NS: u64 = 10 * SECOND;

/// Watches until told to end.
///
/// # Errors
///
/// [`Error`], with the exit code that belongs to it.
pub fn run(config: &RunConfig) -> Result<(), Error> {
    let signals = Signals::catch().map_err(|e| Error::System("catch signals", e))?;
    let interfaces = admit(config)?;
    let place = Place {
        spool: Some(config.spool.clone()),
        patience: Patience::None,
        reopened: Arc::default(),
    };
    let outlets = sink::open_all(&config.outputs, Style::default(), &place).map_err(Error::Sink)?;
    let writer = Writer::spawn(outlets, RECORDS_WAITING, &place, |line| notice::warn(line))
        .map_err(|e| Error::System("start the writer", e))?;
    let mut sensor = Sensor::set_up(config, interfaces, writer)?;
    sensor.announce(config);
    let outcome = sensor.watch(&signals);
    let finished = sensor.take_down(config);
    outcome.and(finished)
}

fn engine_config(
    config: &RunConfig,
    (kernel_events, tells_answers): (bool, bool),
    own_macs: Vec<Option<Mac>>,
    hash_key: [u64; 2],
) -> EngineConfig {
    EngineConfig {
        settle_ns: config.settle_ns,
        forged_linger_ns: 0,
        flow_capacity: config.flow_capacity,
        episode_capacity: EPISODES,
        local: Vec::new(),
        offline: false,
        kernel_events,
        tells_answers,
        own_macs,
        own_devices: config.own_devices.clone(),
        hash_key,
    }
}

/// Looks at host and interfaces with the checks of `doctor`; what is bad refuses the start.
fn admit(config: &RunConfig) -> Result<Vec<(Interface, Claim)>, Error> {
    let mode = match config.mode {
        Mode::Inline => diagnose::Mode::Inline,
        Mode::Mirror => diagnose::Mode::Mirror,
    };
    if let Some(refusal) = Refusal::of(&diagnose::host(mode)) {
        return Err(Error::Refused(refusal));
    }
    let mut admitted = Vec::new();
    for name in &config.interfaces {
        // Who holds the lock explains more than the taken XDP slot that it leads to.
        let found = Interface::find(name);
        let claim = match &found {
            Ok(interface) => Some(claim(interface.ifindex(), name, config.replace)?),
            Err(_) => None,
        };
        let checks = match claim {
            Some(Claim::Predecessor(_)) => diagnose::interface_beside_a_sensor(name, mode),
            _ => diagnose::interface(name, mode),
        };
        if let Some(refusal) = Refusal::of(&checks) {
            return Err(Error::Refused(refusal));
        }
        let interface = found.map_err(Error::Nic)?;
        admitted.extend(claim.map(|claim| (interface, claim)));
    }
    Ok(admitted)
}

fn claim(ifindex: u32, name: &str, replace: bool) -> Result<Claim, Error> {
    match InterfaceLock::take(ifindex, name) {
        Ok(lock) => Ok(Claim::Lock(lock)),
        Err(LockError::Held { .. }) if replace => Predecessor::find(ifindex, name)
            .map(Claim::Predecessor)
            .map_err(Error::Handover),
        Err(error) => Err(Error::Lock(error)),
    }
}

/// Everything that runs.
struct Sensor {
    posts: Vec<Post>,
    coverage: Vec<Coverage>,
    coverage_out: Sender<CoverageRecord>,
    watch: Watch,
    engine: JoinHandle<(EngineFinished, Events)>,
    shared: Arc<EngineShared>,
    writer: Writer,
    refreshed: Timestamp,
    recorded: Timestamp,
}

impl Sensor {
    fn set_up(
        config: &RunConfig,
        interfaces: Vec<(Interface, Claim)>,
        writer: Writer,
    ) -> Result<Self, Error> {
        let netns = events::own_netns().map_err(|e| Error::System("find this namespace", e))?;
        let mut events = Events::open(events::Config::for_netns(netns)).map_err(Error::Events)?;
        for sentence in events.missing() {
            notice::warn(sentence);
        }
        let hash_key = random_key().map_err(|e| Error::System("read random numbers", e))?;
        let indexes: Vec<u32> = interfaces.iter().map(|(nic, _)| nic.ifindex()).collect();
        let own_macs = interfaces.iter().map(|(nic, _)| nic.mac()).collect();
        let watch = Watch::new(&indexes).map_err(Error::Nic)?;
        let posts = take_up(config, interfaces, hash_key, &mut events)?;
        let has_events = (events.missing().is_empty(), events.tells_answers());
        let engine = Engine::new(engine_config(config, has_events, own_macs, hash_key));
        let now = clock::monotonic();
        let (coverage_out, coverage_in) = bounded(posts.len() * 4);
        let shared = Arc::new(EngineShared::new(posts.len()));
        let engine_loop = EngineLoop {
            engine,
            sightings: posts.iter().flat_map(Post::sightings).collect(),
            interfaces: posts
                .iter()
                .map(|post| (post.ifindex, post.id))
                .collect::<HashMap<_, _>>(),
            coverage: coverage_in,
            out: Outlet {
                output: writer.output().clone(),
                emission: emission(&posts, now),
                containers: Containers::default(),
            },
            shared: Arc::clone(&shared),
            losses_counted: now,
            events,
        };
        let engine = std::thread::Builder::new()
            .name("rst-engine".to_owned())
            .spawn(move || engine_loop.run())
            .map_err(|e| Error::System("start the engine", e))?;
        let coverage = posts
            .iter()
            .map(|post| Coverage::new(post.id, now, post.totals().unwrap_or_default()))
            .collect();
        Ok(Self {
            posts,
            coverage,
            coverage_out,
            watch,
            engine,
            shared,
            writer,
            refreshed: now,
            recorded: now,
        })
    }

    /// Says that it is ready: to a person, and to the service manager that asked for it.
    fn announce(&self, config: &RunConfig) {
        let names: Vec<_> = self.posts.iter().map(|post| post.name.as_str()).collect();
        let mode = match config.mode {
            Mode::Inline => "inline",
            Mode::Mirror => "mirror",
        };
        notice::say(format_args!(
            "rstscope: ready, watching {} ({mode})",
            names.join(", ")
        ));
        // Without a service manager there is nobody to tell; that is no failure.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    }

    /// Until a signal comes, or nothing is left to watch.
    fn watch(&mut self, signals: &Signals) -> Result<(), Error> {
        while !signals.end_asked() {
            self.sleep();
            let now = clock::monotonic();
            let mut changes = self.watch.changes().unwrap_or_default();
            if now.since(self.refreshed) >= REFRESH_NS {
                self.refreshed = now;
                changes.extend(self.watch.refresh().unwrap_or_default());
                self.look_after_steer();
            }
            for change in &changes {
                self.follow(change);
            }
            self.answer_heirs(now);
            let (mut watched, mut handed_over) = (0, 0);
            for post in &self.posts {
                watched += usize::from(!post.is_gone && !post.is_handed_over);
                handed_over += usize::from(post.is_handed_over);
            }
            if watched == 0 && handed_over > 0 {
                return Ok(());
            }
            if watched == 0 {
                let names: Vec<_> = self.posts.iter().map(|post| post.name.as_str()).collect();
                return Err(Error::InterfacesGone(names.join(", ")));
            }
            self.look_after_workers();
            if now.since(self.recorded) >= COVERAGE_NS {
                self.record_coverage(now);
            }
        }
        Ok(())
    }

    fn sleep(&self) {
        let mut news = [rustix::event::PollFd::new(
            &self.watch,
            rustix::event::PollFlags::IN,
        )];
        // Interrupted by the signal that is asked for next: no error.
        let _ = rustix::event::poll(&mut news, Some(&WATCH));
    }

    fn follow(&mut self, change: &Change) {
        let Some(at) = self
            .posts
            .iter()
            .position(|post| post.ifindex == change.ifindex)
        else {
            return;
        };
        let (Some(post), Some(coverage)) = (self.posts.get_mut(at), self.coverage.get_mut(at))
        else {
            return;
        };
        let name = post.name.clone();
        match &change.kind {
            ChangeKind::Deleted => {
                post.is_gone = true;
                coverage.note_gap();
                notice::warn(format_args!("{name} is gone; it is no longer watched"));
            }
            ChangeKind::Down => {
                coverage.note_gap();
                notice::warn(format_args!("{name} was set down; nothing comes in by it"));
            }
            ChangeKind::Up => notice::say(format_args!("rstscope: {name} is up again")),
            ChangeKind::Mac(Some(mac)) => match post.follow_mac(*mac) {
                Ok(()) => notice::say(format_args!("rstscope: {name} has the address {mac} now")),
                Err(error) => notice::warn(error),
            },
            ChangeKind::RxQueues(count) => {
                coverage.note_gap();
                notice::warn(format_args!(
                    "{name} has {count} receive queues now; frames of new ones are only copied: \
                     restart rstscope to serve them"
                ));
            }
            _ => {}
        }
    }

    /// Hands over the posts that another process asks for.
    fn answer_heirs(&mut self, now: Timestamp) {
        for at in 0..self.posts.len() {
            if let Some(heir) = self.posts.get(at).and_then(Post::heir) {
                self.hand_over(at, heir, now);
            }
        }
    }

    fn hand_over(&mut self, at: usize, heir: Heir, now: Timestamp) {
        let (Some(post), Some(coverage)) = (self.posts.get_mut(at), self.coverage.get_mut(at))
        else {
            return;
        };
        let (name, pid) = (post.name.clone(), heir.pid);
        match post.hand_over(heir) {
            Ok(true) => {
                notice::say(format_args!("rstscope: {name} is process {pid}'s now"));
                // Its last record: what comes later is in the other process's.
                self.record_coverage_of(at, now);
            }
            Ok(false) => notice::warn(format_args!(
                "process {pid} asked for {name} and did not take it over; {name} is watched by \
                 copies alone from now on: restart rstscope to serve its queues again"
            )),
            Err(error) => {
                coverage.note_gap();
                post.is_gone = true;
                notice::warn(format_args!(
                    "process {pid} asked for {name} and did not take it over, and the way back \
                     failed: {error}; {name} is no longer watched"
                ));
            }
        }
    }

    /// Whoever takes the program off (a kill switch, another tool) means it: it is said, not undone.
    fn look_after_steer(&mut self) {
        for post in &mut self.posts {
            if !post.is_blind && !post.is_gone && post.is_cut_off() {
                post.is_blind = true;
                let name = &post.name;
                notice::warn(format_args!(
                    "{name}: somebody took the XDP program off; what comes in is no longer seen: \
                     restart rstscope to watch it again"
                ));
            }
        }
    }

    fn look_after_workers(&mut self) {
        for (post, coverage) in self.posts.iter().zip(&mut self.coverage) {
            if post.is_blind {
                coverage.note_gap();
            }
            if post
                .health()
                .iter()
                .any(|health| *health != Health::Running)
            {
                coverage.note_gap();
            }
        }
    }

    fn record_coverage(&mut self, now: Timestamp) {
        self.recorded = now;
        for at in 0..self.posts.len() {
            if self.posts.get(at).is_some_and(|post| !post.is_handed_over) {
                self.record_coverage_of(at, now);
            }
        }
    }

    fn record_coverage_of(&mut self, at: usize, now: Timestamp) {
        // Of the whole host: which interface they belong to, nobody knows.
        let host_lost = self.shared.missed() + self.writer.output().lost();
        let (Some(post), Some(coverage)) = (self.posts.get(at), self.coverage.get_mut(at)) else {
            return;
        };
        let Some(totals) = post.totals() else {
            return;
        };
        let totals = Totals {
            observed: totals.observed + self.shared.mirrored(post.id),
            lost: totals.lost + host_lost,
            ..totals
        };
        // The engine's thread empties this queue every few milliseconds.
        let _ = self.coverage_out.try_send(coverage.close(now, totals));
    }

    /// The opposite order of set-up: posts first, so that everything they saw reaches the engine;
    /// then the engine judges what is open; then the writer writes the last record.
    fn take_down(mut self, config: &RunConfig) -> Result<(), Error> {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.record_coverage(clock::monotonic());
        let closed: Vec<_> = self
            .posts
            .drain(..)
            .map(|post| (post.name.clone(), post.close()))
            .collect();
        self.shared.stop.store(true, Ordering::Release);
        let (finished, host) = match self.engine.join() {
            Ok((finished, events)) => (finished, events.host_counters().unwrap_or_default()),
            // A panic aborts release builds; a debug build has no numbers to show.
            Err(_) => (EngineFinished::default(), HostCounters::default()),
        };
        let totals = self.writer.finish();
        for (_, post) in &closed {
            post.warnings.iter().for_each(notice::warn);
        }
        if !config.quiet {
            summary::print(&closed, &finished, &host, &totals);
        }
        match totals.lost() {
            0 => Ok(()),
            lost => Err(Error::RecordsLost(lost)),
        }
    }
}

/// Takes up a post at each interface; when one fails, those that stand already are left in order
/// before the error is told.
fn take_up(
    config: &RunConfig,
    interfaces: Vec<(Interface, Claim)>,
    hash_key: [u64; 2],
    events: &mut Events,
) -> Result<Vec<Post>, Error> {
    let older = older();
    let mut posts: Vec<Post> = Vec::new();
    for ((interface, claim), id) in interfaces.into_iter().zip(0_u16..) {
        let id = InterfaceId(id);
        let post = match config.mode {
            Mode::Mirror => Post::mirror(id, &interface, &older, events, claim),
            Mode::Inline => Post::inline(id, &interface, config, hash_key, &older, events, claim),
        };
        match post {
            Ok(post) => posts.push(post),
            Err(error) => {
                posts.into_iter().for_each(|post| drop(post.close()));
                return Err(error);
            }
        }
    }
    Ok(posts)
}

/// The connections that are there already. Not to know them costs baselines, not the sensor.
fn older() -> Older {
    let connections = nic::established(OLDER_MAX).unwrap_or_else(|error| {
        notice::warn(format_args!(
            "cannot list the connections of this host: {error}"
        ));
        Vec::new()
    });
    Older {
        connections,
        until: clock::monotonic().plus_nanos(LEARN_NS),
    }
}

fn emission(posts: &[Post], now: Timestamp) -> Emission {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Emission {
        observer: Arc::new(Observer {
            id_prefix: live_prefix(&hostname, boot.trim(), now.as_nanos()),
            hostname: Some(hostname),
            interfaces: posts.iter().map(|post| Some(post.name.clone())).collect(),
        }),
        wall_offset_ns: clock::wall_offset_ns(now),
    }
}

/// Two random numbers for the flow tables of this run.
fn random_key() -> std::io::Result<[u64; 2]> {
    let mut bytes = [[0; 8]; 2];
    let mut source = File::open("/dev/urandom")?;
    for word in &mut bytes {
        source.read_exact(word)?;
    }
    Ok(bytes.map(u64::from_ne_bytes))
}
