//! The options behind the question mark of an output's URL: `key=value`, joined by `&`, percent escapes
//! decoded. Every key must be asked for by somebody; what is left over is an error, so that a typing
//! mistake never passes for a default.

use std::path::PathBuf;
use std::time::Duration;

use super::url_error::UrlError;

/// Options that were typed and not asked for yet.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    /// Every key that was asked for, for the error about one that was not.
    known: Vec<&'static str>,
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| UrlError::Option(pair.to_owned(), "write it as key=value".into()))?;
            let value = decode(value).ok_or_else(|| {
                UrlError::Option(key.to_owned(), "its percent escapes are no UTF-8".into())
            })?;
            if pairs.iter().any(|(before, _)| before == key) {
                return Err(UrlError::Option(
                    key.to_owned(),
                    "stands there twice".into(),
                ));
            }
            pairs.push((key.to_owned(), value));
        }
        Ok(Self {
            pairs,
            known: Vec::new(),
        })
    }

    /// The value of a key, once.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let at = self.pairs.iter().position(|(other, _)| other == key)?;
        Some(self.pairs.remove(at).1)
    }

    pub(super) fn path(&mut self, key: &'static str) -> Result<Option<PathBuf>, UrlError> {
        match self.text(key) {
            None => Ok(None),
            Some(path) if path.starts_with('/') => Ok(Some(path.into())),
            Some(_) => Err(UrlError::Option(
                key.to_owned(),
                "must be an absolute path".into(),
            )),
        }
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, UrlError> {
        match self.text(key).as_deref() {
            None => Ok(default),
            Some("yes") => Ok(true),
            Some("no") => Ok(false),
            Some(_) => Err(UrlError::Option(key.to_owned(), "must be yes or no".into())),
        }
    }

    pub(super) fn size(&mut self, key: &'static str) -> Result<Option<u64>, UrlError> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        let units = [("k", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("", 1)];
        scaled(&text, &units).map(Some).ok_or_else(|| {
            UrlError::Option(
                key.to_owned(),
                "must be a size such as 64k, 100M or 2G".into(),
            )
        })
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, UrlError> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        // `ms` before `s` and `m`.
        let units = [
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        scaled(&text, &units)
            .map(|ms| Some(Duration::from_millis(ms)))
            .ok_or_else(|| {
                UrlError::Option(
                    key.to_owned(),
                    "must be a time such as 500ms, 30s or 24h".into(),
                )
            })
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<u32>, UrlError> {
        self.text(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| UrlError::Option(key.to_owned(), "must be a whole number".into()))
            })
            .transpose()
    }

    /// Everything must have been asked for.
    pub(super) fn finish(mut self) -> Result<(), UrlError> {
        self.known.sort_unstable();
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(UrlError::Option(
                key.clone(),
                format!(
                    "this kind of output has no such option; it has {}",
                    self.known.join(", ")
                ),
            )),
        }
    }
}

/// A number above 0 with one of these units.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(*factor).filter(|number| *number > 0)
}

/// RFC 3986 section 2.1.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Query, decode};

    #[test]
    fn values_have_units_and_escapes() {
        let mut query = Query::parse("a=64k&b=24h&c=%2Fx%20y&d=no&e=7&f=150ms").unwrap();
        assert_eq!(query.size("a").unwrap(), Some(65536));
        assert_eq!(
            query.duration("b").unwrap(),
            Some(Duration::from_secs(86400))
        );
        assert_eq!(query.path("c").unwrap(), Some("/x y".into()));
        assert!(!query.flag("d", true).unwrap());
        assert_eq!(query.number("e").unwrap(), Some(7));
        assert_eq!(
            query.duration("f").unwrap(),
            Some(Duration::from_millis(150))
        );
        assert_eq!(query.size("none").unwrap(), None);
        query.finish().unwrap();
    }

    #[test]
    fn what_cannot_be_meant_names_its_key() {
        for text in ["a", "a=1&a=2", "a=%zz", "a=%f"] {
            let error = Query::parse(text).unwrap_err().to_string();
            assert!(error.contains('a'), "{error}");
        }
        for odd in ["-1", "1kk", "k", "", "0", "99999999999999999999", "1 M"] {
            let mut query = Query::parse(&format!("a={odd}")).unwrap();
            assert!(query.size("a").is_err(), "{odd}");
            let mut query = Query::parse(&format!("a={odd}")).unwrap();
            assert!(query.duration("a").is_err(), "{odd}");
        }
        let mut query = Query::parse("verdit=x").unwrap();
        query.text("verdict");
        let error = query.finish().unwrap_err().to_string();
        assert!(
            error.contains("verdit") && error.contains("it has verdict"),
            "{error}"
        );
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(decode("a%2541").as_deref(), Some("a%41"));
        assert_eq!(decode("%c3%a9").as_deref(), Some("é"));
        assert_eq!(decode("%c3"), None);
    }
}
