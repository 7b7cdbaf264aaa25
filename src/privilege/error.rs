//! Why a process could not be confined, and what to do about it.

use std::fmt;
use std::io;

/// What the kernel refused.
#[derive(Debug)]
pub enum Error {
    /// A thread could not be made, or no descriptor was left for it.
    Thread(io::Error),
    /// The file rules were not taken.
    Files(String),
    /// A capability set was not taken.
    Capabilities(io::Error),
    /// The filter of system calls was not taken.
    Calls(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without confinement it would have no more threads.
            Self::Thread(error) => {
                return write!(
                    f,
                    "cannot confine the sensor: no thread: {error}; raise its limit of tasks \
                     (TasksMax=, pids.max, ulimit -u) or of open files (LimitNOFILE=, ulimit -n)"
                );
            }
            Self::Files(why) => write!(f, "cannot confine the sensor by Landlock: {why}")?,
            Self::Capabilities(error) => write!(f, "cannot drop capabilities: {error}")?,
            Self::Calls(why) => write!(f, "cannot confine the sensor by seccomp: {why}")?,
        }
        f.write_str("; --unconfined runs it with all that it was started with")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread(error) | Self::Capabilities(error) => Some(error),
            Self::Files(_) | Self::Calls(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_limit_is_no_reason_to_give_up_confinement() {
        let error = std::io::Error::from_raw_os_error(libc::EAGAIN);
        let text = Error::Thread(error).to_string();
        assert!(text.contains("TasksMax="), "{text}");
        assert!(!text.contains("--unconfined"), "{text}");
    }

    #[test]
    fn each_error_names_its_part_and_the_way_round_it() {
        let errors = [
            (Error::Files("x".to_owned()), "Landlock"),
            (Error::Calls("x".to_owned()), "seccomp"),
            (
                Error::Capabilities(std::io::ErrorKind::Other.into()),
                "capabilities",
            ),
        ];
        for (error, word) in errors {
            let text = error.to_string();
            assert!(
                text.contains(word) && text.contains("--unconfined"),
                "{text}"
            );
        }
    }
}
