//! `rstscope doctor`: the same checks as `run`, all of them shown. It changes nothing.

use std::io::{self, Write};

use crate::config::DoctorConfig;
use crate::handback;
use crate::nic::Interface;
use crate::record::wrapped;
use crate::sink::terminal_columns;

use super::diagnose::{self, Check, Mode, Refusal};

/// Columns of the outcome: `not ok`.
const OUTCOME: usize = 6;

/// Exit code when the report could not be printed.
const FAILED: u8 = 1;

/// Runs `doctor` as the command line asked for it and answers the exit code.
#[must_use]
pub fn run(config: &DoctorConfig) -> u8 {
    // Whoever closed the pipe has seen enough; the answer is the same.
    doctor(&config.interfaces, Mode::Inline, &mut io::stdout().lock()).unwrap_or(FAILED)
}

/// Prints the checks of the host, then of each interface; without interfaces, of those that look
/// physical and are up. Returns the exit code: 0 when nothing is bad, 3 when a privilege is
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
    for name in &names {
        checks.extend(diagnose::interface_beside_a_sensor(name, mode));
    }
    print(&checks, terminal_columns(), out)?;
    Ok(Refusal::of(&checks).map_or(0, |refusal| refusal.exit_code()))
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
        let line = match columns {
            Some(columns) => wrapped(&line, columns, hang),
            None => line,
        };
        out.write_all(line.as_bytes())?;
    }
    out.flush()
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
