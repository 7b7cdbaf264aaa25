//! The container of a local process, as its cgroup names it. Knows only ids of 64 hexadecimal digits,
//! the form that Docker, containerd, CRI-O and Podman share; refuses to guess from any other name.

use std::collections::HashMap;
use std::fs;

use crate::time::{MILLISECOND, SECOND, Timestamp};

/// Processes that are remembered; beyond that all are asked anew.
const REMEMBERED: usize = 1024;

/// How long an answer holds. A busy proxy makes thousands of records a second, and its container
/// does not change; a process id may come to be another's.
const FRESH_NS: u64 = SECOND;

/// Digits of a container's id.
const ID_DIGITS: usize = 64;

/// Length of the unit of a process's start, USER_HZ (include/asm-generic/param.h), as every architecture has it that
/// this runs on.
const START_UNIT_NS: u64 = 10 * MILLISECOND;

/// What was found of late, by process id.
#[derive(Debug, Default)]
pub(super) struct Containers {
    known: HashMap<u32, Found>,
}

#[derive(Debug)]
struct Found {
    asked: Timestamp,
    /// When the process that has the number now started; `None`: there is none.
    started: Option<Timestamp>,
    container: Option<String>,
}

impl Containers {
    /// The container of a process; `None` when it runs in none, or is gone. `seen`: when it was there for sure, where that
    /// was long ago; who has its number now may have started later.
    pub(super) fn of(
        &mut self,
        pid: u32,
        seen: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<String> {
        let is_fresh = |found: &Found| now.since(found.asked) < FRESH_NS;
        if !self.known.get(&pid).is_some_and(is_fresh) {
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
            self.known.insert(pid, Found::ask(pid, now));
        }
        let found = self.known.get(&pid)?;
        let is_it = seen.is_none_or(|seen| found.started.is_some_and(|started| started <= seen));
        found.container.clone().filter(|_| is_it)
    }
}

impl Found {
    fn ask(pid: u32, asked: Timestamp) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        Self {
            asked,
            started: read("stat").and_then(|stat| started(&stat)),
            container: read("cgroup").and_then(|cgroups| container_id(&cgroups).map(str::to_owned)),
        }
    }
}

/// When a process started, from its `stat` (proc_pid_stat(5), field 22): on a host that was suspended later than by the
/// clock of the events, so that its container goes unnamed. Its name, the second field, may hold anything.
fn started(stat: &str) -> Option<Timestamp> {
    let (_, fields) = stat.rsplit_once(')')?;
    let units: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(Timestamp::from_nanos(units.saturating_mul(START_UNIT_NS)))
}

/// The innermost container in a process's list of cgroups (cgroups(7): a line a hierarchy,
/// `id:controllers:path`).
fn container_id(cgroups: &str) -> Option<&str> {
    let is_id = |word: &&str| {
        word.len() == ID_DIGITS
            && word
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .find_map(|path| path.rsplit(['/', '-', ':', '.']).find(is_id))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Containers, Found, container_id, started};
    use crate::control::clock;
    use crate::time::Timestamp;

    const ID: &str = "4f1c2a9be07d5533aa01b2c3d4e5f60718293a4b5c6d7e8f9001122334455667";

    #[test]
    fn the_usual_runtimes_names_hold_the_id() {
        for path in [
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("0::/docker/{ID}"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("0::/kubepods/besteffort/pod1-2/crio-{ID}.scope/container"),
            format!("0::/machine.slice/libpod-{ID}.scope/init"),
            format!("0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"),
            format!("12:pids:/\n4:memory:/docker/{ID}\n0::/"),
        ] {
            assert_eq!(container_id(&path), Some(ID), "{path}");
        }
    }

    #[test]
    fn of_nested_containers_the_innermost_counts() {
        let outer = ID.replace('4', "0");
        let path = format!("0::/docker/{outer}/docker/{ID}");
        assert_eq!(container_id(&path), Some(ID));
    }

    #[test]
    fn a_service_a_session_and_a_shorter_or_foreign_name_are_no_container() {
        for path in [
            "0::/system.slice/haproxy.service".to_owned(),
            "0::/user.slice/user-0.slice/session-3.scope".to_owned(),
            format!("0::/docker/{}", &ID[1..]),
            format!("0::/docker/{ID}0"),
            format!("0::/docker/{}", ID.to_uppercase()),
            "4:memory:/process/04f94d359d00670fd598ee55440ac9f9\n0::/".to_owned(),
            ID.to_owned(),
            String::new(),
        ] {
            assert_eq!(container_id(&path), None, "{path}");
        }
    }

    #[test]
    fn a_process_that_is_gone_has_no_container() {
        let mut containers = Containers::default();
        assert_eq!(
            containers.of(u32::MAX, None, Timestamp::from_nanos(1)),
            None
        );
    }

    #[test]
    fn the_start_of_a_process_is_told_whatever_its_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123 9 9";
        assert_eq!(started(stat), Some(Timestamp::from_nanos(1_230_000_000)));
        assert_eq!(started("7 (a) S 1"), None);
        let before = clock::monotonic();
        let mut child = Command::new("sleep").arg("9").spawn().unwrap();
        let found = Found::ask(child.id(), before);
        child.kill().unwrap();
        child.wait().unwrap();
        let began = found.started.unwrap();
        assert!(
            began.distance(before) < 5_000_000_000,
            "{began:?} {before:?}"
        );
    }

    #[test]
    fn who_has_the_number_of_a_process_that_was_seen_before_he_started_is_not_taken_for_it() {
        let now = Timestamp::from_nanos(9_000_000_000);
        let mut containers = Containers::default();
        let found = Found {
            asked: now,
            started: Some(Timestamp::from_nanos(5_000_000_000)),
            container: Some(ID.to_owned()),
        };
        containers.known.insert(7, found);
        let mut of = |seconds: Option<u64>| {
            let seen = seconds.map(|s| Timestamp::from_nanos(s * 1_000_000_000));
            containers.of(7, seen, now)
        };
        assert_eq!(of(None).as_deref(), Some(ID));
        assert_eq!(of(Some(6)).as_deref(), Some(ID));
        assert_eq!(of(Some(4)), None);
    }
}
