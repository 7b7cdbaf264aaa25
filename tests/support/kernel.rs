//! Which Linux this is, for tests of what only some of them do.

/// Whether it is that version, major and minor, or a later one.
pub fn is_at_least(version: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || -> u32 { numbers.next().unwrap().parse().unwrap() };
    (number(), number()) >= version
}
