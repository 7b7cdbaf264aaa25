//! Syslog against the servers that people run.

use std::time::{Duration, Instant};

use rstscope::sink::{Patience, Place, Style, Target, Word, Writer, open_all};
use rstscope::verdict::Verdict;

use crate::campaign::{Receiver, play};
use crate::daemons::{Daemon, Kind, parse};
use crate::feeder::{emission, reset};

/// Every byte that could end a line or begin a terminal's command, with what would be a message.
const HOSTILE: &str = "a\nb\r\nc\u{0}\u{1b}[2J\u{7f}\u{85}\u{2028}<11>1 - - rstscope - forged - {\"event\":{\"id\":\"x\"}}";

/// Odd records arrive as one line each, unchanged but for the control characters.
fn odd_records_arrive_whole(name: &str, kind: Kind, tls: bool) {
    let Some(mut daemon) = Daemon::new(name, kind, tls) else {
        return;
    };
    daemon.start();
    let place = Place::in_memory(Patience::Wait(Duration::from_secs(20)));
    let targets = [Target::parse(&daemon.url()).unwrap()];
    let outlets = open_all(&targets, Style::default(), &place).unwrap();
    let writer = Writer::spawn(outlets, 8, &place, |line| panic!("{line}")).unwrap();
    let long = "z".repeat(20_000);
    for (number, message) in [(1, HOSTILE), (2, &long), (3, "plain")] {
        let record = reset(number, Verdict::Injected, message.to_owned());
        writer.output().send(record, &emission());
    }
    let began = Instant::now();
    let totals = writer.finish();
    assert_eq!(
        (totals.outputs[0].written, totals.lost()),
        (3, 0),
        "{totals:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "its end of stream is the answer"
    );
    let until = Instant::now() + Duration::from_secs(10);
    while daemon.ids().len() < 3 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    let lines = daemon.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let records: Vec<_> = lines.iter().map(|line| parse(line).expect(line)).collect();
    assert!(records.iter().all(|(severity, _)| *severity == "4"));
    let message = |at: usize| records[at].1["message"].as_str().unwrap().to_owned();
    assert!(!message(0).contains(char::is_control), "{:?}", message(0));
    assert!(message(0).starts_with("a") && message(0).contains("forged"));
    assert_eq!(message(1), long);
    assert_eq!(message(2), "plain");
}

#[test]
fn rsyslog_over_tcp_gets_odd_records_whole() {
    odd_records_arrive_whole("rsyslog-tcp-odd", Kind::Rsyslog, false);
}

#[test]
fn rsyslog_over_tls_gets_odd_records_whole() {
    odd_records_arrive_whole("rsyslog-tls-odd", Kind::Rsyslog, true);
}

#[test]
fn syslog_ng_over_tcp_gets_odd_records_whole() {
    odd_records_arrive_whole("syslog-ng-tcp-odd", Kind::SyslogNg, false);
}

#[test]
fn syslog_ng_over_tls_gets_odd_records_whole() {
    odd_records_arrive_whole("syslog-ng-tls-odd", Kind::SyslogNg, true);
}

/// What a server made of three records, the first of hostile bytes, in a form that is no JSON.
fn lines_in_form(name: &str, kind: Kind, format: &str) -> Option<Vec<String>> {
    let mut daemon = Daemon::new(name, kind, false)?;
    daemon.start();
    let place = Place::in_memory(Patience::Wait(Duration::from_secs(20)));
    let url = format!("{}&format={format}", daemon.url());
    let outlets = open_all(&[Target::parse(&url).unwrap()], Style::default(), &place).unwrap();
    let writer = Writer::spawn(outlets, 8, &place, |line| panic!("{line}")).unwrap();
    for (number, message) in [(1, HOSTILE), (2, "a|b=c\\d^e\tf"), (3, "plain")] {
        let record = reset(number, Verdict::Injected, message.to_owned());
        writer.output().send(record, &emission());
    }
    assert_eq!(writer.finish().lost(), 0);
    let until = Instant::now() + Duration::from_secs(10);
    while daemon.lines().len() < 3 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(daemon.lines())
}

#[test]
fn cef_and_leef_reach_both_servers_as_one_line_a_record() {
    for (kind, server) in [(Kind::Rsyslog, "rsyslog"), (Kind::SyslogNg, "syslog-ng")] {
        for (format, header) in [("cef", "CEF:0|"), ("leef", "LEEF:2.0|")] {
            let Some(lines) = lines_in_form(&format!("{server}-{format}"), kind, format) else {
                continue;
            };
            assert_eq!(lines.len(), 3, "{server}: {lines:?}");
            for (number, line) in (1..).zip(&lines) {
                let body = line
                    .strip_prefix("4 rstscope injected ")
                    .expect(line)
                    .trim_start();
                assert!(body.starts_with(header), "{line}");
                assert!(body.contains(&crate::feeder::id(number)), "{line}");
                assert!(!body.contains(char::is_control), "{line:?}");
                // What a server writes in place of a control character that it finds.
                assert!(!body.contains("#0"), "{line}");
            }
        }
    }
}

fn nothing_is_lost(name: &str, kind: Kind, tls: bool) {
    if let Some(mut daemon) = Daemon::new(name, kind, tls) {
        let url = daemon.url();
        play(name, &url, &mut daemon);
    }
}

#[test]
fn rsyslog_over_tcp_gets_every_record_though_both_are_killed() {
    nothing_is_lost("rsyslog-tcp", Kind::Rsyslog, false);
}

#[test]
fn rsyslog_over_tls_gets_every_record_though_both_are_killed() {
    nothing_is_lost("rsyslog-tls", Kind::Rsyslog, true);
}

#[test]
fn syslog_ng_over_tcp_gets_every_record_though_both_are_killed() {
    nothing_is_lost("syslog-ng-tcp", Kind::SyslogNg, false);
}

#[test]
fn syslog_ng_over_tls_gets_every_record_though_both_are_killed() {
    nothing_is_lost("syslog-ng-tls", Kind::SyslogNg, true);
}

#[test]
fn a_server_that_is_not_trusted_gets_nothing() {
    let Some(mut daemon) = Daemon::new("rsyslog-untrusted", Kind::Rsyslog, true) else {
        return;
    };
    daemon.start();
    let place = Place::in_memory(Patience::None);
    // The client's certificate is no authority.
    let url = daemon.url().replace("/ca.pem", "/client.pem");
    let targets = [Target::parse(&url).unwrap()];
    let outlets = open_all(&targets, Style::default(), &place).unwrap();
    let (told, lines) = std::sync::mpsc::channel();
    let tell = move |word: &Word| drop(told.send(word.to_string()));
    let writer = Writer::spawn(outlets, 8, &place, tell).unwrap();
    writer
        .output()
        .send(reset(1, Verdict::Local, "x".to_owned()), &emission());
    let totals = writer.finish();
    assert_eq!((totals.outputs[0].written, totals.lost()), (0, 1));
    let said: Vec<String> = lines.try_iter().collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("?ca="), "{said:?}");
    assert!(daemon.lines().is_empty());
}
