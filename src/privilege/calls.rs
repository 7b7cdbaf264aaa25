//! seccomp(2): the system calls that a running sensor makes, and no others. A call that is not on the
//! list answers EPERM. It does not kill: what was tried is refused either way, and a sensor that dies
//! leaves its interfaces unwatched.
//!
//! The list is what threads, memory, files, sockets and timers need. What it leaves out: running
//! programs, tracing and reading other processes, mounting, namespaces, loading modules and BPF programs,
//! perf, keys, io_uring, changing users, clocks and the host's name; packet sockets and all other families
//! but IP, unix and netlink.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Error;

/// System calls that are allowed with any arguments.
const ALLOWED: &[c_long] = &[
    // Memory and threads. `clone3` cannot be looked into; nothing can be executed anyway.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_prctl,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_sched_getattr,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_getcpu,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    // Who and where we are.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getcwd,
    libc::SYS_getrandom,
    libc::SYS_umask,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Files; Landlock says which.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    // Sockets that are open, and waiting.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
];

/// The older names of some of these, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_chmod,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLDER: &[c_long] = &[];

/// Families of sockets: outputs and name service (IP), syslog and the service manager (unix), the watch
/// over interfaces (netlink). AF_XDP sockets are open by then, and packet sockets were never wanted.
const FAMILIES: [i32; 4] = [
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_UNIX,
    libc::AF_NETLINK,
];

/// Commands of bpf(2) on what is open already (`enum bpf_cmd`, include/uapi/linux/bpf.h): look up, update,
/// delete and next in maps; a run of a program, which gives bursts back; information about an object; update and detach of our link; batches of maps.
/// Left out are those that make maps, programs and links, and those that open other people's by number.
const BPF_COMMANDS: [u64; 10] = [1, 2, 3, 4, 10, 15, 24, 25, 29, 34];

/// `ioctl`s that put input into a terminal (ioctl_tty(2)): the way out of a service into a shell.
const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// Confines all threads of this process to the list.
///
/// # Errors
///
/// [`Error::Calls`] when the kernel takes no filter, or a thread has one of its own.
pub(super) fn confine_process() -> Result<(), Error> {
    let filter = filter()?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| Error::Calls(error.to_string()))
}

fn filter() -> Result<BpfProgram, Error> {
    let failed = |error: seccompiler::BackendError| Error::Calls(error.to_string());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_OLDER)
        .map(|call| (*call, Vec::new()))
        .collect();
    let families = FAMILIES.map(|family| u64::from(family.unsigned_abs()));
    rules.insert(libc::SYS_socket, one_of(0, &families).map_err(failed)?);
    rules.insert(libc::SYS_bpf, one_of(0, &BPF_COMMANDS).map_err(failed)?);
    rules.insert(
        libc::SYS_ioctl,
        none_of(1, &TERMINAL_INPUT).map_err(failed)?,
    );
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(failed)
}

/// Any of the rules suffices.
fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values
        .iter()
        .map(|value| SeccompRule::new(vec![compared(argument, SeccompCmpOp::Eq, *value)?]))
        .collect()
}

/// All conditions of the one rule must hold.
fn none_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let conditions = values
        .iter()
        .map(|value| compared(argument, SeccompCmpOp::Ne, *value))
        .collect::<Result<_, _>>()?;
    Ok(vec![SeccompRule::new(conditions)?])
}

fn compared(
    argument: u8,
    how: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};
    use std::process::Command;

    use rustix::net::{AddressFamily, SocketType, socket};

    use super::filter;

    /// In a thread of its own behind the filter.
    fn inside<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            seccompiler::apply_filter(&filter().unwrap()).unwrap();
            what()
        });
        thread.join().unwrap()
    }

    fn is_refused<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
    }

    #[test]
    fn what_a_sensor_never_does_answers_eperm_and_the_process_lives() {
        inside(|| {
            assert!(is_refused(Command::new("/bin/true").status()));
            for family in [
                AddressFamily::PACKET,
                AddressFamily::XDP,
                AddressFamily::from_raw(38),
            ] {
                assert!(is_refused(
                    socket(family, SocketType::RAW, None).map_err(Into::into)
                ));
            }
            let name = rustix::system::sethostname(b"x");
            assert!(is_refused(name.map_err(Into::into)));
            let root = rustix::process::chroot("/");
            assert!(is_refused(root.map_err(Into::into)));
        });
    }

    #[test]
    fn what_it_does_late_goes_on() {
        inside(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let made = std::thread::spawn(move || TcpStream::connect(address).unwrap());
            listener.accept().unwrap().0.set_nonblocking(true).unwrap();
            made.join().unwrap();
            assert!("localhost:80".to_socket_addrs().unwrap().next().is_some());
            let path = std::env::temp_dir().join(format!("rstscope-calls-{}", std::process::id()));
            std::fs::write(&path, "x").unwrap();
            let moved = path.with_extension("moved");
            std::fs::rename(&path, &moved).unwrap();
            std::fs::File::open(&moved).unwrap().sync_all().unwrap();
            std::fs::remove_file(&moved).unwrap();
            socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(std::fs::read_dir("/proc/self/task").unwrap().count() > 0);
        });
    }
}
