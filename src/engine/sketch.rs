//! Counts distinct things in a fixed amount of memory, about: HyperLogLog (Flajolet, Fusy, Gandouet,
//! Meunier 2007), with linear counting for few. Keeps none of them.

/// Registers: 2¹², one byte each. The standard error is 1.04/√4096 = 1.6 %, which is more than anybody
/// asks of the size of a flood, in 4 KiB.
const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 12;

/// A number of distinct things.
#[derive(Debug, Clone)]
pub(super) struct Distinct {
    /// Of each share of the hashes: the most leading zeros seen, plus one.
    ranks: Box<[u8]>,
}

impl Distinct {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            ranks: vec![0; REGISTERS].into_boxed_slice(),
        }
    }

    /// Takes one in, by a hash that nobody outside can foresee.
    pub(super) fn note(&mut self, hash: u64) {
        let at = usize::try_from(hash >> (u64::BITS - INDEX_BITS)).unwrap_or_default();
        let rest = hash << INDEX_BITS;
        let rank = rest.leading_zeros().min(u64::BITS - INDEX_BITS) + 1;
        if let Some(known) = self.ranks.get_mut(at) {
            *known = (*known).max(u8::try_from(rank).unwrap_or(u8::MAX));
        }
    }

    /// About how many there were.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and an estimate is no less than 0"
    )]
    pub(super) fn count(&self) -> u64 {
        let registers = REGISTERS as f64;
        let sum: f64 = self
            .ranks
            .iter()
            .map(|rank| (-f64::from(*rank)).exp2())
            .sum();
        // The constant of the paper for 128 registers and more.
        let alpha = 0.7213 / (1.0 + 1.079 / registers);
        let estimate = alpha * registers * registers / sum;
        let empty = self.ranks.iter().filter(|rank| **rank == 0).count() as f64;
        // Its range of "few": there the number of empty registers tells more.
        if estimate <= 2.5 * registers && empty > 0.0 {
            return (registers * (registers / empty).ln()).round() as u64;
        }
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Distinct;

    /// Any hash that spreads: the finalizer of SplitMix64.
    fn hash(number: u64) -> u64 {
        let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn few_are_counted_nearly_exactly_and_many_within_five_percent() {
        let mut distinct = Distinct::new();
        assert_eq!(distinct.count(), 0);
        let mut taken = 0_u64;
        for (upto, slack) in [
            (1, 0),
            (10, 0),
            (1_000, 30),
            (100_000, 5_000),
            (1_000_000, 50_000),
        ] {
            while taken < upto {
                distinct.note(hash(taken));
                taken += 1;
            }
            let told = distinct.count();
            assert!(told.abs_diff(upto) <= slack, "{told} for {upto}");
        }
    }

    #[test]
    fn the_same_again_does_not_count() {
        let mut distinct = Distinct::new();
        for _ in 0..1_000 {
            distinct.note(hash(1));
            distinct.note(hash(2));
        }
        assert_eq!(distinct.count(), 2);
    }
}
