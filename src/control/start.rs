//! The steps of a start: who may watch what, what the engine is told, who takes up which post. Each
//! refuses with the reason; none waits.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::clock;
use super::diagnose::{self, Refusal};
use super::error::Error;
use super::handover::Predecessor;
use super::lock::{InterfaceLock, LockError};
use super::post::{self, Claim, Older, Post, Start};
use crate::cli::Mode;
use crate::config::RunConfig;
use crate::engine::{Engine, EngineConfig};
use crate::events::Events;
use crate::host::KernelTells;
use crate::nic::{self, Interface};
use crate::notice;
use crate::privilege::Jail;
use crate::record::{Emission, Observer, live_prefix};
use crate::sys::Bell;
use crate::sys::watched::OLDER_MAX;
use crate::time::{SECOND, Timestamp};
use crate::vantage::InterfaceId;
use crate::wire::Mac;

/// Episodes that may be open at once: with the default settle time, as many reset flows a second.
const EPISODES: usize = 1 << 16;

/// How long frames of connections that are older than the sensor are looked for: each passed frame
/// costs a map look-up meanwhile, and who is silent for two minutes is seldom heard later.
const LEARN_NS: u64 = 120 * SECOND;

/// Open files that a sensor has beside those of its interfaces and outputs, and some to spare for who asks for numbers and
/// for a reload: 21 on Linux 6.18.
const FILES: u64 = 40;

/// An interface's programs, maps, links and lock: 13.
const FILES_AN_INTERFACE: u64 = 16;

/// A queue's sockets: AF_XDP on the interface and on the way back, with what libxdp keeps of each.
const FILES_A_QUEUE: u64 = 4;

/// An output's spool and its receiver.
const FILES_AN_OUTPUT: u64 = 4;

/// Looks at host and interfaces with the checks of `doctor`; what is bad refuses the start.
pub(super) fn admit(config: &RunConfig) -> Result<Vec<(Interface, Claim)>, Error> {
    let mode = config.mode.into();
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

/// Asks for as many open files as this process may have: services begin with 1024, for the sake of programs that use
/// select(2). Where that does not suffice, the start is refused; later the files would be missed one by one.
pub(super) fn allow_files(
    config: &RunConfig,
    interfaces: &[(Interface, Claim)],
) -> Result<(), Error> {
    let allowed = getrlimit(Resource::Nofile);
    let lifted = Rlimit {
        current: allowed.maximum,
        maximum: allowed.maximum,
    };
    let limit = match setrlimit(Resource::Nofile, lifted) {
        Ok(()) => allowed.maximum,
        Err(_) => allowed.current,
    };
    let queues = interfaces
        .iter()
        .map(|(interface, _)| u64::from(post::queues(interface, config)))
        .sum();
    let needed = FILES
        + FILES_AN_INTERFACE * config.interfaces.len() as u64
        + FILES_AN_OUTPUT * config.outputs.len() as u64
        + match config.mode {
            Mode::Inline => FILES_A_QUEUE * queues,
            Mode::Mirror => 0,
        };
    match limit {
        Some(limit) if limit < needed => Err(Error::Files {
            limit,
            needed,
            queues,
        }),
        _ => Ok(()),
    }
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

/// An engine whose flows lie in large pages, where the system has them.
pub(super) fn engine(
    config: &RunConfig,
    kernel: KernelTells,
    own_macs: Vec<Option<Mac>>,
    (hash_key, older): &([u64; 2], Older),
) -> Engine {
    let engine = Engine::new(EngineConfig {
        settle_ns: config.settle_ns,
        forged_linger_ns: 0,
        flow_capacity: config.flow_capacity,
        episode_capacity: EPISODES,
        local: Vec::new(),
        own_addresses: None,
        older: older.keys(),
        offline: false,
        kernel,
        own_macs,
        own_devices: config.own_devices.clone(),
        hash_key: *hash_key,
    });
    for flows in engine.memory() {
        crate::sys::advise_huge_pages(flows);
    }
    engine
}

/// Before traffic is touched: an address that cannot be had refuses the start.
pub(super) fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    let bind = |address| TcpListener::bind(address).map_err(|e| Error::Metrics(address, e));
    address.map(bind).transpose()
}

/// Where workers wake the engine.
pub(super) fn bell() -> Result<Arc<Bell>, Error> {
    let bell = Bell::new().map_err(|e| Error::System("make an eventfd", e))?;
    Ok(Arc::new(bell))
}

/// Takes up a post at each interface; when one fails, those that stand already are left in order
/// before the error is told.
pub(super) fn take_up(
    config: &RunConfig,
    interfaces: Vec<(Interface, Claim)>,
    (hash_key, older): &([u64; 2], Older),
    events: &mut Events,
    jail: &Jail,
    bell: &Arc<Bell>,
) -> Result<Vec<Post>, Error> {
    let mut posts: Vec<Post> = Vec::new();
    for ((interface, claim), id) in interfaces.into_iter().zip(0_u16..) {
        let id = InterfaceId(id);
        let post = match config.mode {
            Mode::Mirror => Post::mirror(id, &interface, older, events, claim),
            Mode::Inline => {
                let start = Start {
                    config,
                    hash_key: *hash_key,
                    older,
                    jail,
                    bell,
                };
                Post::inline(id, &interface, &start, events, claim)
            }
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

/// Four-tuples, two a connection, of others' connections whose addresses this host translates. All are remembered
/// for as long as the sensor runs, in some 5 MB; the first reset of one beyond them may be told as a stray, as it is
/// where the kernel does not tell. What their ends look like is learned of `OLDER_MAX` alone.
const TRANSLATED_MAX: usize = 1 << 16;

/// The connections that are there already. Not to know them costs baselines, not the sensor.
pub(super) fn older() -> Older {
    let mut connections = nic::established(OLDER_MAX).unwrap_or_else(|error| {
        notice::warn(format_args!(
            "cannot list the connections of this host: {error}"
        ));
        Vec::new()
    });
    connections.extend(nic::translated(TRANSLATED_MAX));
    Older {
        connections,
        until: clock::monotonic().plus_nanos(LEARN_NS),
    }
}

pub(super) fn emission(posts: &[Post], now: Timestamp) -> Emission {
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
pub(super) fn random_key() -> std::io::Result<[u64; 2]> {
    let mut bytes = [[0; 8]; 2];
    let mut source = File::open("/dev/urandom")?;
    for word in &mut bytes {
        source.read_exact(word)?;
    }
    Ok(bytes.map(u64::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::random_key;

    /// Who knows the build does not know where its flow tables put a connection (`flow::hash`).
    #[test]
    fn no_two_runs_have_the_same_key() {
        let keys: std::collections::HashSet<u64> =
            (0..64).flat_map(|_| random_key().unwrap()).collect();
        assert_eq!(keys.len(), 128);
    }
}
