//! What the engine is told at its start: what it can see, how long it waits, how much it remembers. It checks
//! nothing.

use std::collections::HashSet;
use std::net::IpAddr;

use super::Device;
use crate::flow::FlowKey;
use crate::host::KernelTells;
use crate::wire::{Mac, Network};

/// What the engine needs to know at start.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How long after the last reset of a flow its episode is judged; 0: at the next tick.
    pub settle_ns: u64,
    /// How long after its last reset an episode with a forged reset, or with one that is undetermined
    /// so far, is judged, if that is later: for captures, where time costs nothing. Live an alert does
    /// not wait: 0.
    pub forged_linger_ns: u64,
    /// Flows that its own tracker holds.
    pub flow_capacity: usize,
    /// Episodes that may be open at once; a reset beyond that is counted, not judged.
    pub episode_capacity: usize,
    /// Addresses that are "this host", where the vantage point does not tell (capture files).
    pub local: Vec<Network>,
    /// This host's addresses, where its interfaces tell; `None`: not known.
    pub own_addresses: Option<HashSet<IpAddr>>,
    /// Connections that were there before the sensor, as far as this host's kernel told: a reset of theirs is no
    /// stray because nothing was heard of them yet.
    pub older: HashSet<FlowKey>,
    /// Frames come from a capture: both directions, data segments, no kernel.
    pub offline: bool,
    /// What the kernel tells of its resets: of what it tells, silence means something.
    pub kernel: KernelTells,
    /// MAC of each interface, by `InterfaceId`.
    pub own_macs: Vec<Option<Mac>>,
    /// Devices that give their name to the resets that they forge.
    pub own_devices: Vec<Device>,
    /// Random hash key of this run.
    pub hash_key: [u64; 2],
}
