//! Whose socket it was: the program, and the thread of it that has a name of its own.

use rstscope::events::Events;
use rstscope::host::{Ending, KernelEventKind, Process};

use crate::play;

/// A thread's name tells nobody which program it is of.
pub(super) fn a_thread_with_a_name_of_its_own(events: &mut Events) {
    let server = "import ctypes,threading\nl=listen(92)\n\
        def one():\n ctypes.CDLL(None).prctl(15,b'wrk:worker_0');c,_=l.accept();c.recv(9)\n \
        c.setsockopt(1,13,L);c.close()\n\
        t=threading.Thread(target=one);t.start();t.join()";
    let client = "s=socket.create_connection(('10.77.0.1',92));s.send(b'hello');time.sleep(.6)";
    let process = who_reset(events, server, client);
    assert!(process.name().starts_with("python"), "{process:?}");
    assert_eq!(process.thread_name().as_deref(), Some("wrk:worker_0"));
    assert_ne!(process.thread, process.pid);
    let server = "c,_=listen(93).accept();c.recv(9);c.setsockopt(1,13,L);c.close()";
    let client = "s=socket.create_connection(('10.77.0.1',93));s.send(b'hello');time.sleep(.6)";
    let process = who_reset(events, server, client);
    assert_eq!(process.thread_name(), None);
    assert_eq!(process.thread, process.pid);
}

/// The process of the one reset that is sent.
fn who_reset(events: &mut Events, server: &str, client: &str) -> Process {
    let seen = play(events, server, client);
    let sent = seen.sent();
    assert_eq!(sent.len(), 1, "{seen:?}");
    let KernelEventKind::ResetSent { process, .. } = sent[0].kind else {
        panic!()
    };
    process.expect("a process")
}

/// What still comes for a connection that a process has closed, the kernel answers long after that: from TIME-WAIT, from an
/// orphan, or where nothing is left of it.
pub(super) fn who_had_closed_what_is_answered(events: &mut Events) {
    // Before 6.10 the kernel tells of no such answer.
    if !events.tells().answers {
        return;
    }
    let late = |port: u16| {
        format!(
            "s=socket.create_connection(('10.77.0.1',{port}));s.send(b'hello');time.sleep(.5)\n\
             s.send(b'more');time.sleep(.6)"
        )
    };
    let closes = "c,_=listen(94).accept();c.recv(9);c.close();time.sleep(.8)";
    let dual = "l=socket.create_server(('::',95),family=socket.AF_INET6,dualstack_ipv6=True)\n\
        print('listen(',flush=True);c,_=l.accept();c.recv(9);c.close();time.sleep(.8)";
    let killed = "import os\nl=listen(96)\nif os.fork():\n os.wait();time.sleep(.8)\nelse:\n \
        c,_=l.accept();c.recv(9);os.kill(os.getpid(),9)";
    for (port, server, ending) in [
        (94, closes, None),
        (95, dual, None),
        (96, killed, Some(Ending::Signal(9))),
    ] {
        let seen = play(events, server, &late(port));
        let sent = seen.sent();
        assert_eq!(sent.len(), 1, "{seen:?}");
        let KernelEventKind::ResetSent {
            process, closed, ..
        } = sent[0].kind
        else {
            panic!()
        };
        let (process, closed) = (process.expect("who"), closed.expect("closed it before"));
        assert!(process.name().starts_with("python"), "{process:?}");
        let ago = closed.ago_ns / 1_000_000;
        assert!((400..5000).contains(&ago), "{ago} ms");
        assert_eq!(closed.ending, ending);
        assert_eq!(sent[0].tuple.src_port, port);
    }
    // Nobody closed what never was.
    let client = "s=socket.socket();s.connect_ex(('10.77.0.1',97));time.sleep(.1)";
    let seen = play(events, "", client);
    let none_closed = |event: &&rstscope::host::KernelEvent| {
        matches!(
            event.kind,
            KernelEventKind::ResetSent {
                process: None,
                closed: None,
                ..
            }
        )
    };
    let sent = seen.sent();
    assert_eq!(sent.len(), 1, "{seen:?}");
    assert!(sent.iter().all(none_closed), "{seen:?}");
}
