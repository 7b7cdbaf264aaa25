//! HTTP receivers that are busy, refuse, forget or say nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rstscope::sink::{Patience, Place, Style, Target, Totals, Word, Writer, open_all};

use crate::bulk::{Bulk, Mood, Speech};
use crate::campaign::{Receiver, folder, play};
use crate::feeder::{emission, id, record};

/// What came of some records.
struct Outcome {
    totals: Totals,
    told: Vec<String>,
    spool: PathBuf,
}

/// Feeds so many records through a spool on disk.
fn feed(name: &str, url: &str, count: u64) -> Outcome {
    let spool = folder(&format!("{name}-spool"));
    let place = Place {
        spool: Some(spool.clone()),
        patience: Patience::Wait(Duration::from_secs(20)),
        reopened: Arc::default(),
        inherits: None,
    };
    let targets = [Target::parse(url).unwrap()];
    let outlets = open_all(&targets, Style::default(), &place).unwrap();
    let (told, lines) = std::sync::mpsc::channel();
    let tell = move |word: &Word| drop(told.send(word.to_string()));
    let writer = Writer::spawn(outlets, 1024, &place, tell).unwrap();
    for number in 0..count {
        writer.output().send(record(number), &emission());
    }
    let totals = writer.finish();
    Outcome {
        totals,
        told: lines.try_iter().collect(),
        spool,
    }
}

fn wanted(count: u64) -> BTreeSet<String> {
    (0..count).map(id).collect()
}

#[test]
fn whatever_an_elastic_receiver_does_every_record_is_there_in_the_end() {
    let script = [
        Mood::Status(429),
        Mood::Forgetful,
        Mood::Partial,
        Mood::Status(503),
        Mood::TooLarge(40),
        Mood::TooLarge(40),
        Mood::Silent,
    ];
    let mut server = Bulk::new(
        "elastic-moods",
        Speech::Elastic,
        &script,
        Mood::TooLarge(40),
    );
    server.start();
    let outcome = feed("elastic-moods", &server.url("&timeout=1s"), 300);
    assert_eq!(server.ids(), wanted(300));
    assert_eq!(
        (outcome.totals.outputs[0].written, outcome.totals.lost()),
        (300, 0)
    );
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.path == "/logs-rstscope.reset-default/_bulk")
    );
    // Said once when it failed, once when it worked again, however often in between.
    assert_eq!(outcome.told.len() % 2, 0, "{:?}", outcome.told);
    assert!(outcome.told[0].contains("429"), "{:?}", outcome.told);
    assert!(
        outcome.told[1].contains("works again"),
        "{:?}",
        outcome.told
    );
}

#[test]
fn only_the_records_that_were_sent_back_are_sent_again() {
    let mut server = Bulk::new(
        "elastic-partial",
        Speech::Elastic,
        &[Mood::Partial],
        Mood::Good,
    );
    server.start();
    feed("elastic-partial", &server.url(""), 9);
    let requests = server.requests();
    let first = &requests[0].ids;
    let again: Vec<&String> = first.iter().skip(1).step_by(3).collect();
    let second: Vec<&String> = requests[1].ids.iter().take(again.len()).collect();
    assert_eq!(second, again);
    assert_eq!(server.ids(), wanted(9));
}

#[test]
fn a_record_that_poisons_its_batch_is_found_and_kept_aside() {
    for speech in [Speech::Lines, Speech::Loki, Speech::ClickHouse] {
        let name = format!("poison-{speech:?}");
        let mut server = Bulk::new(&name, speech, &[], Mood::Poisoned("feed-37"));
        server.start();
        let outcome = feed(&name, &server.url(""), 100);
        let mut rest = wanted(100);
        rest.remove("feed-37");
        assert_eq!(server.ids(), rest, "{speech:?}");
        let row = &outcome.totals.outputs[0];
        assert_eq!((row.written, row.lost), (99, 1), "{speech:?}");
        let folder = fs::read_dir(&outcome.spool)
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let dead = fs::read_to_string(folder.path().join("dead.jsonl")).unwrap();
        assert_eq!(dead.lines().count(), 1);
        assert!(
            dead.contains("feed-37") && dead.contains("odd record"),
            "{dead}"
        );
        assert!(outcome.told[0].contains("dead.jsonl"), "{:?}", outcome.told);
    }
}

