//! JSON objects as records need them, written as they are told: fields in that order, absent ones left
//! out, empty objects too. No tree is built, since a capture may hold a hundred thousand reset flows.
//! Texts that need escapes and fractions are `serde_json`'s; a number that JSON has not (NaN,
//! infinity) is absent. A key that is told twice would stand there twice.

use std::fmt::{Display, Write};

use serde_json::{Number, Value};

use super::json::is_unfit;

/// Bytes of a usual record.
const USUAL_BYTES: usize = 2048;

/// One object under construction: what is written so far, its own brace included.
#[derive(Debug)]
pub struct Object {
    text: String,
    /// It has no field yet.
    is_empty: bool,
}

/// Writes one object as text.
pub fn object(fields: impl FnOnce(&mut Object)) -> String {
    let mut object = Object {
        text: String::with_capacity(USUAL_BYTES),
        is_empty: true,
    };
    object.text.push('{');
    fields(&mut object);
    object.text.push('}');
    object.text
}

impl Object {
    /// Keys are this program's own words: nothing in them needs an escape.
    fn key(&mut self, key: &'static str) {
        debug_assert!(is_plain(key), "{key:?}");
        self.text.push_str(if self.is_empty { "\"" } else { ",\"" });
        self.is_empty = false;
        self.text.push_str(key);
        self.text.push_str("\":");
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        quote(&mut self.text, value);
    }

    /// A text, where it is known.
    pub fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// What prints as a text: an address, a time.
    pub fn shown(&mut self, key: &'static str, value: impl Display) {
        self.key(key);
        self.text.push('"');
        let start = self.text.len();
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
        let written = self.text.get(start..).unwrap_or_default();
        if is_plain(written) {
            self.text.push('"');
        } else {
            let written = written.to_owned();
            self.text.truncate(start - 1);
            quote(&mut self.text, &written);
        }
    }

    /// A whole number.
    pub fn number(&mut self, key: &'static str, value: impl Into<i128>) {
        let value = value.into();
        self.key(key);
        let mut digits = itoa::Buffer::new();
        // Nearly all are of this size, and 128 bits take four times as long to print.
        self.text.push_str(match u64::try_from(value) {
            Ok(value) => digits.format(value),
            Err(_) => digits.format(value),
        });
    }

    /// A whole number, where it is known.
    pub fn number_if(&mut self, key: &'static str, value: Option<impl Into<i128>>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    /// A fraction, to `digits` places, always with a decimal point, so that a store that guesses
    /// types from the first record does not take it for a whole number.
    pub fn fraction(&mut self, key: &'static str, value: f32, digits: u8) {
        if let Some(number) = Number::from_f64(rounded(value, digits)) {
            self.key(key);
            let _ = write!(self.text, "{number}");
        }
    }

    /// Nanoseconds as seconds with six digits behind the point: the times of Zeek.
    pub fn seconds(&mut self, key: &'static str, nanos: i128) {
        let micros = nanos.div_euclid(1000).max(0);
        self.key(key);
        let _ = write!(
            self.text,
            "{}.{:06}",
            micros / 1_000_000,
            micros % 1_000_000
        );
    }

    /// Yes or no, where it is known.
    pub fn flag_if(&mut self, key: &'static str, value: Option<bool>) {
        if let Some(value) = value {
            self.key(key);
            self.text.push_str(if value { "true" } else { "false" });
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &'static str, values: &[&str]) {
        self.key(key);
        self.text.push('[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            quote(&mut self.text, value);
        }
        self.text.push(']');
    }

    /// A list of whole numbers.
    pub fn numbers(&mut self, key: &'static str, values: &[u64]) {
        self.key(key);
        for (at, value) in values.iter().enumerate() {
            let _ = write!(self.text, "{}{value}", if at > 0 { ',' } else { '[' });
        }
        self.text
            .push_str(if values.is_empty() { "[]" } else { "]" });
    }

    /// An object within; left out when it gets no field.
    pub fn object(&mut self, key: &'static str, fields: impl FnOnce(&mut Object)) {
        let (before, was_empty) = (self.text.len(), self.is_empty);
        self.key(key);
        self.text.push('{');
        self.is_empty = true;
        fields(self);
        if self.is_empty {
            self.text.truncate(before);
            self.is_empty = was_empty;
        } else {
            self.text.push('}');
        }
    }

    /// A list of objects; left out when it is empty.
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
            self.text.push_str(if at == 0 { "[{" } else { ",{" });
            self.is_empty = true;
            fields(item, self);
            self.text.push('}');
        }
        self.text.push(']');
        self.is_empty = false;
    }
}

/// `value` to so many decimal places.
pub fn rounded(value: f32, digits: u8) -> f64 {
    let scale = 10_f64.powi(i32::from(digits));
    // Adding zero turns a negative zero into zero.
    (f64::from(value) * scale).round() / scale + 0.0
}

/// Printable ASCII without quote and backslash: stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, b| {
        plain & matches!(b, b' '..=b'~') & (b != b'"') & (b != b'\\')
    })
}

fn quote(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    // What JSON lets stand and a terminal or a log viewer does not (DEL, C1, line separators) as
    // escapes too.
    for c in Value::from(text).to_string().chars() {
        if is_unfit(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
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
