//! What is done while the sensor runs: interfaces are followed, programs and workers looked after, posts
//! handed over, coverage recorded, and a reload is carried out. It undoes nothing that somebody else did to
//! an interface: that is said.

use std::sync::atomic::Ordering;

use super::Sensor;
use crate::cli::Mode;
use crate::control::clock;
use crate::control::coverage::Totals;
use crate::control::engine_loop::Order;
use crate::control::error::Error;
use crate::control::handover::Heir;
use crate::control::outputs::Exchanged;
use crate::control::post::Post;
use crate::control::reload;
use crate::control::signals::Signals;
use crate::nic::{Change, ChangeKind, Interface};
use crate::notice;
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

impl Sensor {
    /// Until a signal comes, or nothing is left to watch.
    pub(super) fn watch(&mut self, signals: &Signals) -> Result<(), Error> {
        while !signals.end_asked() {
            self.sleep();
            let now = clock::monotonic();
            let turns = self.shared.turns.load(Ordering::Relaxed);
            self.manager.live(now, turns);
            if signals.reload_asked() {
                self.reload();
            }
            if let Some(came) = self.outputs.follow(&self.orders) {
                self.reloaded(came);
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
                self.look_after_way_back();
                self.look_after_steer();
                self.look_for_losses();
                self.look_at_next_hops();
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
                post.let_go();
                let _ = self.orders.send(Order::Gone(post.ifindex));
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
            ChangeKind::Renamed(new) => {
                notice::say(format_args!("rstscope: {name} is called {new} now"));
                post.name.clone_from(new);
                let _ = self.orders.send(Order::Renamed(post.id, new.clone()));
            }
            ChangeKind::RxQueues(count) => {
                coverage.note_gap();
                notice::warn(format_args!(
                    "{name} has {count} receive queues now; frames of new ones are only copied: \
                     restart rstscope to serve them"
                ));
            }
            ChangeKind::Upper(_) | ChangeKind::Master(_) => {
                let now = Interface::indexed(post.ifindex).ok().flatten();
                let now = now.filter(Interface::loses_tags);
                if let Some(reader) = now.iter().flat_map(|now| &now.tag_readers).next()
                    && post.take_no_more()
                {
                    notice::warn(format_args!(
                        "{reader} is above {name} now, which takes VLAN tags out of frames: handed back \
                         they would be lost, so {name} is watched by copies alone from now on; \
                         ethtool -K {name} rxvlan off and restart rstscope to serve its queues again",
                        reader = reader.name
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

    /// What went past unseen may have ended a connection, and opened another.
    fn look_for_losses(&mut self) {
        let lost = self.posts.iter().filter_map(Post::copies_lost).sum();
        if lost > std::mem::replace(&mut self.copies_lost, lost) {
            let _ = self.orders.send(Order::Unseen);
        }
    }

    /// Frames that would not come back are not taken any more. Those of up to [`REFRESH_NS`] are lost.
    fn look_after_way_back(&mut self) {
        for post in self.posts.iter_mut().filter(|post| !post.is_gone) {
            if let Some(what) = post.misuse()
                && post.take_no_more()
            {
                notice::warn(format_args!(
                    "{}: {what}, by which its frames came back; it is watched by copies alone from now on: \
                     restart rstscope to serve its queues again",
                    post.name
                ));
            }
        }
    }

    /// A frame that was handed back has no hash of the NIC: it must not be what a route goes by.
    fn look_at_next_hops(&mut self) {
        let Some(now) = self.watch.next_hops() else {
            return;
        };
        for post in &self.posts {
            if let Err(error) = post.set_routes_by_hash(now) {
                notice::warn(error);
            }
        }
        if self.config.mode == Mode::Mirror {
            return;
        }
        notice::say(match now {
            true => {
                "rstscope: this host chooses next hops by ports now: connections that it routes are \
                 looked at by copies"
            }
            false => "rstscope: this host no longer chooses next hops by ports",
        });
    }

    /// Whoever takes the program off (a kill switch, another tool) means it: it is said, not undone.
    pub(super) fn look_after_steer(&mut self) {
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

    pub(super) fn look_after_workers(&mut self) {
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
                    self.reloaded(Exchanged::Whole);
                } else if let Err(error) = self.outputs.exchange(&plan.outputs, &self.jail) {
                    notice::warn(format_args!("the outputs stay as they were: {error}"));
                    self.reloaded(Exchanged::Refused);
                }
            }
            Err(error) => {
                notice::warn(format_args!("{error}; the configuration stays as it was"));
                self.manager.ready();
            }
        }
    }

    /// Says so; why outputs were refused has been said.
    fn reloaded(&self, outputs: Exchanged) {
        let but = match outputs {
            Exchanged::Whole => "",
            Exchanged::Refused => "; all of it holds now but its outputs",
        };
        notice::say(format_args!(
            "rstscope: the configuration was read again{but}"
        ));
        self.manager.ready();
    }
}
