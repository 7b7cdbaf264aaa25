//! `rstscope run`: sets up posts, engine and writer; watches over them until a signal comes; takes
//! everything down in the opposite order, so that no frame and no record is left behind.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, unbounded};

use super::clock;
use super::confine;
use super::coverage::{Coverage, HostLosses, Totals};
use super::engine_loop::{Ended, EngineLoop, EngineShared, Order, Outlet};
use super::error::Error;
use super::handover::Heir;
use super::numbers;
use super::outputs::Outputs;
use super::post::{Claim, Post};
use super::reload;
use super::service::Manager;
use super::signals::Signals;
use super::start;
use super::stats;
use super::summary;
use crate::cli::Mode;
use crate::config::RunConfig;
use crate::events::{self, Events};
use crate::metrics::{Board, Server};
use crate::nic::{Change, ChangeKind, Interface, Watch};
use crate::notice;
use crate::privilege::Jail;
use crate::record::CoverageRecord;
use crate::sys::Bell;
use crate::time::{SECOND, Timestamp};
use crate::worker::Health;

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
    let interfaces = start::admit(config)?;
    let jail = confine::jail(config).map_err(Error::Privilege)?;
    let outputs = Outputs::open(config, &jail)?;
    let listener = start::listen(config.metrics)?;
    let mut sensor = Sensor::set_up(config, interfaces, outputs, jail)?;
    let outcome = sensor.confine(config, listener).and_then(|()| {
        sensor.announce(config);
        sensor.watch(&signals)
    });
    let finished = sensor.take_down(config);
    outcome.and(finished)
}

/// Everything that runs.
pub(super) struct Sensor {
    posts: Vec<Post>,
    coverage: Vec<Coverage>,
    host_losses: HostLosses,
    coverage_out: Sender<CoverageRecord>,
    watch: Watch,
    engine: JoinHandle<Ended>,
    shared: Arc<EngineShared>,
    /// At which the engine sleeps.
    bell: Arc<Bell>,
    orders: Sender<Order>,
    outputs: Outputs,
    jail: Jail,
    manager: Manager,
    board: Arc<Board>,
    /// What it was told to do; what a reload changed is changed here.
    config: RunConfig,
    /// A reload was asked for while one was under way.
    reload_again: bool,
    addresses: HashSet<IpAddr>,
    refreshed: Timestamp,
    recorded: Timestamp,
}

impl Sensor {
    fn set_up(
        config: &RunConfig,
        interfaces: Vec<(Interface, Claim)>,
        outputs: Outputs,
        jail: Jail,
    ) -> Result<Self, Error> {
        let netns = events::own_netns().map_err(|e| Error::System("find this namespace", e))?;
        let mut events = Events::open(events::Config::for_netns(netns)).map_err(Error::Events)?;
        for sentence in events.missing() {
            notice::warn(sentence);
        }
        let hash_key = start::random_key().map_err(|e| Error::System("read random numbers", e))?;
        let indexes: Vec<u32> = interfaces.iter().map(|(nic, _)| nic.ifindex()).collect();
        let own_macs = interfaces.iter().map(|(nic, _)| nic.mac()).collect();
        let watch = Watch::new(&indexes).map_err(Error::Nic)?;
        let bell = start::bell()?;
        let posts = start::take_up(config, interfaces, hash_key, &mut events, &jail, &bell)?;
        let has_events = (events.missing().is_empty(), events.tells_answers());
        let engine = start::engine(config, has_events, own_macs, hash_key);
        let now = clock::monotonic();
        // A record an interface and ten seconds: it cannot grow, and none may be left out.
        let (coverage_out, coverage_in) = unbounded();
        let shared = Arc::new(EngineShared::new(posts.len()));
        let (orders, orders_in) = unbounded();
        let out = Outlet::new(outputs.output(), &shared, start::emission(&posts, now));
        let engine_loop = EngineLoop {
            engine,
            sightings: posts.iter().flat_map(Post::sightings).collect(),
            workers: posts.iter().flat_map(Post::workers).collect(),
            interfaces: posts
                .iter()
                .map(|post| (post.ifindex, post.id))
                .collect::<HashMap<_, _>>(),
            coverage: coverage_in,
            orders: orders_in,
            out,
            shared: Arc::clone(&shared),
            losses_counted: now,
            heard: now,
            bell: Arc::clone(&bell),
            events,
        };
        // It reads maps that are open and answers nobody: no privilege.
        let engine = jail
            .within(move || {
                std::thread::Builder::new()
                    .name("rst-engine".to_owned())
                    .spawn(move || engine_loop.run())
            })
            .map_err(Error::Privilege)?
            .map_err(|e| Error::System("start the engine", e))?;
        let coverage = posts
            .iter()
            .map(|post| Coverage::new(post.id, now, post.totals().unwrap_or_default()))
            .collect();
        let mut sensor = Self {
            posts,
            coverage,
            host_losses: HostLosses::default(),
            coverage_out,
            watch,
            engine,
            shared,
            bell,
            orders,
            addresses: HashSet::new(),
            outputs,
            jail,
            manager: Manager::new(now),
            board: Arc::default(),
            config: config.clone(),
            reload_again: false,
            refreshed: now,
            recorded: now,
        };
        sensor.tell_addresses();
        Ok(sensor)
    }

