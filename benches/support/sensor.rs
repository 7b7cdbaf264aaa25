//! The sensor's own parts put together as `run` does, but without engine and records: what a bench
//! of the data path needs. And a generator that offers SYNs through an AF_XDP socket of its own.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each bench uses a part of it; a bench that panics has failed, as it should"
)]

use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use rstscope::events::{Config as EventsConfig, Events, own_netns};
use rstscope::flow::{Tracker, TrackerConfig};
use rstscope::handback::{Live, Pair};
use rstscope::nic::Interface;
use rstscope::sys::{FramePool, Gates, HandbackSocket, Umem, UmemLayout, Wake};
use rstscope::vantage::InterfaceId;
use rstscope::worker::{Finished, Health, Port, PortConfig, Shared, Worker, WorkerConfig};
use rstscope::xdp::{BYPASSED, COUNTER_NAMES, Config as XdpConfig, Steer};

/// A sensor on one interface of this thread's namespace, running.
pub(crate) struct Sensor {
    pub(crate) events: Events,
    pub(crate) steer: Steer,
    pair: Pair,
    _live: Live,
    workers: Vec<(Arc<Shared>, JoinHandle<Finished>)>,
    queues: u32,
}

impl Sensor {
    /// Starts one with a worker a queue, each on a CPU of its own as far as there are.
    pub(crate) fn start(interface: &str, queues: u32) -> Self {
        Self::start_on(interface, queues, true)
    }

