//! Processes that end while a connection is open: killed, out of memory, or gone with their listener.

use std::process::Command;

use rstscope::events::Events;
use rstscope::host::{Ending, KernelEventKind, TcpState};

use crate::{HOST, play};

/// Who is killed while it computes still closes its sockets itself.
pub(super) fn a_killed_process(events: &mut Events) {
    let server = "import os\nc,_=listen(86).accept()\n\
        if os.fork()==0:\n c.close();time.sleep(.5);os.kill(os.getppid(),9);os._exit(0)\n\
        while 1: pass";
    let client = "s=socket.create_connection(('10.77.0.1',86));s.send(b'hello');time.sleep(1.2)";
    assert_eq!(
        how_its_python_ended(events, server, client),
        Ending::Signal(9)
    );
}

/// The same by the OOM killer, since a cgroup has no memory left.
pub(super) fn for_lack_of_memory(events: &mut Events) {
    let name = format!("rstscope{}", std::process::id());
    let group = format!(
        "mount=$(mktemp -d); group=$mount/{name}; \
         if mount -t cgroup -o memory none $mount; then limit=memory.limit_in_bytes; \
         else mount -t cgroup2 none $mount; limit=memory.max; fi && mkdir $group && echo 32M > $group/$limit"
    );
    let probe = format!("{group}; code=$?; rmdir $group; umount $mount; rmdir $mount; exit $code");
    let probe = Command::new("ip")
        .args(["netns", "exec", HOST, "sh", "-c", &probe])
        .output()
        .unwrap();
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr);
        println!("skipped: no memory cgroup here: {why}");
        return;
    }
    // The parent takes the group away again, when nobody is in it any more.
    let server = format!(
        "import os,subprocess\nr,w=os.pipe()\nif os.fork():\n os.close(w);os.wait();mount=os.read(r,99).decode();\
         os.rmdir(mount+'/{name}');subprocess.run(['umount',mount]);os.rmdir(mount);raise SystemExit\n\
         c,_=listen(91).accept();time.sleep(.5)\n\
         subprocess.run('{group}; echo $PPID > $group/cgroup.procs; printf %%s $mount >&%d'%w,shell=True,pass_fds=[w])\n\
         x=b'x'*(1<<28)"
    );
    let client = "s=socket.create_connection(('10.77.0.1',91));s.send(b'hello');time.sleep(1.5)";
    assert_eq!(
        how_its_python_ended(events, &server, client),
        Ending::OutOfMemory
    );
}

/// Plays it; how the process ended whose one connection was reset.
fn how_its_python_ended(events: &mut Events, server: &str, client: &str) -> Ending {
    let seen = play(events, server, client);
    let sent = seen.sent();
    assert_eq!(sent.len(), 1, "{seen:?}");
    let KernelEventKind::ResetSent {
        process, counts, ..
    } = sent[0].kind
    else {
        panic!()
    };
    let (process, counts) = (process.expect("a process"), counts.expect("of a socket"));
    assert!(process.name().starts_with("python"), "{process:?}");
    assert!(!counts.is_unclaimed, "it had been accepted");
    counts.ending.expect("it ended")
}

/// What waits in an accept queue is no process's yet, and is reset with its listener.
pub(super) fn a_connection_that_nobody_accepted(events: &mut Events) {
    let client = "s=socket.create_connection(('10.77.0.1',90));s.send(b'hello');time.sleep(.9)";
    for (server, ending) in [
        ("l=listen(90);time.sleep(.5);l.close();time.sleep(.5)", None),
        (
            "l=listen(90);time.sleep(.5);__import__('os')._exit(3)",
            Some(Ending::Exit(3)),
        ),
    ] {
        let seen = play(events, server, client);
        let sent = seen.sent();
        assert_eq!(sent.len(), 1, "{seen:?}");
        let KernelEventKind::ResetSent { state, counts, .. } = sent[0].kind else {
            panic!()
        };
        let counts = counts.expect("of a socket");
        assert_eq!((counts.is_unclaimed, counts.ending), (true, ending));
        assert_eq!(state, Some(TcpState::Close));
    }
}
