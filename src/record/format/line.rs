//! What CEF and LEEF have in common: fields in one line of text, each within its bound, so that the
//! whole stays below what collectors cut off.

use std::fmt::Write;

use crate::evidence::Evidence;
use crate::record::one_line::is_unfit;
use crate::record::writer::rounded;
use crate::wire::Mac;

/// Bytes of a name: host, device, container. ArcSight's dictionary gives a host name 100.
pub(super) const NAME_BYTES: usize = 100;
/// Bytes of a sentence or of the list of evidence. Two of them, the names and all else stay below
/// the 2048 bytes that the smallest syslog receivers take (RFC 5425 §4.3.1).
pub(super) const SENTENCE_BYTES: usize = 420;

/// Appends `text` by way of `escape`, which appends one character as the format wants it, and stops
/// in front of the character that would exceed `bytes`. Unfit characters become U+FFFD.
pub(super) fn append(
    out: &mut String,
    text: &str,
    bytes: usize,
    escape: impl Fn(&mut String, char),
) {
    let start = out.len();
    for c in text.chars() {
        let before = out.len();
        escape(
            out,
            if is_unfit(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            },
        );
        if out.len() - start > bytes {
            out.truncate(before);
            return;
        }
    }
}

/// `hop_limit 14.0 dB injected; …`, the strongest first.
pub(super) fn evidence_words(items: &[Evidence]) -> String {
    let mut words = String::new();
    for (at, item) in items.iter().enumerate() {
        let _ = write!(
            words,
            "{}{} {:.1} dB {}",
            if at > 0 { "; " } else { "" },
            item.name,
            rounded(item.weight_db, 1),
            item.favors.name()
        );
    }
    words
}

/// `00:0D:60:AF:1B:61`, as CEF and LEEF write a MAC.
pub(super) fn with_colons(mac: Mac) -> String {
    mac.to_string().replace('-', ":")
}

#[cfg(test)]
mod tests {
    use super::{append, evidence_words, with_colons};
    use crate::record::sample::injected;
    use crate::wire::Mac;

    #[test]
    fn a_text_ends_in_front_of_the_character_that_does_not_fit() {
        let doubled = |out: &mut String, c: char| {
            if c == '=' {
                out.push('\\');
            }
            out.push(c);
        };
        let mut out = "x".to_owned();
        append(&mut out, "ab==", 4, doubled);
        assert_eq!(out, "xab\\=", "no half of an escape is left");
        let mut out = String::new();
        append(&mut out, "\u{20ac}\u{20ac}\n", 5, |out, c| out.push(c));
        assert_eq!(out, "\u{20ac}");
    }

    #[test]
    fn evidence_is_told_in_few_words() {
        assert_eq!(
            evidence_words(&injected().evidence),
            "hop_limit 14.0 dB injected; peer_went_on 9.5 dB injected; exact 2.0 dB remote"
        );
        assert_eq!(with_colons(Mac([0, 1, 2, 3, 4, 0xab])), "00:01:02:03:04:AB");
    }
}
