//! The configuration file: the options of `run` by the same names, in TOML. What it does not know is an
//! error that says what may have been meant; no key is passed over.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use super::own_device::FileDevice;
use crate::cli::ADDRESS_FORM;

/// How unlike two words may be, in letters put in, left out, changed or swapped, so that one is taken for
/// the other mistyped: more, and the advice is about something else.
const TYPOS_MAX: usize = 3;

/// The keys of a configuration file; `table` tells of each.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) iface: Vec<String>,
    pub(super) mode: Option<FileMode>,
    pub(super) output: Vec<String>,
    pub(super) spool: Option<PathBuf>,
    pub(super) settle: Option<u64>,
    pub(super) flows: Option<u64>,
    pub(super) queues: Option<u16>,
    pub(super) replace: Option<bool>,
    pub(super) own_device: Vec<FileDevice>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) unconfined: Option<bool>,
    pub(super) quiet: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileMode {
    Inline,
    Mirror,
}

/// Reads a file.
///
/// # Errors
///
/// [`Error::Read`], [`Error::Syntax`].
pub(super) fn read(path: &Path) -> Result<File, Error> {
    parse(&text(path)?).map_err(|what| Error::Syntax(path.to_owned(), what))
}

/// The text of a file.
///
/// # Errors
///
/// [`Error::Read`].
pub(super) fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))
}

/// What a text means; where it means nothing, the line, the reason, and what may have been meant.
pub(super) fn parse(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let mut message = plain(error.message()).replace('\n', "; ");
        if let Some(meant) = meant(&message) {
            message = format!("{message}; did you mean `{meant}`?");
        }
        line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
    })
}

/// The complaint in the words of who writes such a file: a sequence is a list, and what it looks like.
fn plain(message: &str) -> String {
    [
        (
            "expected a sequence",
            "expected a list in brackets, such as [\"…\"]",
        ),
        ("expected u64", "expected a whole number"),
        ("expected u16", "expected a whole number up to 65535"),
        ("expected a boolean", "expected true or false"),
        ("invalid socket address syntax", ADDRESS_FORM),
    ]
    .iter()
    .fold(message.to_owned(), |said, (from, to)| {
        said.replace(from, to)
    })
}

/// Of the words that serde quotes in its complaint, the first is the odd one and the others are allowed.
fn meant(message: &str) -> Option<&str> {
    let mut words = message.split('`').skip(1).step_by(2);
    let odd = words.next()?.replace('-', "_");
    words
        .map(|word| (strsim::damerau_levenshtein(&odd, word), word))
        .min()
        .filter(|(typos, word)| *typos <= TYPOS_MAX && *typos < word.len())
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_value_of_another_type_is_answered_with_what_to_write() {
        for (text, wanted) in [
            ("iface = \"eth0\"\n", "expected a list in brackets"),
            ("settle = \"1s\"\n", "expected a whole number"),
            ("queues = 70000\n", "expected a whole number up to 65535"),
            ("quiet = 1\n", "expected true or false"),
            ("metrics = \"9477\"\n", "such as 127.0.0.1:9477"),
        ] {
            let error = parse(text).unwrap_err();
            let is_plain = error.starts_with("line 1: ") && error.contains(wanted);
            assert!(is_plain, "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_what_was_meant() {
        for (text, line, word) in [
            (
                "settle = 1\nsetle = 2\n",
                "line 2: ",
                "did you mean `settle`?",
            ),
            ("ifaces = [\"a\"]\n", "line 1: ", "did you mean `iface`?"),
            (
                "own-device = []\n",
                "line 1: ",
                "did you mean `own_device`?",
            ),
            (
                "[[own_device]]\nname = \"x\"\nhoplimit = 3\n",
                "line 3: ",
                "did you mean `hop_limit`?",
            ),
            ("mode = \"mirorr\"\n", "line 1: ", "did you mean `mirror`?"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word) && error.starts_with(line), "{error}");
        }
        let error = parse("entirely_else = 2\n").unwrap_err();
        assert!(!error.contains("did you mean"), "{error}");
    }
}
