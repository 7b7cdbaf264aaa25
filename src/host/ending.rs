//! How a process ended, as the kernel has it: by which signal, or with which exit code.

use std::fmt;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exit(u8),
    /// Killed by this signal.
    Signal(u8),
    /// Killed by the kernel's OOM killer.
    OutOfMemory,
}

/// Signals that kill, by the numbers that all of Linux' machines share.
const SIGNALS: &[(u8, &str)] = &[
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (6, "SIGABRT"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (15, "SIGTERM"),
];

impl Ending {
    /// What begins the words of [`Self::Exit`], and of no other.
    pub const EXIT: &str = "exit code";

    /// From the kernel's word (`task_struct.exit_code`), which is that of wait(2).
    #[must_use]
    pub const fn from_wait_status(status: u32) -> Self {
        let [signal, code, ..] = status.to_le_bytes();
        match signal & 0x7f {
            0 => Self::Exit(code),
            signal => Self::Signal(signal),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "{} {code}", Self::EXIT),
            Self::OutOfMemory => f.write_str("SIGKILL by the OOM killer"),
            Self::Signal(signal) => match SIGNALS.iter().find(|(number, _)| number == signal) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ending;

    #[test]
    fn a_wait_status_tells_signals_from_exit_codes() {
        let told = |status| Ending::from_wait_status(status).to_string();
        assert_eq!(told(9), "SIGKILL");
        assert_eq!(told(0x8b), "SIGSEGV", "with a core");
        assert_eq!(told(34), "signal 34");
        assert_eq!(told(0), "exit code 0");
        assert_eq!(told(0x100), "exit code 1");
        assert_eq!(told(0xff00), "exit code 255");
    }
}