    /// The same, with workers that are bound to their CPUs or are not.
    pub(crate) fn start_on(interface: &str, queues: u32, is_pinned: bool) -> Self {
        let nic = Interface::find(interface).expect("the interface is there");
        let netns = own_netns().expect("procfs");
        let events = Events::open(EventsConfig::for_netns(netns)).expect("events");
        let settings = XdpConfig {
            frame_bytes_max: UmemLayout::default().longest_frame(),
            heartbeat_max_ns: 20_000_000,
            ..XdpConfig::default()
        };
        let mut steer = Steer::load(settings, events.ring_fd()).expect("steer loads");
        let classifier = events.load_handback().expect("classifier");
        let pair = Pair::create(&nic.link, queues, classifier.as_fd()).expect("hand-back pair");
        let (to, veth) = (nic.ifindex(), pair.transmit_ifindex());
        let live = Live::open(to, veth, queues, events.counters_fd()).expect("live frames");
        let gates = Gates::map(steer.gate_fd(), queues).expect("gates");
        let mut workers = Vec::new();
        for queue in 0..queues {
            let port = Port::open(&PortConfig {
                interface: interface.to_owned(),
                queue,
                handback: pair.names().transmit.clone(),
                handback_queue: queue,
                umem: UmemLayout::default(),
            })
            .expect("rings")
            .with_burst(live.take(queue));
            steer.insert_socket(queue, port.as_fd()).expect("xsks");
            let shared = Arc::new(Shared::new());
            let worker = Worker::new(
                WorkerConfig {
                    cpu: is_pinned.then(|| cpu_of(queue)),
                    ..WorkerConfig::new(InterfaceId(0))
                },
                port,
                gates.take(queue).expect("gate"),
                Tracker::new(TrackerConfig {
                    capacity: 1 << 16,
                    key: [1, 2],
                }),
                Arc::new(ArrayQueue::new(64)),
                Arc::clone(&shared),
            );
            let thread = worker.spawn(&format!("bench-q{queue}")).expect("a thread");
            workers.push((shared, thread));
        }
        steer.attach(interface, nic.ifindex()).expect("attached");
        let sensor = Self {
            events,
            steer,
            pair,
            _live: live,
            workers,
            queues,
        };
        for (shared, _) in &sensor.workers {
            while shared.health() != Health::Running {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        sensor
    }

    /// One of `steer`'s counters.
    pub(crate) fn steered(&self, name: &str) -> u64 {
        let at = COUNTER_NAMES.iter().position(|known| *known == name);
        self.steer.counters().expect("counters")[at.expect("a name")]
    }

    /// Frames that `steer` let pass by itself.
    pub(crate) fn bypassed(&self) -> u64 {
        BYPASSED.iter().map(|name| self.steered(name)).sum()
    }

    /// Frames received so far.
    pub(crate) fn received(&self) -> u64 {
        self.workers
            .iter()
            .map(|(shared, _)| shared.counters().received)
            .sum()
    }

    /// Stops the workers; answers what they left, and what the kernel says was handed back and
    /// lost on the veth.
    pub(crate) fn stop(mut self) -> (Vec<Finished>, u64, u64) {
        self.workers.iter().for_each(|(shared, _)| shared.stop());
        let finished = self
            .workers
            .drain(..)
            .map(|(_, thread)| thread.join().expect("no panic"))
            .collect();
        self.steer.detach();
        let handed_back = self.events.host_counters().expect("counters").handed_back;
        let lost = self.pair.statistics().expect("counters");
        (finished, handed_back, lost.lost_crossing)
    }
}

/// The CPU of a queue's worker, of those that this process may use.
fn cpu_of(queue: u32) -> u32 {
    let allowed = rustix::thread::sched_getaffinity(None).expect("it may ask");
    let all = 0..u32::try_from(rustix::thread::CpuSet::MAX_CPU).expect("a small number");
    let cpus: Vec<u32> = all.filter(|cpu| allowed.is_set(*cpu as usize)).collect();
    cpus[queue as usize % cpus.len()]
}

/// Binds this thread to the CPU of a queue's worker.
pub(crate) fn bind_to_cpu_of(queue: u32) {
    let mut cpu = rustix::thread::CpuSet::new();
    cpu.set(cpu_of(queue) as usize);
    rustix::thread::sched_setaffinity(None, &cpu).expect("it may run there");
}

/// CPU time of a process's threads whose names begin so, in nanoseconds.
pub(crate) fn threads_cpu_ns(process: u32, name: &str) -> f64 {
    sum_of_threads(process, name, "schedstat", |text| {
        text.split_whitespace().next()?.parse().ok()
    })
}

/// How often such threads have slept and woken up again.
pub(crate) fn threads_wakes(process: u32, name: &str) -> f64 {
    sum_of_threads(process, name, "status", |text| {
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().last()?.parse().ok()
    })
}

fn sum_of_threads(process: u32, name: &str, file: &str, read: fn(&str) -> Option<f64>) -> f64 {
    let mut sum = 0.0;
    for task in fs::read_dir(format!("/proc/{process}/task")).expect("procfs") {
        let path = task.expect("procfs").path();
        let Ok(comm) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        if comm.starts_with(name) {
            sum += read(&fs::read_to_string(path.join(file)).unwrap_or_default()).unwrap_or(0.0);
        }
    }
    sum
}

/// A SYN of flow `number`, to an address that nobody has.
pub(crate) fn syn(number: u32) -> [u8; 54] {
    let [a, b, c, d] = number.to_be_bytes();
    let mut bytes = [0; 54];
    let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    let ip = [
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, a, b, 192, 0, 2, 2,
    ];
    let tcp = [
        c, d, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0,
    ];
    bytes[..14].copy_from_slice(&ethernet);
    bytes[14..34].copy_from_slice(&ip);
    bytes[34..].copy_from_slice(&tcp);
    bytes
}

/// Sends frames in bursts of 64 from `queue` of an interface of this thread's namespace.
pub(crate) struct Generator {
    umem: Umem,
    pool: FramePool<rstscope::sys::Frame>,
    socket: HandbackSocket,
    next: u32,
}

impl Generator {
    pub(crate) fn open(interface: &str, queue: u32) -> Self {
        let layout = UmemLayout {
            frame_count: 1024,
            ..UmemLayout::default()
        };
        let (umem, frames) = Umem::new(layout).expect("memory");
        let socket = HandbackSocket::open(&umem, interface, queue).expect("it binds");
        Self {
            pool: FramePool::new(frames),
            umem,
            socket,
            next: 0,
        }
    }

    /// Sends so many SYNs of different flows; all of them have left when it returns. Answers how many
    /// arrived at the other end.
    pub(crate) fn send(&mut self, count: u32) -> u32 {
        let first = self.next;
        self.next = self.next.wrapping_add(count);
        self.send_each(count, |number, frame| {
            frame.extend_from_slice(&syn(first.wrapping_add(number)));
        })
    }

    /// Sends so many frames, each written by `write` from its number; all have left when it
    /// returns. Answers how many arrived: the other end may be too busy to take more (a veth with XDP holds
    /// 256 frames), as a NIC's ring may be full before anybody on the host has seen a frame.
    pub(crate) fn send_each(
        &mut self,
        count: u32,
        mut write: impl FnMut(u32, &mut Vec<u8>),
    ) -> u32 {
        let mut dropped = 0;
        let mut left = count;
        let mut bytes = Vec::with_capacity(2048);
        let mut batch = Vec::with_capacity(64);
        while left > 0 || !batch.is_empty() || self.socket.unsent() > 0 {
            self.socket.reclaim(&mut self.pool);
            while batch.len() < 64 && left > 0 {
                let Some(mut frame) = self.pool.take() else {
                    break;
                };
                bytes.clear();
                write(count - left, &mut bytes);
                assert!(self.umem.write(&mut frame, &bytes));
                batch.push(frame);
                left -= 1;
            }
            self.socket.transmit(&mut batch);
            match self.socket.wake() {
                Wake::Done | Wake::Again => {}
                // A call that drops a frame ends with it: one each.
                Wake::Dropped => dropped += 1,
                wake => panic!("{wake:?}"),
            }
        }
        while self.socket.in_kernel() > 0 {
            self.socket.reclaim(&mut self.pool);
            std::thread::yield_now();
        }
        count - dropped
    }
}
