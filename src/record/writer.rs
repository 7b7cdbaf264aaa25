//! JSON objects as records need them, written as they are told: fields in that order, absent ones left
//! out, empty objects too. No tree is built and no text is made only to be copied, since a capture may
//! hold a hundred thousand reset flows. Texts that need escapes are `serde_json`'s; a number that JSON
//! has not (NaN, infinity) is absent. A key that is told twice would stand there twice.

use std::fmt::Display;
use std::net::IpAddr;

use serde_json::{Number, Value};

use super::digits::{self, Second};
use super::emission::Wall;
use super::one_line::{is_unfit, one_line};
use crate::wire::{Flags, Mac};

/// Bytes of a usual record.
const USUAL_BYTES: usize = 2048;

/// Fractions whose digits are below this are written as whole numbers with a point: up to fifteen
/// digits no other fraction has the same nearest double.
const EXACT: f64 = 1e15;

/// One object under construction: what is written so far, its own brace included.
#[derive(Debug)]
pub struct Object {
    text: Vec<u8>,
    /// It has no field yet.
    is_empty: bool,
    second: Second,
}

/// Writes one object as text.
pub fn object(fields: impl FnOnce(&mut Object)) -> String {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    append_object(&mut text, fields);
    digits::into_text(text)
}

/// Writes one object at the end of `text`.
pub fn append_object(text: &mut Vec<u8>, fields: impl FnOnce(&mut Object)) {
    let mut object = Object {
        text: std::mem::take(text),
        is_empty: true,
        second: Second::default(),
    };
    object.text.reserve(USUAL_BYTES);
    object.text.push(b'{');
    fields(&mut object);
    object.text.push(b'}');
    *text = object.text;
}

impl Object {
    /// Keys are this program's own words: nothing in them needs an escape.
    ///
    /// It and those that call it are part of their callers, which know the key: a copy of known length
    /// takes no call. That makes a record in half the time.
    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        debug_assert!(is_plain(key), "{key:?}");
        if !self.is_empty {
            self.text.push(b',');
        }
        self.is_empty = false;
        self.text.push(b'"');
        self.text.extend_from_slice(key.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    /// What is written between quotes: ASCII that needs no escape.
    #[inline(always)]
    fn quoted(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.text.push(b'"');
        write(&mut self.text);
        self.text.push(b'"');
    }

    /// A text.
    #[inline(always)]
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        quote(&mut self.text, value);
    }

    /// A text, where it is known.
    #[inline(always)]
    pub fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// One of this program's own words, in which nothing needs an escape.
    #[inline(always)]
    pub fn word(&mut self, key: &'static str, value: &'static str) {
        debug_assert!(is_plain(value), "{value:?}");
        self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
    }

    /// ASCII that needs no escape, of known length.
    #[inline(always)]
    pub fn plain<const N: usize>(&mut self, key: &'static str, text: &[u8; N]) {
        debug_assert!(are_plain(text), "{text:?}");
        self.quoted(key, |out| out.extend_from_slice(text));
    }

    /// A text as one line: without what ends a line for somebody.
    #[inline(always)]
    pub fn line(&mut self, key: &'static str, value: &str) {
        if is_plain(value) {
            self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
        } else {
            self.text(key, &one_line(value));
        }
    }

    /// A text that ends with a dash and a number.
    #[inline(always)]
    pub fn numbered(&mut self, key: &'static str, prefix: &str, number: u64) {
        self.key(key);
        quote(&mut self.text, prefix);
        // Before the quote that ends it.
        self.text.pop();
        self.text.push(b'-');
        digits::decimal(&mut self.text, number);
        self.text.push(b'"');
    }

    /// An address.
    #[inline(always)]
    pub fn address(&mut self, key: &'static str, address: IpAddr) {
        self.quoted(key, |out| digits::address(out, address));
    }

    /// An Ethernet address.
    #[inline(always)]
    pub fn mac(&mut self, key: &'static str, mac: Mac) {
        self.quoted(key, |out| digits::mac(out, mac));
    }

    /// A time of day.
    #[inline(always)]
    pub fn time(&mut self, key: &'static str, wall: Wall) {
        let Some(nanos) = wall.nanos() else {
            return self.shown(key, wall);
        };
        let mut second = self.second;
        self.quoted(key, |out| second.time(out, nanos));
        self.second = second;
    }

    /// A whole number as a text.
    #[inline(always)]
    pub fn number_as_text(&mut self, key: &'static str, value: i64) {
        self.quoted(key, |out| digits::signed(out, value));
    }

    /// Control bits as letters.
    #[inline(always)]
    pub fn flags(&mut self, key: &'static str, flags: Flags) {
        // Eight letters, none of which needs two bytes.
        let letters = flags.each_letter().filter_map(|c| u8::try_from(c).ok());
        self.quoted(key, |out| letters.for_each(|letter| out.push(letter)));
    }

    /// What prints as a text.
    pub fn shown(&mut self, key: &'static str, value: impl Display) {
        self.key(key);
        self.text.push(b'"');
        let start = self.text.len();
        digits::shown(&mut self.text, value);
        let written = self.text.get(start..).unwrap_or_default();
        if are_plain(written) {
            self.text.push(b'"');
        } else {
            let written = String::from_utf8_lossy(written).into_owned();
            self.text.truncate(start - 1);
            quote(&mut self.text, &written);
        }
    }

    /// A whole number.
    #[inline(always)]
    pub fn number(&mut self, key: &'static str, value: impl Into<i128>) {
        let value = value.into();
        self.key(key);
        // Nearly all are of this size, and 128 bits take four times as long to print.
        match u64::try_from(value) {
            Ok(value) => digits::decimal(&mut self.text, value),
            Err(_) => digits::shown(&mut self.text, value),
        }
    }

