//! JSON objects as records need them, written as they are told: fields in that order, absent ones left
//! out, empty objects too. No tree is built and no text is made only to be copied, since a capture may
//! hold a hundred thousand reset flows. Texts that need escapes are `serde_json`'s; a number that JSON
//! has not (NaN, infinity) is absent. A key that is told twice would stand there twice.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::Range;

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

/// What stands between a key and its value.
#[derive(Debug, Clone, Copy)]
pub enum Opening {
    /// Nothing: a number, or a text that brings its quotes.
    Bare,
    /// The quote of a text.
    Quote,
    /// The bracket of an object.
    Object,
    /// That of a list.
    List,
}

/// A key that can be written: this program's own words, in which nothing needs an escape.
pub trait Lead: Copy {
    /// Writes it and what stands between it and its value.
    fn put(self, out: &mut Vec<u8>, opening: Opening);
}

impl Lead for &'static str {
    #[inline(always)]
    fn put(self, out: &mut Vec<u8>, opening: Opening) {
        debug_assert!(is_plain(self), "{self:?}");
        out.push(b'"');
        out.extend_from_slice(self.as_bytes());
        out.extend_from_slice(match opening {
            Opening::Bare => b"\":",
            Opening::Quote => b"\":\"",
            Opening::Object => b"\":{",
            Opening::List => b"\":[",
        });
    }
}

/// A key with all that may stand around it, put together by the compiler: see [`key`].
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub bare: &'static str,
    pub quote: &'static str,
    pub object: &'static str,
    pub list: &'static str,
}

impl Lead for Key {
    #[inline(always)]
    fn put(self, out: &mut Vec<u8>, opening: Opening) {
        // Each branch copies a length that is known there.
        match opening {
            Opening::Bare => out.extend_from_slice(self.bare.as_bytes()),
            Opening::Quote => out.extend_from_slice(self.quote.as_bytes()),
            Opening::Object => out.extend_from_slice(self.object.as_bytes()),
            Opening::List => out.extend_from_slice(self.list.as_bytes()),
        }
    }
}

/// A key that is copied in one piece of known length, for records that are written by the hundred thousand.
macro_rules! key {
    ($name:literal) => {
        $crate::record::writer::Key {
            bare: concat!("\"", $name, "\":"),
            quote: concat!("\"", $name, "\":\""),
            object: concat!("\"", $name, "\":{"),
            list: concat!("\"", $name, "\":["),
        }
    };
}
pub(super) use key;

/// One object under construction: what is written so far, its own brace included.
#[derive(Debug)]
pub struct Object {
    text: Vec<u8>,
    second: Second,
}

/// Where something stands that was written, to be written again.
#[derive(Debug, Clone, Default)]
pub struct Written(Range<usize>);

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
        second: Second::default(),
    };
    object.text.reserve(USUAL_BYTES);
    object.text.push(b'{');
    fields(&mut object);
    object.close();
    object.text.pop();
    *text = object.text;
}

impl Object {
    /// Fields that are the same every time, as they stand, each with a comma behind it.
    #[inline(always)]
    pub fn ready(&mut self, fields: &'static str) {
        debug_assert!(fields.ends_with(','), "{fields:?}");
        self.text.extend_from_slice(fields.as_bytes());
    }

    /// Fields that are the same every time, each with a comma behind it, of which `len` bytes count: all are
    /// copied, which takes no call, and cut off again.
    #[inline(always)]
    pub fn ready_start<const N: usize>(&mut self, fields: &[u8; N], len: usize) {
        let whole = self.text.len() + len.min(N);
        self.text.extend_from_slice(fields);
        self.text.truncate(whole);
    }

    /// What is written between quotes: ASCII that needs no escape.
    ///
    /// It and the others like it are part of their callers, which know the key: a copy of known length
    /// takes no call. That makes a record in half the time.
    #[inline(always)]
    fn quoted(&mut self, key: impl Lead, write: impl FnOnce(&mut Vec<u8>)) {
        key.put(&mut self.text, Opening::Quote);
        write(&mut self.text);
        self.text.extend_from_slice(b"\",");
    }

    /// What is written without quotes.
    #[inline(always)]
    fn bare(&mut self, key: impl Lead, write: impl FnOnce(&mut Vec<u8>)) {
        key.put(&mut self.text, Opening::Bare);
        write(&mut self.text);
        self.text.push(b',');
    }

