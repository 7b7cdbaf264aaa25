//! Whose socket it was: the program, and the thread of it that has a name of its own.

use rstscope::events::Events;
use rstscope::host::{KernelEventKind, Process};

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