    /// A whole number, where it is known.
    #[inline(always)]
    pub fn number_if(&mut self, key: &'static str, value: Option<impl Into<i128>>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    /// A fraction, to `digits` places, always with a decimal point, so that a store that guesses
    /// types from the first record does not take it for a whole number.
    #[inline(always)]
    pub fn fraction(&mut self, key: &'static str, value: f32, places: u8) {
        let units = scaled(value, places);
        if units.abs() < EXACT {
            self.key(key);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole and far below 2^63 by the condition"
            )]
            digits::fraction(&mut self.text, units as i64, places);
        } else if let Some(number) = Number::from_f64(rounded(value, places)) {
            self.key(key);
            digits::shown(&mut self.text, number);
        }
    }

    /// Nanoseconds as seconds with six digits behind the point: the times of Zeek.
    pub fn seconds(&mut self, key: &'static str, nanos: i128) {
        let micros = nanos.div_euclid(1000).max(0);
        self.key(key);
        let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
        digits::shown(&mut self.text, format_args!("{whole}.{rest:06}"));
    }

    /// Yes or no, where it is known.
    #[inline(always)]
    pub fn flag_if(&mut self, key: &'static str, value: Option<bool>) {
        if let Some(value) = value {
            self.key(key);
            self.text
                .extend_from_slice(if value { b"true" } else { b"false" });
        }
    }

    /// A list of texts.
    #[inline(always)]
    pub fn texts(&mut self, key: &'static str, values: &[&str]) {
        self.key(key);
        self.text.push(b'[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.text.push(b',');
            }
            quote(&mut self.text, value);
        }
        self.text.push(b']');
    }

    /// A list of whole numbers.
    pub fn numbers(&mut self, key: &'static str, values: &[u64]) {
        self.key(key);
        self.text.push(b'[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.text.push(b',');
            }
            digits::decimal(&mut self.text, *value);
        }
        self.text.push(b']');
    }

    /// An object within; left out when it gets no field.
    #[inline(always)]
    pub fn object(&mut self, key: &'static str, fields: impl FnOnce(&mut Object)) {
        let (before, was_empty) = (self.text.len(), self.is_empty);
        self.key(key);
        self.text.push(b'{');
        self.is_empty = true;
        fields(self);
        if self.is_empty {
            self.text.truncate(before);
            self.is_empty = was_empty;
        } else {
            self.text.push(b'}');
        }
    }

    /// A list of objects; left out when it is empty.
    #[inline(always)]
    pub fn objects<T>(
        &mut self,
        key: &'static str,
        items: &[T],
        mut fields: impl FnMut(&T, &mut Object),
    ) {
        if items.is_empty() {
            return;
        }
        self.key(key);
        for (at, item) in items.iter().enumerate() {
            self.text
                .extend_from_slice(if at == 0 { b"[{" } else { b",{" });
            self.is_empty = true;
            fields(item, self);
            self.text.push(b'}');
        }
        self.text.push(b']');
        self.is_empty = false;
    }
}

/// `value` in units of so many decimal places.
fn scaled(value: f32, places: u8) -> f64 {
    (f64::from(value) * scale(places)).round()
}

const fn scale(places: u8) -> f64 {
    let mut scale = 1.0;
    let mut place = 0;
    while place < places {
        scale *= 10.0;
        place += 1;
    }
    scale
}

/// `value` to so many decimal places.
pub fn rounded(value: f32, digits: u8) -> f64 {
    // Adding zero turns a negative zero into zero.
    scaled(value, digits) / scale(digits) + 0.0
}

/// Printable ASCII without quote and backslash: stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    are_plain(text.as_bytes())
}

fn are_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, b| {
        plain & matches!(b, b' '..=b'~') & (*b != b'"') & (*b != b'\\')
    })
}

fn quote(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // What JSON lets stand and a terminal or a log viewer does not (DEL, C1, line separators) as
    // escapes too.
    let mut utf8 = [0; 4];
    for c in Value::from(text).to_string().chars() {
        if is_unfit(c) {
            digits::shown(out, format_args!("\\u{:04x}", u32::from(c)));
        } else {
            out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn absent_fields_and_empty_objects_leave_nothing() {
        let text = object(|o| {
            o.text("a", "x");
            o.text_if("b", None);
            o.object("c", |o| o.number_if("d", None::<u8>));
            o.objects("e", &[] as &[u8], |_, _| {});
            o.fraction("f", f32::NAN, 2);
            o.object("g", |o| {
                o.object("h", |o| o.flag_if("i", Some(true)));
                o.object("j", |_| {});
            });
            o.texts("k", &[]);
        });
        assert_eq!(text, r#"{"a":"x","g":{"h":{"i":true}},"k":[]}"#);
    }

    #[test]
    fn any_text_survives_a_reader() {
        let hostile: String = (0..0x2070_u32).filter_map(char::from_u32).collect();
        let text = object(|o| o.text("any", &hostile));
        assert!(text.chars().all(|c| !super::is_unfit(c)), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["any"], hostile);
    }

    #[test]
    fn numbers_keep_all_their_digits_and_fractions_their_point() {
        let text = object(|o| {
            o.number("max", u64::MAX);
            o.number("min", i32::MIN);
            o.fraction("one", 1.0, 4);
            o.fraction("some", 0.97, 4);
            o.fraction("small", 0.000_001, 4);
            o.fraction("less", -0.000_001, 4);
            o.seconds("time", 1_777_293_866_833_123_999);
            o.seconds("before", -1);
        });
        assert_eq!(
            text,
            "{\"max\":18446744073709551615,\"min\":-2147483648,\"one\":1.0,\"some\":0.97,\
             \"small\":0.0,\"less\":0.0,\"time\":1777293866.833123,\"before\":0.000000}"
        );
    }
}
