//! What could keep the sensor from working here, as one list of checks. `doctor` prints it, `run`
//! refuses with the same words. It reads and judges; it changes nothing.

mod host;
mod interface;

use std::fmt;

pub use host::HostFacts;
pub use interface::{FRAME_BYTES_MAX, InterfaceFacts, UMEM_BYTES_PER_QUEUE};

use crate::{cli, nic};

/// How frames would be looked at. More is asked of the host inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Frames are taken and handed back.
    #[default]
    Inline,
    /// A copy is looked at; nothing is taken.
    Mirror,
}

impl From<cli::Mode> for Mode {
    fn from(typed: cli::Mode) -> Self {
        match typed {
            cli::Mode::Inline => Self::Inline,
            cli::Mode::Mirror => Self::Mirror,
        }
    }
}

/// What a refusal is about; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A privilege is missing.
    Permission,
    /// The kernel, the driver or the interface cannot.
    Host,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// The sensor works, but knows or does less than it could.
    Warn,
    /// The sensor refuses to start.
    Bad(Fault),
}

impl Outcome {
    /// As `doctor` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warn => "warn",
            Self::Bad(_) => "not ok",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in one or two words.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found: one sentence, lower case, that names the object.
    pub sentence: String,
    /// What to do about it, where something can be done.
    pub remedy: Option<String>,
}

impl Check {
    pub(crate) fn good(name: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            name,
            outcome: Outcome::Good,
            sentence: sentence.into(),
            remedy: None,
        }
    }

    pub(crate) fn warn(name: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Warn,
            ..Self::good(name, sentence)
        }
    }

    pub(crate) fn bad(name: &'static str, fault: Fault, sentence: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Bad(fault),
            ..Self::good(name, sentence)
        }
    }

    pub(crate) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// Whether the sensor refuses because of it.
    #[must_use]
    pub const fn is_bad(&self) -> bool {
        matches!(self.outcome, Outcome::Bad(_))
    }
}

/// The sentence, then the remedy: what `run` prints of a check that is bad.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// All that keeps the sensor from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    bad: Vec<Check>,
}

impl Refusal {
    /// The refusal that these checks amount to; `None` when none is bad.
    #[must_use]
    pub fn of(checks: &[Check]) -> Option<Self> {
        let bad: Vec<Check> = checks
            .iter()
            .filter(|check| check.is_bad())
            .cloned()
            .collect();
        (!bad.is_empty()).then_some(Self { bad })
    }

    /// The checks that are bad.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.bad
    }

    /// 3 when a privilege is missing, else 4. A missing privilege goes first: without it the other
    /// answers may be wrong.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let is_permission = |check: &Check| check.outcome == Outcome::Bad(Fault::Permission);
        if self.bad.iter().any(is_permission) {
            3
        } else {
            4
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, check) in self.bad.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{check}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Checks of the host itself.
#[must_use]
pub fn host(mode: Mode) -> Vec<Check> {
    HostFacts::gather().checks(mode)
}

/// Checks of one interface before `run` attaches to it. That no other rstscope watches it is
/// [`InterfaceLock::take`](super::lock::InterfaceLock::take)'s to find out, before or after.
#[must_use]
pub fn interface(name: &str, mode: Mode) -> Vec<Check> {
    match InterfaceFacts::gather(name) {
        Ok(facts) => facts.checks(mode),
        Err(error) => vec![absent(&error)],
    }
}

/// The same for `doctor`, which may be asked while a sensor runs: what that sensor holds is no
/// fault then.
#[must_use]
pub fn interface_beside_a_sensor(name: &str, mode: Mode) -> Vec<Check> {
    match InterfaceFacts::gather(name) {
        Ok(facts) => facts.with_lock_state().checks(mode),
        Err(error) => vec![absent(&error)],
    }
}

fn absent(error: &nic::Error) -> Check {
    match error {
        nic::Error::NotFound { name, known } => Check::bad(
            "interface",
            Fault::Host,
            format!("there is no interface {name}"),
        )
        .remedy(format!("choose one of: {}", known.join(", "))),
        nic::Error::Netlink { .. } => Check::bad("interface", Fault::Host, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_decides_the_exit_code() {
        let host = Check::bad("link", Fault::Host, "eth0 is down").remedy("set it up");
        let privilege = Check::bad("capabilities", Fault::Permission, "CAP_BPF is missing");
        let fine = Check::good("btf", "there");
        assert_eq!(Refusal::of(std::slice::from_ref(&fine)), None);
        let refusal = Refusal::of(&[fine.clone(), host.clone()]).unwrap();
        assert_eq!((refusal.exit_code(), refusal.checks().len()), (4, 1));
        let refusal = Refusal::of(&[host, fine, privilege]).unwrap();
        assert_eq!(refusal.exit_code(), 3);
        assert_eq!(
            refusal.to_string(),
            "eth0 is down; set it up\nCAP_BPF is missing"
        );
    }

    #[test]
    fn an_absent_interface_is_refused_with_the_names_there_are() {
        let checks = interface("nosuchif0", Mode::Inline);
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].sentence, "there is no interface nosuchif0");
        assert!(checks[0].remedy.as_deref().unwrap().contains("lo"));
        assert_eq!(Refusal::of(&checks).unwrap().exit_code(), 4);
    }
}
