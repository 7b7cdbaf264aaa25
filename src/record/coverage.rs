//! The coverage record: what the sensor watched in one interval on one interface, as fields and as a
//! sentence. What it holds is docs/record.md.

use super::emission::Emission;
use super::json::{event_id, observer};
use super::one_line::one_line;
use super::writer::Object;
use super::{CoverageRecord, ECS_VERSION, SCHEMA_VERSION};

/// All fields of a coverage record.
pub(super) fn coverage_fields(o: &mut Object, record: &CoverageRecord, emission: &Emission) {
    o.time("@timestamp", emission.wall(record.end));
    o.object("ecs", |o| o.word("version", ECS_VERSION));
    o.text("message", &coverage_message(record, emission));
    o.object("event", |o| {
        o.word("kind", "metric");
        o.texts("category", &["network"]);
        o.texts("type", &["info"]);
        o.word("action", "sensor-coverage");
        o.time("start", emission.wall(record.start));
        o.time("end", emission.wall(record.end));
        o.number("duration", record.end.since(record.start));
        o.word("dataset", "rstscope.coverage");
        o.word("module", "rstscope");
        event_id(o, record.sequence, emission);
    });
    o.object("observer", |o| {
        observer(o, &emission.observer, Some(record.interface), None)
    });
    o.object("rstscope", |o| coverage(o, record));
}

/// What ECS has no name for; other formats carry it as it stands.
pub(super) fn coverage(o: &mut Object, record: &CoverageRecord) {
    o.text("schema", SCHEMA_VERSION);
    o.object("coverage", |o| {
        o.number("observed", record.observed);
        o.number_if("passed", record.passed);
        o.number("bypassed", record.bypassed);
        o.number("copied", record.copied);
        o.number("lost", record.lost);
        o.flag_if("complete", Some(record.complete));
    });
}

/// What a coverage record says to a person.
pub(super) fn coverage_message(record: &CoverageRecord, emission: &Emission) -> String {
    let interface = emission
        .observer
        .interface(record.interface)
        .unwrap_or("the interface");
    let watched = if record.complete {
        "watched all the time"
    } else {
        "had gaps"
    };
    let passed = record
        .passed
        .map(|passed| format!(", {passed} passed"))
        .unwrap_or_default();
    one_line(&format!(
        "{interface}: {watched}; {} frames looked at{passed}, {} bypassed, {} headers copied, \
         {} lost to the sensor",
        record.observed, record.bypassed, record.copied, record.lost
    ))
    .into_owned()
}