    /// A text.
    #[inline(always)]
    pub fn text(&mut self, key: impl Lead, value: &str) {
        self.bare(key, |out| quote(out, value));
    }

    /// A text, where it is known.
    #[inline(always)]
    pub fn text_if(&mut self, key: impl Lead, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// One of this program's own words, in which nothing needs an escape.
    #[inline(always)]
    pub fn word(&mut self, key: impl Lead, value: &'static str) {
        debug_assert!(is_plain(value), "{value:?}");
        self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
    }

    /// ASCII that needs no escape, of known length.
    #[inline(always)]
    pub fn plain<const N: usize>(&mut self, key: impl Lead, text: &[u8; N]) {
        debug_assert!(are_plain(text), "{text:?}");
        self.quoted(key, |out| out.extend_from_slice(text));
    }

    /// A text as one line: without what ends a line for somebody.
    #[inline(always)]
    pub fn line(&mut self, key: impl Lead, value: &str) {
        if is_plain(value) {
            self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
        } else {
            self.text(key, &one_line(value));
        }
    }

    /// A text that ends with a dash and a number.
    #[inline(always)]
    pub fn numbered(&mut self, key: impl Lead, prefix: &str, number: u64) {
        key.put(&mut self.text, Opening::Bare);
        quote(&mut self.text, prefix);
        // Before the quote that ends it.
        self.text.pop();
        self.text.push(b'-');
        digits::decimal(&mut self.text, number);
        self.text.extend_from_slice(b"\",");
    }

    /// An address.
    #[inline(always)]
    pub fn address(&mut self, key: impl Lead, address: IpAddr) {
        self.quoted(key, |out| digits::address(out, address));
    }

    /// An Ethernet address.
    #[inline(always)]
    pub fn mac(&mut self, key: impl Lead, mac: Mac) {
        self.quoted(key, |out| digits::mac(out, mac));
    }

    /// A time of day.
    #[inline(always)]
    pub fn time(&mut self, key: impl Lead, wall: Wall) {
        let Some(nanos) = wall.nanos() else {
            return self.shown(key, wall);
        };
        key.put(&mut self.text, Opening::Quote);
        self.second.time(&mut self.text, nanos);
        self.text.extend_from_slice(b"\",");
    }

    /// A whole number as a text.
    #[inline(always)]
    pub fn number_as_text(&mut self, key: impl Lead, value: i64) {
        self.quoted(key, |out| digits::signed(out, value));
    }

    /// Control bits as letters.
    #[inline(always)]
    pub fn flags(&mut self, key: impl Lead, flags: Flags) {
        // Eight letters, none of which needs two bytes.
        let letters = flags.each_letter().filter_map(|c| u8::try_from(c).ok());
        self.quoted(key, |out| letters.for_each(|letter| out.push(letter)));
    }

    /// What prints as a text.
    pub fn shown(&mut self, key: impl Lead, value: impl Display) {
        key.put(&mut self.text, Opening::Quote);
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
        self.text.push(b',');
    }

    /// A whole number.
    #[inline(always)]
    pub fn number(&mut self, key: impl Lead, value: impl Into<i128>) {
        let value = value.into();
        // Nearly all are of this size, and 128 bits take four times as long to print.
        self.bare(key, |out| match u64::try_from(value) {
            Ok(value) => digits::decimal(out, value),
            Err(_) => digits::shown(out, value),
        });
    }

    /// A whole number, where it is known.
    #[inline(always)]
    pub fn number_if(&mut self, key: impl Lead, value: Option<impl Into<i128>>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    /// A fraction, to `digits` places, always with a decimal point, so that a store that guesses
    /// types from the first record does not take it for a whole number.
    #[inline(always)]
    pub fn fraction(&mut self, key: impl Lead, value: f32, places: u8) {
        let units = scaled(value, places);
        if units.abs() < EXACT {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole and far below 2^63 by the condition"
            )]
            self.bare(key, |out| digits::fraction(out, units as i64, places));
        } else if let Some(number) = Number::from_f64(rounded(value, places)) {
            self.bare(key, |out| digits::shown(out, number));
        }
    }

