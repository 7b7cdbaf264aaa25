//! A piece of evidence as JSON. Its name, its group, whom it favors and what it weighs are known beforehand for
//! every kind that the table of weights has: the compiler puts them together, and a record copies them in one
//! piece. A fact of another weight than the table's is written field by field.

use super::writer::{Key, Object, key};
use crate::evidence::{Evidence, Favors, Group, Value};
use crate::verdict::{WEIGHTS, Weight, weight_number};

/// Observed and expected are texts even where they are numbers: one field has one type, or a store
/// that took the first record's type refuses the others.
pub(super) fn fact(item: &Evidence, o: &mut Object) {
    match start_of(item) {
        Some(start) => o.ready_start(&start.text, usize::from(start.len)),
        None => fields(item, o),
    }
    value(o, key!("observed"), item.observed.as_ref());
    value(o, key!("expected"), item.expected.as_ref());
}

/// The fields that every fact has, one by one.
#[cold]
fn fields(item: &Evidence, o: &mut Object) {
    o.word(key!("name"), item.name);
    o.word(key!("group"), Group::name(item.group));
    o.word(key!("favors"), Favors::name(item.favors));
    o.fraction(key!("weight_db"), item.weight_db, 2);
}

#[inline(always)]
fn value(o: &mut Object, key: Key, value: Option<&Value>) {
    match value {
        Some(Value::Number(number)) => o.number_as_text(key, *number),
        Some(Value::Text(text)) => o.line(key, text),
        None => {}
    }
}

/// The same fields of a weighed fact, if it is one.
#[inline]
fn start_of(item: &Evidence) -> Option<&'static Start> {
    let number = weight_number(item.name)?;
    let Weight { kind, db, .. } = WEIGHTS.get(number)?;
    let is_as_weighed =
        *db == item.weight_db && (kind.group, kind.favors) == (item.group, item.favors);
    STARTS.get(number).filter(|_| is_as_weighed)
}

/// Bytes of the longest start, and as many as are copied without a call.
const ROOM: usize = 112;

/// How a fact begins, and what does not count.
struct Start {
    text: [u8; ROOM],
    len: u8,
}

/// By the numbers of [`WEIGHTS`].
static STARTS: [Start; WEIGHTS.len()] = {
    let mut starts = [const {
        Start {
            text: [b' '; ROOM],
            len: 0,
        }
    }; WEIGHTS.len()];
    let mut at = 0;
    while at < WEIGHTS.len() {
        starts[at] = start(&WEIGHTS[at]);
        at += 1;
    }
    starts
};

const fn start(weight: &Weight) -> Start {
    let start = Start {
        text: [b' '; ROOM],
        len: 0,
    };
    let start = with(start, b"\"name\":\"");
    let start = with(start, weight.kind.name.as_bytes());
    let start = with(start, b"\",\"group\":\"");
    let start = with(start, weight.kind.group.name().as_bytes());
    let start = with(start, b"\",\"favors\":\"");
    let start = with(start, weight.kind.favors.name().as_bytes());
    let start = with(start, b"\",\"weight_db\":");
    let start = with_weight(start, weight.db);
    with(start, b",")
}

const fn with(mut start: Start, more: &[u8]) -> Start {
    let mut at = 0;
    while at < more.len() {
        start.text[start.len as usize] = more[at];
        start.len += 1;
        at += 1;
    }
    start
}

const fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
}

/// Two digits behind the point, but no zero at the end where another digit stands before it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "strengths, below 100 dB by the assertion"
)]
const fn with_weight(start: Start, db: f32) -> Start {
    assert!(db >= 0.0 && db < 100.0);
    let hundredths = (db * 100.0 + 0.5) as u16;
    let start = match hundredths / 1000 {
        0 => start,
        tens => with(start, &[digit(tens)]),
    };
    let start = with(
        start,
        &[digit(hundredths / 100), b'.', digit(hundredths / 10)],
    );
    match hundredths % 10 {
        0 => start,
        last => with(start, &[digit(last)]),
    }
}

#[cfg(test)]
mod tests {
    use super::{fact, fields, start_of, value};
    use crate::evidence::Evidence;
    use crate::record::writer::{key, object};
    use crate::verdict::WEIGHTS;

    #[test]
    fn every_kind_begins_as_it_would_field_by_field() {
        for weight in WEIGHTS {
            let known = Evidence {
                name: weight.kind.name,
                group: weight.kind.group,
                favors: weight.kind.favors,
                weight_db: weight.db,
                observed: Some(7_i64.into()),
                expected: Some("a \"b\"".into()),
            };
            assert!(start_of(&known).is_some(), "{}", known.name);
            let slowly = object(|o| {
                fields(&known, o);
                value(o, key!("observed"), known.observed.as_ref());
                value(o, key!("expected"), known.expected.as_ref());
            });
            assert_eq!(object(|o| fact(&known, o)), slowly);
            let other = Evidence {
                weight_db: weight.db + 0.125,
                ..known
            };
            assert!(start_of(&other).is_none());
            assert_ne!(object(|o| fact(&other, o)), slowly);
        }
    }
}
