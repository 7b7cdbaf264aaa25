//! Fills the `watched` map of a loaded program (bpf/watch.h), so that it copies the next frames of
//! connections that are older than the sensor. To be called before the program is attached: the
//! time until which anything is watched is then nobody else's to write.

use libbpf_rs::{MapCore, MapFlags, Result};

use crate::host_bytes::{flow_key, watch_of_older};
use crate::time::Timestamp;
use crate::wire::FourTuple;

/// Frames copied of each older connection: two to know that its hop limit is steady, two more for
/// the order of its IP IDs.
const FRAMES: u64 = 4;

/// As many as the map holds (`max_entries` of `watched`).
pub const OLDER_MAX: usize = 8192;

/// Watches the segments that come in on `older` (`src` is this host) until `until`. `state` is the
/// map of the program's global variables, in which `watching_until_ns` stands at `offset`.
///
/// # Errors
///
/// Those of the map updates.
pub fn watch_older(
    watched: &impl MapCore,
    state: &impl MapCore,
    offset: usize,
    older: &[FourTuple],
    until: Timestamp,
) -> Result<()> {
    if older.is_empty() {
        return Ok(());
    }
    let watch = watch_of_older(until, FRAMES);
    for tuple in older.iter().take(OLDER_MAX) {
        watched.update(&flow_key(&tuple.reversed()), &watch, MapFlags::ANY)?;
    }
    let key = 0_u32.to_ne_bytes();
    let Some(mut globals) = state.lookup(&key, MapFlags::ANY)? else {
        return Ok(());
    };
    if let Some(place) = globals.get_mut(offset..offset + 8) {
        place.copy_from_slice(&until.as_nanos().to_ne_bytes());
    }
    state.update(&key, &globals, MapFlags::ANY)
}
