//! The coverage record: what the sensor watched in one interval on one interface, as fields and as a
//! sentence. What it holds is docs/record.md.

use super::emission::Emission;
use super::json::{ecs, event_id, observer};
use super::one_line::one_line;
use super::writer::{Object, key};
use super::{CoverageRecord, SCHEMA_VERSION};
use crate::amount::counted;

/// All fields of a coverage record.
pub(super) fn coverage_fields(o: &mut Object, record: &CoverageRecord, emission: &Emission) {
    o.time(key!("@timestamp"), emission.wall(record.end));
    ecs(o);
    o.text(key!("message"), &coverage_message(record, emission));
    o.object(key!("event"), |o| {
        o.ready(
            r#""kind":"metric","category":["network"],"type":["info"],"action":"sensor-coverage","#,
        );
        o.time(key!("start"), emission.wall(record.start));
        o.time(key!("end"), emission.wall(record.end));
        o.number(key!("duration"), record.end.since(record.start));
        o.ready(r#""dataset":"rstscope.coverage","module":"rstscope","#);
        event_id(o, record.sequence, emission);
    });
    o.object(key!("observer"), |o| {
        observer(o, &emission.observer, Some(record.interface), None)
    });
    o.object(key!("rstscope"), |o| coverage(o, record));
}

/// What ECS has no name for; other formats carry it as it stands.
pub(super) fn coverage(o: &mut Object, record: &CoverageRecord) {
    o.text(key!("schema"), SCHEMA_VERSION);
    o.object(key!("coverage"), |o| {
        o.number(key!("observed"), record.observed);
        o.number_if(key!("passed"), record.passed);
        o.number(key!("bypassed"), record.bypassed);
        o.number(key!("copied"), record.copied);
        o.number(key!("lost"), record.lost);
        o.flag_if(key!("complete"), Some(record.complete));
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
        "{interface}: {watched}; {} looked at{passed}, {} bypassed, {} copied, {} lost to \
         the sensor",
        counted(record.observed, "frame"),
        record.bypassed,
        counted(record.copied, "header"),
        record.lost
    ))
    .into_owned()
}