    /// Nanoseconds as seconds with six digits behind the point: the times of Zeek.
    pub fn seconds(&mut self, key: impl Lead, nanos: i128) {
        let micros = nanos.div_euclid(1000).max(0);
        let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
        self.bare(key, |out| {
            digits::shown(out, format_args!("{whole}.{rest:06}"));
        });
    }

    /// Yes or no, where it is known.
    #[inline(always)]
    pub fn flag_if(&mut self, key: impl Lead, value: Option<bool>) {
        if let Some(value) = value {
            let text: &[u8] = if value { b"true" } else { b"false" };
            self.bare(key, |out| out.extend_from_slice(text));
        }
    }

    /// A list of texts.
    #[inline(always)]
    pub fn texts(&mut self, key: impl Lead, values: &[&str]) {
        self.bare(key, |out| {
            list(out, values, |out, value| quote(out, value));
        });
    }

    /// A list of whole numbers.
    pub fn numbers(&mut self, key: impl Lead, values: &[u64]) {
        self.bare(key, |out| {
            list(out, values, |out, value| digits::decimal(out, *value));
        });
    }

    /// An object within; left out when it gets no field.
    #[inline(always)]
    pub fn object(&mut self, key: impl Lead, fields: impl FnOnce(&mut Object)) {
        let before = self.text.len();
        key.put(&mut self.text, Opening::Object);
        fields(self);
        if self.text.last() == Some(&b'{') {
            self.text.truncate(before);
        } else {
            self.close();
        }
    }

    /// A list of objects; left out when it is empty.
    #[inline(always)]
    pub fn objects<T>(
        &mut self,
        key: impl Lead,
        items: &[T],
        mut fields: impl FnMut(&T, &mut Object),
    ) {
        if items.is_empty() {
            return;
        }
        key.put(&mut self.text, Opening::List);
        for item in items {
            self.text.push(b'{');
            fields(item, self);
            self.close();
        }
        self.end(b']');
    }

    /// Fields, and where they stand.
    #[inline(always)]
    pub fn written(&mut self, fields: impl FnOnce(&mut Object)) -> Written {
        let start = self.text.len();
        fields(self);
        Written(start..self.text.len())
    }

    /// The same fields again.
    #[inline(always)]
    pub fn again(&mut self, fields: &Written) {
        debug_assert!(fields.0.end <= self.text.len(), "{fields:?}");
        self.text.extend_from_within(fields.0.clone());
    }

    /// The end of an object.
    #[inline(always)]
    fn close(&mut self) {
        if self.text.last() == Some(&b'{') {
            self.text.extend_from_slice(b"},");
        } else {
            self.end(b'}');
        }
    }

    /// A bracket in place of the last field's comma.
    #[inline(always)]
    fn end(&mut self, bracket: u8) {
        if let Some(last) = self.text.last_mut() {
            *last = bracket;
        }
        self.text.push(b',');
    }
}

/// Values between brackets.
#[inline(always)]
fn list<T>(out: &mut Vec<u8>, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, value);
    }
    out.push(b']');
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
        assert_eq!(object(|_| {}), "{}");
        let empty_within = object(|o| o.objects("a", &[1, 2], |_, _| {}));
        assert_eq!(empty_within, r#"{"a":[{},{}]}"#);
    }

    #[test]
    fn a_key_is_the_same_in_one_piece_and_in_several() {
        fn fields(o: &mut super::Object, key: impl super::Lead) {
            o.number(key, 7);
            o.word(key, "w");
            o.objects(key, &[1], |_, o| o.flag_if(key, Some(false)));
            o.object(key, |o| o.shown(key, "\""));
            o.object(key, |_| {});
        }
        let text = object(|o| fields(o, super::key!("k")));
        assert_eq!(text, object(|o| fields(o, "k")));
        let meant = r#"{"k":7,"k":"w","k":[{"k":false}],"k":{"k":"\""}}"#;
        assert_eq!(text, meant);
    }

    #[test]
    fn what_was_written_can_be_written_again() {
        let text = object(|o| {
            let mut fields = o.written(|_| {});
            o.object("a", |o| {
                fields = o.written(|o| {
                    o.number("x", 1);
                    o.ready(r#""y":2,"#);
                });
            });
            o.object("b", |o| o.again(&fields));
        });
        assert_eq!(text, r#"{"a":{"x":1,"y":2},"b":{"x":1,"y":2}}"#);
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
