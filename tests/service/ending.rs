//! The end of a run: what waits for a receiver that is away stays on disk, wanted or not, and the next start
//! sends it; and signals that are no reason to end.

use super::siem::{Siem, ids, until};
use crate::lab::Lab;
use crate::{play, resets};

#[test]
#[ignore = "needs root"]
fn what_a_receiver_did_not_get_is_sent_by_the_next_start() {
    let lab = Lab::up();
    let mut siem = Siem::prepare(&lab);
    let [https, syslog] = siem.urls();
    let spool = lab.dir.join("spool").display().to_string();
    let file = lab.output();
    // The file is the last: what is in it is in the spools before it.
    let words = [
        "--spool", &spool, "--settle", "200", "--output", &https, "--output", &syslog, "--output",
        &file,
    ];
    let ready = || {
        let sensor = lab.start(&words);
        assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
        sensor
    };
    let mut sensor = ready();
    play(&lab, "client_abort");
    // Records that wait are no failure of the sensor's.
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    let waits = sensor.said().matches("on disk for the next start").count();
    assert_eq!(waits, 2, "{}", sensor.said());

    let mut sensor = ready();
    play(&lab, "client_abort");
    sensor.signal("KILL");
    assert_eq!(sensor.end(), None);

    let wanted = ids(&lab.records_path());
    assert!(wanted.len() >= 2, "{wanted:?}");
    siem.start(&lab);
    let mut sensor = ready();
    for receiver in ["https", "syslog"] {
        until(receiver, &sensor, || {
            siem.ids(receiver).is_superset(&wanted)
        });
    }
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert!(
        !sensor.said().contains("on disk for the next start"),
        "{}",
        sensor.said()
    );
    for receiver in ["https", "syslog"] {
        assert_eq!(siem.ids(receiver), ids(&lab.records_path()), "{receiver}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_signal_that_is_meant_for_another_daemon_ends_nothing() {
    let lab = Lab::up();
    let mut sensor = lab.start(&["--output", &lab.output()]);
    assert!(sensor.await_line("rstscope: ready"), "{}", sensor.said());
    for signal in ["USR1", "USR2", "XFSZ"] {
        sensor.signal(signal);
    }
    play(&lab, "client_abort");
    assert_eq!(sensor.stop(), Some(0), "{}", sensor.said());
    assert_eq!(resets(&lab.records_path()).len(), 1, "{}", sensor.said());
}
