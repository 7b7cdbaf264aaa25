//! The built binary at work on one interface of a namespace, for as long as the value lives.

#![allow(
    clippy::expect_used,
    reason = "a bench that panics has failed, as it should"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// A running sensor; interrupted and waited for at the end.
pub(crate) struct Program(Child);

impl Program {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(namespace: &str, interface: &str, arguments: &[&str]) -> Self {
        // In a session of its own, as a service is: CPUs are shared by session (sched(7), autogroup).
        let mut child = Command::new("setsid")
            .args(["ip", "netns", "exec", namespace])
            .arg(env!("CARGO_BIN_EXE_rstscope"))
            .args(["run", "--iface", interface])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its words")).lines();
        let ready = lines
            .by_ref()
            .any(|line| line.is_ok_and(|line| line.contains("ready")));
        assert!(ready, "the sensor did not start");
        // Whatever it says further must be read, or it would block at the end.
        thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    /// Its process id: `ip netns exec` has become the sensor itself (execvp).
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.0.wait();
    }
}
