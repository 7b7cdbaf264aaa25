//! The container of a local process, as its cgroup names it. Knows only ids of 64 hexadecimal digits,
//! the form that Docker, containerd, CRI-O and Podman share; refuses to guess from any other name.

use std::collections::HashMap;
use std::fs;

use crate::time::{SECOND, Timestamp};

/// Processes that are remembered; beyond that all are asked anew.
const REMEMBERED: usize = 1024;

/// How long an answer holds. A busy proxy makes thousands of records a second, and its container
/// does not change; a process id may come to be another's.
const FRESH_NS: u64 = SECOND;

/// Digits of a container's id.
const ID_DIGITS: usize = 64;

/// What was found of late, by process id.
#[derive(Debug, Default)]
pub(super) struct Containers {
    known: HashMap<u32, (Timestamp, Option<String>)>,
}

impl Containers {
    /// The container of a process; `None` when it runs in none, or is gone.
    pub(super) fn of(&mut self, pid: u32, now: Timestamp) -> Option<String> {
        if let Some((asked, found)) = self.known.get(&pid)
            && now.since(*asked) < FRESH_NS
        {
            return found.clone();
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let found = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .ok()
            .and_then(|cgroups| container_id(&cgroups).map(str::to_owned));
        self.known.insert(pid, (now, found.clone()));
        found
    }
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
    use super::{Containers, container_id};
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
        assert_eq!(containers.of(u32::MAX, Timestamp::from_nanos(1)), None);
    }
}