#[test]
fn a_wrong_password_or_path_loses_nothing_and_names_the_remedy() {
    for (status, word) in [
        (401, "token_file"),
        (403, "token_file"),
        (404, "path"),
        (302, "moved"),
    ] {
        let name = format!("wrong-{status}");
        let mut server = Bulk::new(&name, Speech::Lines, &[Mood::Status(status); 3], Mood::Good);
        server.start();
        let outcome = feed(&name, &server.url(""), 20);
        assert_eq!(server.ids(), wanted(20), "{status}");
        assert_eq!(outcome.totals.lost(), 0);
        assert!(outcome.told[0].contains(word), "{:?}", outcome.told);
    }
}

#[test]
fn splunk_is_believed_only_when_the_indexer_says_so() {
    let token = folder("splunk-token").join("token");
    fs::write(&token, "hush\n").unwrap();
    let more = format!("&token_file={}", token.display());
    let script = [Mood::Forgetful, Mood::Status(503), Mood::Status(200)];
    let mut server = Bulk::new("splunk", Speech::Splunk, &script, Mood::Good);
    server.start();
    let url = server.url(&more);
    let outcome = feed("splunk", &url, 200);
    assert_eq!(server.ids(), wanted(200));
    assert_eq!(
        (outcome.totals.outputs[0].written, outcome.totals.lost()),
        (200, 0)
    );
    let request = &server.requests()[0];
    assert_eq!(request.path, "/services/collector/event");
    assert_eq!(request.headers["authorization"], "Splunk hush");
    assert_eq!(request.headers["x-splunk-request-channel"].len(), 36);
    assert!(outcome.told.iter().all(|line| !line.contains("hush")));
}

#[test]
fn clickhouse_gets_the_same_token_for_the_same_batch() {
    let script = [Mood::Forgetful, Mood::Status(500)];
    let mut server = Bulk::new("clickhouse", Speech::ClickHouse, &script, Mood::Good);
    server.start();
    feed("clickhouse", &server.url("&table=logs.resets"), 50);
    let requests = server.requests();
    assert_eq!(server.ids(), wanted(50));
    let same: Vec<_> = requests
        .iter()
        .filter(|request| request.ids == requests[0].ids)
        .collect();
    assert_eq!(same.len(), 3);
    assert!(
        same.iter().all(|request| request.path == same[0].path),
        "{same:?}"
    );
    assert!(same[0].path.contains("logs.resets"));
}

#[test]
fn a_receiver_that_is_away_costs_nothing_and_the_next_start_delivers() {
    let mut server = Bulk::new("away", Speech::Lines, &[], Mood::Good);
    let url = server.url("&name=away");
    let spool = folder("away-spool");
    let place = Place {
        spool: Some(spool),
        patience: Patience::None,
        reopened: Arc::default(),
        inherits: None,
    };
    let mut left = Vec::new();
    for round in 0..3 {
        if round == 2 {
            server.start();
        }
        let targets = [Target::parse(&url).unwrap()];
        let outlets = open_all(&targets, Style::default(), &place).unwrap();
        let writer = Writer::spawn(outlets, 1024, &place, |_| {}).unwrap();
        for number in round * 100..round * 100 + 100 {
            writer.output().send(record(number), &emission());
        }
        let totals = writer.finish();
        assert_eq!(totals.lost(), 0);
        left.push(totals.outputs[0].left);
    }
    assert_eq!(left, [100, 200, 0]);
    assert_eq!(server.ids(), wanted(300));
}

fn nothing_is_lost(name: &str, speech: Speech, more: &str) {
    let mut server = Bulk::new(name, speech, &[], Mood::Random);
    let url = server.url(more);
    play(name, &url, &mut server);
    server.set_mood(Mood::Good);
}

#[test]
fn elastic_gets_every_record_though_both_are_killed() {
    nothing_is_lost("elastic", Speech::Elastic, "");
}

#[test]
fn splunk_gets_every_record_though_both_are_killed() {
    let token = folder("splunk-kill-token").join("token");
    fs::write(&token, "hush\n").unwrap();
    let more = format!("&token_file={}", token.display());
    nothing_is_lost("splunk-kill", Speech::Splunk, &more);
}

#[test]
fn clickhouse_gets_every_record_though_both_are_killed() {
    nothing_is_lost("clickhouse-kill", Speech::ClickHouse, "");
}

#[test]
fn loki_gets_every_record_though_both_are_killed() {
    nothing_is_lost("loki-kill", Speech::Loki, "");
}

#[test]
fn json_lines_by_post_get_every_record_though_both_are_killed() {
    nothing_is_lost("lines-kill", Speech::Lines, "");
}
