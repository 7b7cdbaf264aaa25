//! SIGTERM and SIGINT end a run cleanly; a second one ends it at once, since somebody means it. SIGHUP
//! asks for the configuration to be read again. SIGXFSZ asks for nothing: the write that met the limit
//! fails, as one to a full disk does. SIGUSR1 and SIGUSR2 ask for nothing either: left alone they would end the
//! process and leave its programs and links behind, and a log rotation's rule for another daemon sends them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

/// A file has reached `ulimit -f` (LimitFSIZE); the process would die of it.
const SIGXFSZ: i32 = libc::SIGXFSZ;

/// Exit code of a run that was not let finish: 128 + SIGINT, as shells have it.
const IMPATIENT: i32 = 130;

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    asked: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Catches the signals from now on.
    pub(super) fn catch() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order the second signal finds the flag that the first one set.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                IMPATIENT,
                Arc::clone(&asked),
            )?;
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        let reload = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGHUP, Arc::clone(&reload))?;
        for signal in [SIGXFSZ, SIGUSR1, SIGUSR2] {
            signal_hook::flag::register(signal, Arc::default())?;
        }
        Ok(Self { asked, reload })
    }

    /// Whether SIGHUP has come since the last time.
    pub(super) fn reload_asked(&self) -> bool {
        self.reload.swap(false, Ordering::AcqRel)
    }

    /// Whether one has come that asks for the end.
    pub(super) fn end_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}
