//! What is remembered of connections, by their key: a hash map under the hash of the flow table, keyed
//! by this run's secret, so that nobody can choose flows that collide. The standard library's is as
//! safe and takes several times as long, and a reset is looked up a dozen times.

use std::collections::HashMap;
pub(super) use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use crate::flow::{FlowKey, mix};

/// Values by connection.
#[derive(Debug)]
pub(super) struct ByFlow<V> {
    map: HashMap<Key, V, Secret>,
}

impl<V> ByFlow<V> {
    /// An empty one.
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self {
            map: HashMap::with_hasher(Secret(secret)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn contains(&self, key: &FlowKey) -> bool {
        self.map.contains_key(&Key(*key))
    }

    pub(super) fn get(&self, key: &FlowKey) -> Option<&V> {
        self.map.get(&Key(*key))
    }

    pub(super) fn get_mut(&mut self, key: &FlowKey) -> Option<&mut V> {
        self.map.get_mut(&Key(*key))
    }

    /// The place of a key, taken or not.
    pub(super) fn entry(&mut self, key: FlowKey) -> Entry<'_, Key, V> {
        self.map.entry(Key(key))
    }

    /// The value that was there before.
    pub(super) fn insert(&mut self, key: FlowKey, value: V) -> Option<V> {
        self.map.insert(Key(key), value)
    }

    pub(super) fn remove(&mut self, key: &FlowKey) -> Option<V> {
        if self.map.is_empty() {
            return None;
        }
        self.map.remove(&Key(*key))
    }

    /// In no order.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.map.values_mut()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(FlowKey);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let FlowKey { low, high } = &self.0;
        let ports = u64::from(low.port) << 16 | u64::from(high.port);
        match (low.address, high.address) {
            (IpAddr::V4(low), IpAddr::V4(high)) => {
                state.write_u64(u64::from(low.to_bits()) << 32 | u64::from(high.to_bits()));
            }
            (low, high) => {
                state.write_u128(v6_bits(low));
                state.write_u128(v6_bits(high));
            }
        }
        state.write_u64(ports);
    }
}

const fn v6_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[derive(Debug, Clone, Copy)]
struct Secret([u64; 2]);

impl BuildHasher for Secret {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        let [state, secret] = self.0;
        Mixer { state, secret }
    }
}

/// Folds words of a key, one by one, into a state that begins as one half of the secret, with the
/// other half.
#[derive(Debug)]
struct Mixer {
    state: u64,
    secret: u64,
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.state = mix(self.state ^ word, self.secret);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::{ByFlow, Key, Secret};
    use crate::flow::FlowKey;
    use crate::wire::FourTuple;

    fn key(src: &str, src_port: u16) -> FlowKey {
        FlowKey::of(FourTuple {
            src: src.parse().unwrap(),
            src_port,
            dst: "2001:db8::1".parse().unwrap(),
            dst_port: 443,
        })
        .0
    }

    #[test]
    fn both_families_are_found_again_and_apart() {
        let mut flows = ByFlow::new([1, 2]);
        assert_eq!(flows.remove(&key("192.0.2.1", 1)), None);
        for (at, src) in ["192.0.2.1", "192.0.2.2", "2001:db8::2"].iter().enumerate() {
            assert_eq!(flows.insert(key(src, 7), at), None);
        }
        assert_eq!(flows.len(), 3);
        assert_eq!(flows.get(&key("192.0.2.2", 7)), Some(&1));
        assert_eq!(flows.get(&key("192.0.2.2", 8)), None);
        *flows.get_mut(&key("2001:db8::2", 7)).unwrap() = 9;
        assert_eq!(flows.remove(&key("2001:db8::2", 7)), Some(9));
        assert!(!flows.contains(&key("2001:db8::2", 7)));
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "thousands of hashes, which touch no memory but their own"
    )]
    fn the_secret_decides_which_keys_share_a_bucket() {
        let bucket = |secret, port| Secret(secret).hash_one(Key(key("192.0.2.1", port))) & 63;
        let alike: Vec<u16> = (0..4096)
            .filter(|port| bucket([1, 2], *port) == 0)
            .collect();
        assert!((30..110).contains(&alike.len()), "{}", alike.len());
        let still = alike.iter().filter(|port| bucket([3, 4], **port) == 0);
        assert!(still.count() < 12);
    }
}