    /// Tells the engine which addresses this host has, when they are others than before. Where the kernel
    /// does not answer, the last ones hold.
    fn tell_addresses(&mut self) {
        let Ok(addresses) = self.watch.addresses() else {
            return;
        };
        if addresses != self.addresses {
            self.addresses.clone_from(&addresses);
            // The engine's thread outlives this one.
            let _ = self.orders.send(Order::Addresses(addresses));
        }
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
        self.manager.ready();
    }

    /// Gives up what only the start needed. Until then no frame was in danger; when it fails, everything
    /// is taken down in order.
    fn confine(&mut self, config: &RunConfig, listener: Option<TcpListener>) -> Result<(), Error> {
        self.show_numbers();
        self.serve(listener)?;
        let enforced = self.jail.enter().map_err(Error::Privilege)?;
        if let Some(complaint) = confine::complaint(enforced, config) {
            notice::warn(complaint);
        }
        Ok(())
    }

    /// The two ways to look at the sensor; both in threads without privileges.
    fn serve(&self, listener: Option<TcpListener>) -> Result<(), Error> {
        let within = |what, start: &(dyn Fn(Arc<Board>) -> std::io::Result<()> + Sync)| {
            let board = Arc::clone(&self.board);
            let started = self
                .jail
                .within(|| start(board))
                .map_err(Error::Privilege)?;
            started.map_err(|e| Error::System(what, e))
        };
        within("answer `rstscope stats`", &|board| {
            stats::answer(board).map(drop)
        })?;
        let Some(listener) = listener else {
            return Ok(());
        };
        within("serve metrics", &|board| {
            Server::start(listener.try_clone()?, board).map(drop)
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the age of what is shown, far from frames"
    )]
    fn show_numbers(&self) {
        let is_whole = self.posts.iter().all(|post| {
            let is_running = post
                .health()
                .iter()
                .all(|health| *health == Health::Running);
            is_running && !post.is_gone && !post.is_blind && !post.is_handed_over
        });
        let families = numbers::gather(&self.posts, &self.shared, &self.outputs);
        self.board
            .show(families, is_whole, std::time::Instant::now());
    }

    /// Reads the configuration again and takes over what can be changed while it runs.
    fn reload(&mut self) {
        self.manager.reloading();
        if self.outputs.is_exchanging() {
            // What is being done is of a file that is old by now: once more when it is done.
            self.reload_again = true;
            return;
        }
        match reload::plan(&self.config) {
            Ok(plan) => {
                plan.fixed.iter().for_each(|name| {
                    notice::warn(format_args!("{name} has changed: that takes a restart"));
                });
                let _ = self.orders.send(Order::Devices(plan.own_devices.clone()));
                self.config.own_devices = plan.own_devices;
                if self.outputs.are(&plan.outputs) {
                    self.outputs.output().reopen();
                    self.reloaded();
                } else if let Err(error) = self.outputs.exchange(&plan.outputs, &self.jail) {
                    notice::warn(format_args!("the outputs stay as they were: {error}"));
                    self.reloaded();
                }
            }
            Err(error) => {
                notice::warn(format_args!("{error}; the configuration stays as it was"));
                self.manager.ready();
            }
        }
    }

    fn reloaded(&self) {
        notice::say("rstscope: the configuration was read again");
        self.manager.ready();
    }

    /// Until a signal comes, or nothing is left to watch.
    fn watch(&mut self, signals: &Signals) -> Result<(), Error> {
        while !signals.end_asked() {
            self.sleep();
            let now = clock::monotonic();
            let turns = self.shared.turns.load(Ordering::Relaxed);
            self.manager.live(now, turns);
            if signals.reload_asked() {
                self.reload();
            }
            if self.outputs.follow(&self.orders) {
                self.reloaded();
                if std::mem::take(&mut self.reload_again) {
                    self.reload();
                }
            }
            let mut changes = self.watch.changes().unwrap_or_default();
            let is_due = now.since(self.refreshed) >= REFRESH_NS;
            if is_due {
                self.refreshed = now;
                changes.extend(self.watch.refresh().unwrap_or_default());
                self.tell_addresses();
            }
            for change in &changes {
                self.follow(change);
            }
            if is_due {
                self.look_after_steer();
                self.show_numbers();
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
            ChangeKind::Upper(upper) => {
                let loses_tags = Interface::find(&name).is_ok_and(|now| now.loses_tags());
                if loses_tags && post.take_no_more() {
                    notice::warn(format_args!(
                        "{upper} was put on {name}, which takes VLAN tags out of frames: handed back \
                         they would be lost, so {name} is watched by copies alone from now on; \
                         ethtool -K {name} rxvlan off and restart rstscope to serve its queues again",
                        upper = upper.name
                    ));
                }
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
            if post.is_blind || post.is_gone {
                continue;
            }
            let name = &post.name;
            if post.is_cut_off() {
                notice::warn(format_args!(
                    "{name}: somebody took the XDP program off; what comes in is no longer seen: \
                     restart rstscope to watch it again"
                ));
            } else if self.shared.is_cut_off(post.id) {
                notice::warn(format_args!(
                    "{name}: somebody took a tc program off; not everything is seen any longer: \
                     restart rstscope to watch it again"
                ));
            } else {
                continue;
            }
            post.is_blind = true;
        }
    }

    fn look_after_workers(&mut self) {
        for (post, coverage) in self.posts.iter().zip(&mut self.coverage) {
            // One that is made anew under the name of one that is gone has no program.
            if post.is_blind || post.is_gone {
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
        // What was noticed a second ago may not hold any more.
        self.look_after_steer();
        self.look_after_workers();
        for at in 0..self.posts.len() {
            if self.posts.get(at).is_some_and(|post| !post.is_handed_over) {
                self.record_coverage_of(at, now);
            }
        }
    }

    fn record_coverage_of(&mut self, at: usize, now: Timestamp) {
        self.host_losses
            .update(self.shared.missed() + self.outputs.lost());
        let (Some(post), Some(coverage)) = (self.posts.get(at), self.coverage.get_mut(at)) else {
            return;
        };
        let Some(totals) = post.totals() else {
            return;
        };
        let totals = Totals {
            observed: totals.observed + self.shared.mirrored(post.id),
            ..totals
        };
        let record = coverage.close(now, totals, &mut self.host_losses);
        let _ = self.coverage_out.send(record);
    }

    /// The opposite order of set-up: posts first, so that everything they saw reaches the engine;
    /// then the engine judges what is open; then coverage tells of it all; then the writer writes the
    /// last record.
    fn take_down(mut self, config: &RunConfig) -> Result<(), Error> {
        self.manager.stopping();
        self.outputs.end_exchange(&self.orders);
        self.look_after_steer();
        self.look_after_workers();
        let mut last = Vec::new();
        let mut closed = Vec::new();
        for (post, coverage) in self.posts.drain(..).zip(self.coverage.drain(..)) {
            let (id, name, is_ours) = (post.id, post.name.clone(), !post.is_handed_over);
            // Until now everything is seen; while it is taken down that is not sure.
            let end = clock::monotonic();
            let post = post.close();
            if is_ours {
                last.push((id, end, coverage, post.totals));
            }
            closed.push((name, post));
        }
        self.shared.stop.store(true, Ordering::Release);
        self.bell.ring();
        // A panic aborts release builds; a debug build has no numbers to show.
        let ended = self.engine.join().ok().map(|mut ended| {
            let missed = self.shared.missed() + self.outputs.lost();
            self.host_losses.update(missed);
            for (id, end, mut coverage, totals) in last {
                let totals = totals.map(|totals| Totals {
                    observed: totals.observed + self.shared.mirrored(id),
                    ..totals
                });
                ended.report(coverage.close_last(end, totals, &mut self.host_losses));
            }
            ended.finish()
        });
        let (finished, host) = ended.unwrap_or_default();
        let totals = self.outputs.finish();
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
