//! `rstscope doctor`: the same checks as `run`, all of them shown, and what they come to. It changes nothing.

use std::io::{self, Write};

use crate::config::DoctorConfig;
use crate::handback;
use crate::nic::Interface;
use crate::record::wrapped;
use crate::sink::terminal_columns;

use super::diagnose::{self, Check, Mode, Refusal};

/// Columns of the outcome: `not ok`.
const OUTCOME: usize = 6;

/// The check that says that another rstscope watches an interface.
const WATCHED: &str = "lock";
/// In place of a word about each interface, where none can be watched.
const HOST_REFUSES: &str = "`rstscope run` would refuse on this host: not ok above";

/// Exit code when the report could not be printed.
const FAILED: u8 = 1;

/// Runs `doctor` as the command line asked for it and answers the exit code.
#[must_use]
pub fn run(config: &DoctorConfig) -> u8 {
    // Whoever closed the pipe has seen enough; the answer is the same.
    let mode = config.mode.into();
    doctor(&config.interfaces, mode, &mut io::stdout().lock()).unwrap_or(FAILED)
}

/// Prints the checks of the host, then of each interface; without interfaces, of those that look
/// physical and are up; then what `run` would do. Returns the exit code: 0 when nothing is bad, 3 when a privilege is
/// missing, else 4.
///
/// # Errors
///
/// Those of `out`.
pub fn doctor(interfaces: &[String], mode: Mode, out: &mut dyn Write) -> io::Result<u8> {
    let mut checks = diagnose::host(mode);
    let names = if interfaces.is_empty() {
        candidates()
    } else {
        interfaces.to_vec()
    };
    if names.is_empty() {
        let check = Check::warn("interface", "no Ethernet interface is up");
        checks.push(check.remedy("name one with --iface"));
    }
    let host = Refusal::of(&checks);
    let mut closing = Closing::new(mode);
    for name in &names {
        let of_it = diagnose::interface_beside_a_sensor(name, mode);
        closing.take(name, &of_it);
        checks.extend(of_it);
    }
    print(&checks, terminal_columns(), out)?;
    writeln!(out)?;
    let refusal = Refusal::of(&checks);
    let lines = host.map_or_else(|| closing.lines(), |_| vec![HOST_REFUSES.to_owned()]);
    for line in lines {
        writeln!(out, "{}", fitted(line, terminal_columns(), 0).trim_end())?;
    }
    out.flush()?;
    Ok(refusal.map_or(0, |refusal| refusal.exit_code()))
}

fn candidates() -> Vec<String> {
    let links = Interface::candidates().unwrap_or_default();
    links
        .into_iter()
        .filter(|link| !handback::is_ours(link))
        .map(|link| link.name)
        .collect()
}

/// One line a check: outcome, name, sentence, remedy. In a terminal they go on below where the sentence begins.
fn print(checks: &[Check], columns: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    for check in checks {
        let outcome = check.outcome.name();
        let line = format!("{outcome:<OUTCOME$}  {:<width$}  — {check}\n", check.name);
        let hang = OUTCOME + 2 + width + 4;
        out.write_all(fitted(line, columns, hang).as_bytes())?;
    }
    Ok(())
}

fn fitted(line: String, columns: Option<usize>, hang: usize) -> String {
    match columns {
        Some(columns) => wrapped(&line, columns, hang),
        None => line,
    }
}

/// What the checks of the interfaces come to, for who reads the last line first.
struct Closing<'a> {
    mode: Mode,
    ready: Vec<&'a str>,
    watched: Vec<&'a str>,
    refused: Vec<&'a str>,
}

impl<'a> Closing<'a> {
    const fn new(mode: Mode) -> Self {
        Self {
            mode,
            ready: Vec::new(),
            watched: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn take(&mut self, name: &'a str, checks: &[Check]) {
        let kind = if checks.iter().any(Check::is_bad) {
            &mut self.refused
        } else if checks.iter().any(|check| check.name == WATCHED) {
            &mut self.watched
        } else {
            &mut self.ready
        };
        kind.push(name);
    }

    /// A line for those that can be watched, those that are, and those that cannot be.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.ready.is_empty() {
            lines.push(format!("`{}` can start", typed(&self.ready, self.mode)));
        }
        if !self.watched.is_empty() {
            lines.push(format!("{}: watched already", self.watched.join(", ")));
        }
        if !self.refused.is_empty() {
            let command = typed(&self.refused, self.mode);
            let other = self.refused.iter().all(|name| can_be_mirrored(name));
            let but = if self.mode == Mode::Inline && other {
                "; with `--mode mirror` it can start"
            } else {
                ""
            };
            lines.push(format!("`{command}` would refuse: not ok above{but}"));
        }
        lines
    }
}

/// The command that watches these.
fn typed(names: &[&str], mode: Mode) -> String {
    let mut command = "rstscope run".to_owned();
    for name in names {
        command.push_str(" --iface ");
        command.push_str(name);
    }
    if mode == Mode::Mirror {
        command.push_str(" --mode mirror");
    }
    command
}

fn can_be_mirrored(name: &str) -> bool {
    let mut checks = diagnose::host(Mode::Mirror);
    checks.extend(diagnose::interface(name, Mode::Mirror));
    Refusal::of(&checks).is_none()
}

#[cfg(test)]
mod tests {
    use super::super::diagnose::Fault;
    use super::*;

    #[test]
    fn lines_are_aligned_and_carry_the_remedy() {
        let checks = [
            Check::good("btf", "there"),
            Check::warn("native xdp", "not known").remedy("try"),
            Check::bad("state", Fault::Host, "eth0 is down"),
        ];
        let mut out = Vec::new();
        print(&checks, None, &mut out).unwrap();
        let expected = "ok      btf         — there\n\
                        warn    native xdp  — not known; try\n\
                        not ok  state       — eth0 is down\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut narrow = Vec::new();
        let long = Check::bad(
            "state",
            Fault::Host,
            "eth0 is down and has been so for long",
        );
        print(&[long], Some(40), &mut narrow).unwrap();
        let expected = "not ok  state  — eth0 is down and has\n                 been so for long\n";
        assert_eq!(String::from_utf8(narrow).unwrap(), expected);
    }

    #[test]
    fn an_absent_interface_fails_the_doctor() {
        let mut out = Vec::new();
        let code = doctor(&["nosuchif0".to_owned()], Mode::Inline, &mut out).unwrap();
        assert!(code == 4 || code == 3, "{code}");
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("there is no interface nosuchif0; choose one of: "),
            "{text}"
        );
    }
}
