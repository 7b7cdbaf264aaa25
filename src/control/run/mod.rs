//! `rstscope run`: sets up posts, engine and writer; watches over them until a signal comes; takes
//! everything down in the opposite order, so that no frame and no record is left behind.

mod watch;

use std::collections::HashSet;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, unbounded};

use crate::cli::Mode;
use crate::config::RunConfig;
use crate::control::clock;
use crate::control::confine;
use crate::control::coverage::{Coverage, HostLosses, Totals};
use crate::control::engine_loop::{Ended, EngineLoop, EngineShared, Order, Outlet, Pace};
use crate::control::error::Error;
use crate::control::numbers;
use crate::control::outputs::Outputs;
use crate::control::post::{Claim, Post};
use crate::control::service::Manager;
use crate::control::signals::Signals;
use crate::control::start;
use crate::control::stats;
use crate::control::summary;
use crate::events::{self, Events};
use crate::metrics::{Board, Server};
use crate::nic::{Interface, Watch};
use crate::notice;
use crate::privilege::Jail;
use crate::record::CoverageRecord;
use crate::sys::Bell;
use crate::time::Timestamp;
use crate::worker::Health;

/// Watches until told to end.
///
/// # Errors
///
/// [`Error`], with the exit code that belongs to it.
pub fn run(config: &RunConfig) -> Result<(), Error> {
    let signals = Signals::catch().map_err(|e| Error::System("catch signals", e))?;
    let interfaces = start::admit(config)?;
    start::allow_files(config, &interfaces)?;
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
    /// Headers that `steer` could not copy by the last second.
    copies_lost: u64,
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
        let begin = (hash_key, start::older());
        let posts = start::take_up(config, interfaces, &begin, &mut events, &jail, &bell)?;
        let engine = start::engine(config, events.tells(), own_macs, &begin);
        let now = clock::monotonic();
        // A record an interface and ten seconds: it cannot grow, and none may be left out.
        let (coverage_out, coverage_in) = unbounded();
        let shared = Arc::new(EngineShared::new(posts.len()));
        let (orders, orders_in) = unbounded();
        let out = Outlet::new(outputs.output(), &shared, start::emission(&posts, now));
        let interfaces = posts.iter().map(|post| (post.ifindex, post.id));
        let engine_loop = EngineLoop {
            engine,
            sightings: posts.iter().flat_map(Post::sightings).collect(),
            workers: posts.iter().flat_map(Post::workers).collect(),
            interfaces: interfaces.collect(),
            coverage: coverage_in,
            orders: orders_in,
            out,
            shared: Arc::clone(&shared),
            mirror_lost: 0,
            losses_counted: now,
            heard: now,
            pace: Pace::default(),
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
            copies_lost: 0,
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
