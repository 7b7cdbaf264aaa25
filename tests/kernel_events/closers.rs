//! Who had closed the connection of which the kernel then resets what still comes, and who had not.

use rstscope::events::Events;
use rstscope::host::{Closed, Ending, KernelEventKind, Process};

use crate::play;

/// Every case; nothing before Linux 6.10, where the kernel tells of no such answer.
pub(super) fn who_had_closed_what_is_answered(events: &mut Events) {
    if !events.tells().answers {
        return;
    }
    by_a_close(events);
    by_what_comes_last(events);
    nobody_where_a_syn_is_refused(events);
    nobody_of_the_connection_before(events);
}

/// A client that says more half a second after its first word.
fn late(address: &str, port: u16) -> String {
    format!(
        "s=socket.create_connection(('{address}',{port}));s.send(b'hello');time.sleep(.5)\n\
         s.send(b'more');time.sleep(.6)"
    )
}

/// Process and closing of the last reset, which are told together.
fn who_closed(events: &mut Events, server: &str, client: &str) -> Option<(Process, Closed)> {
    let seen = play(events, server, client);
    let sent = seen.sent();
    let last = sent.last().unwrap_or_else(|| panic!("no reset: {seen:?}"));
    let KernelEventKind::ResetSent {
        process,
        closed,
        active,
        ..
    } = last.kind
    else {
        panic!()
    };
    assert!(!active, "{seen:?}");
    assert_eq!(process.is_some(), closed.is_some(), "{seen:?}");
    process.zip(closed)
}

/// From TIME-WAIT, from an orphan, or where nothing is left of it.
fn by_a_close(events: &mut Events) {
    let closes = "c,_=listen(94).accept();c.recv(9);c.close();time.sleep(.8)";
    let dual = |port: u16| {
        format!(
            "l=socket.create_server(('::',{port}),family=socket.AF_INET6,dualstack_ipv6=True)\n\
             print('listen(',flush=True);c,_=l.accept();c.recv(9);c.close();time.sleep(.8)"
        )
    };
    let killed = "import os\nl=listen(96)\nif os.fork():\n os.wait();time.sleep(.8)\nelse:\n \
        c,_=l.accept();c.recv(9);os.kill(os.getpid(),9)";
    let v4 = "10.77.0.1";
    for (address, port, server, ending) in [
        (v4, 94, closes, None),
        (v4, 95, &dual(95), None),
        ("fd77::1", 87, &dual(87), None),
        (v4, 96, killed, Some(Ending::Signal(9))),
    ] {
        let (process, closed) = who_closed(events, server, &late(address, port)).expect("who");
        assert!(process.name().starts_with("python"), "{process:?}");
        let ago = closed.ago_ns / 1_000_000;
        assert!((400..5000).contains(&ago), "{ago} ms");
        assert_eq!(closed.ending, ending);
    }
}

/// Who had shut his direction still held the connection, until he closed it.
fn by_what_comes_last(events: &mut Events) {
    let shuts =
        "c,_=listen(97).accept();c.recv(9);c.shutdown(1);time.sleep(.3);c.close();time.sleep(.8)";
    let killed = "import os\nl=listen(98)\nif os.fork():\n os.wait();time.sleep(.8)\nelse:\n \
        c,_=l.accept();c.recv(9);c.shutdown(1);time.sleep(.3);os.kill(os.getpid(),9)";
    for (port, server, ending) in [(97, shuts, None), (98, killed, Some(Ending::Signal(9)))] {
        let (_, closed) = who_closed(events, server, &late("10.77.0.1", port)).expect("who");
        let ago = closed.ago_ns / 1_000_000;
        assert!((1..400).contains(&ago), "{ago} ms, of 300 after its FIN");
        assert_eq!(closed.ending, ending);
    }
}

/// Between the ports of a connection that a process had closed.
fn nobody_where_a_syn_is_refused(events: &mut Events) {
    let server = "l=listen(99);c,_=l.accept();l.close();c.recv(9);c.close();time.sleep(1.2)";
    let client = "s=socket.create_connection(('10.77.0.1',99),source_address=('10.77.0.2',5099))\n\
        s.send(b'hello');time.sleep(.3);s.setsockopt(1,13,L);s.close()\n\
        s=socket.socket();s.bind(('10.77.0.2',5099));s.connect_ex(('10.77.0.1',99))";
    assert_eq!(who_closed(events, server, client), None);
    let client = "s=socket.socket();s.connect_ex(('10.77.0.1',89))";
    assert_eq!(who_closed(events, "", client), None, "there never was one");
}

/// A second connection between the same ports, which the process aborts, though its client does not hear of that.
fn nobody_of_the_connection_before(events: &mut Events) {
    let server = "l=listen(88);c,_=l.accept();c.recv(9);c.close()\n\
        c,_=l.accept();c.recv(9);c.setsockopt(1,13,L);c.close();time.sleep(1)";
    let call = "s=socket.create_connection(('10.77.0.1',88),source_address=('10.77.0.2',5088));s.send(b'hello')";
    let client = format!(
        "import subprocess\n\
         {call};time.sleep(.3);s.setsockopt(1,13,L);s.close()\n\
         nft=lambda w: subprocess.run(['nft',w],check=True)\n\
         nft('add table t;add chain t i {{type filter hook input priority 0;}};add rule t i tcp flags rst drop')\n\
         {call};time.sleep(.4);s.send(b'more');time.sleep(.1);nft('delete table t');time.sleep(.3)"
    );
    assert_eq!(who_closed(events, server, &client), None);
}
