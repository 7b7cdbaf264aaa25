//! `rstscope stats`: asks the sensors of this network namespace for their numbers. They answer on an
//! abstract socket that bears their process id: it needs no folder, ends with the process, and is there
//! without `--metrics`. Answers root and the sensor's own user; asks nothing of who connects.

use std::fs;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::handover::is_trusted;
use super::ledger;
use super::texts;
use crate::metrics::{Board, table};
use crate::notice;

/// The name of a sensor's socket, less its process id.
const NAME: &str = "rstscope/stats/";

/// How long either side waits for the other: the text is some kilobytes on this host.
const WAIT: Duration = Duration::from_secs(2);

/// How long to wait before the next connection is taken when the last one could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// Exit code where there is nothing to show.
const FAILED: u8 = 1;

/// Answers from now on, until the process ends.
pub(super) fn answer(board: Arc<Board>) -> io::Result<JoinHandle<()>> {
    let name = format!("{NAME}{}", std::process::id());
    let listener =
        SocketAddr::from_abstract_name(name).and_then(|a| UnixListener::bind_addr(&a))?;
    std::thread::Builder::new()
        .name("rst-stats".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) if is_trusted(&stream) => {
                        // Who asked may have gone away, or not read.
                        let _ = tell(&stream, &board);
                    }
                    Ok(_) => {}
                    // No file or memory is to be had. Later there may be.
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        })
}

fn tell(mut stream: &UnixStream, board: &Board) -> io::Result<()> {
    stream.set_write_timeout(Some(WAIT))?;
    let families = board.families();
    for line in ledger::lines(&families) {
        stream.write_all(format!("{line}\n").as_bytes())?;
    }
    stream.write_all(table(&families).as_bytes())
}

/// Prints the numbers of the sensor with this process id, or of all.
#[must_use]
pub fn run(pid: Option<u32>) -> u8 {
    let listed = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found = sensors(&listed);
    found.retain(|other| pid.is_none_or(|pid| pid == *other));
    if found.is_empty() {
        notice::error("no sensor runs in this network namespace (or none with that process id)");
        return FAILED;
    }
    let mut worst = 0;
    for pid in found {
        match ask(pid) {
            Ok(text) if text.is_empty() => {
                notice::error(format_args!(
                    "process {pid}: it does not answer this user: ask as root, or as its user"
                ));
                worst = FAILED;
            }
            Ok(text) => {
                worst = worst.max(texts::print(&format!("rstscope, process {pid}\n{text}")))
            }
            Err(error) => {
                notice::error(format_args!("process {pid}: {error}"));
                worst = FAILED;
            }
        }
    }
    worst
}

fn ask(pid: u32) -> io::Result<String> {
    let address = SocketAddr::from_abstract_name(format!("{NAME}{pid}"))?;
    let mut stream = UnixStream::connect_addr(&address)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Process ids in the list of unix sockets (proc(5)): an abstract name begins with an at sign there.
/// Connections bear the name of the listener; only that is listed once.
fn sensors(listed: &str) -> Vec<u32> {
    let mut found: Vec<u32> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter_map(|name| name.strip_prefix('@')?.strip_prefix(NAME)?.parse().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{answer, ask, sensors};
    use crate::metrics::Board;
    use crate::metrics::sample::families;

    #[test]
    fn sensors_are_found_once_each_by_the_names_of_their_sockets() {
        let listed = "Num RefCount Protocol Flags Type St Inode Path\n\
            0: 00000002 00000000 00010000 0001 01 1 @rstscope/stats/42\n\
            0: 00000003 00000000 00000000 0001 03 2 @rstscope/stats/42\n\
            0: 00000002 00000000 00010000 0001 01 3 @rstscope/stats/x\n\
            0: 00000002 00000000 00010000 0001 01 4 /run/rstscope/stats/7\n\
            0: 00000002 00000000 00010000 0001 01 5\n";
        assert_eq!(sensors(listed), [42]);
        assert!(sensors("").is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test of what is shown now")]
    fn who_asks_gets_the_table_that_is_shown() {
        let board = Arc::new(Board::default());
        board.show(families(), true, std::time::Instant::now());
        answer(board).unwrap();
        let text = ask(std::process::id()).unwrap();
        assert!(text.contains("Flows that are remembered."), "{text}");
    }
}
