//! Frames for the tests that hold two ways of reading against each other: made ones, and mutants of those
//! and of what the fuzzers start from. Reads no file: the tests do.

/// Mutants of a test: some thousand of each seed; some of each under Miri, which takes milliseconds for one.
pub(super) const MUTANTS: usize = if cfg!(miri) { 600 } else { 200_000 };

/// xorshift64*: seeded, so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(roll).unwrap() % bound
    }
}

/// A whole frame without tags; `reserved` are the four bits behind the data offset.
pub(super) fn frame(
    is_ipv4: bool,
    (reserved, flags): (u8, u8),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut tcp = vec![0x9c, 0x40, 1, 0xbb, 0, 0, 0, 5, 0, 0, 0, 9];
    let data_offset = u8::try_from(20 + options.len()).unwrap() << 2;
    tcp.extend([data_offset | reserved, flags, 2, 0, 0, 0, 0, 0]);
    tcp.extend(options);
    tcp.extend(payload);
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xfe];
    let len = u16::try_from(tcp.len()).unwrap();
    if is_ipv4 {
        bytes.extend([8, 0, 0x45, 3]);
        bytes.extend((len + 20).to_be_bytes());
        bytes.extend([7, 8, 0x40, 0, 57, 6, 0, 0, 100, 1, 2, 3, 10, 0, 0, 1]);
    } else {
        bytes.extend([0x86, 0xdd, 0x6a, 0xbc, 0xde, 0xf1]);
        bytes.extend(len.to_be_bytes());
        bytes.extend([6, 57]);
        bytes.extend(32..64);
    }
    bytes.extend(tcp);
    bytes
}

/// How many of [`MUTANTS`] mutants of these frames `check` affirms.
pub(super) fn count_mutants(seeds: &[Vec<u8>], mut check: impl FnMut(&[u8]) -> bool) -> usize {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mutant = |round: usize| {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        for _ in 0..round % 4 {
            if !bytes.is_empty() {
                let at = dice.below(bytes.len().min(80));
                bytes[at] = u8::try_from(dice.below(256)).unwrap();
            }
        }
        if round.is_multiple_of(5) {
            bytes.truncate(dice.below(bytes.len() + 1));
        }
        bytes
    };
    (0..MUTANTS)
        .map(mutant)
        .filter(|bytes| check(bytes))
        .count()
}
