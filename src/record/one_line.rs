//! Texts that others chose, as they may stand in a line: whatever ends a line for somebody, or moves a
//! terminal's cursor, is replaced. Changes nothing else.

use std::borrow::Cow;

/// What must not stand in a text raw: it ends a line for somebody, moves a terminal's cursor, or turns
/// the order of what follows (the bidirectional overrides and isolates of UAX #9).
pub(super) const fn is_unfit(c: char) -> bool {
    matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
}

/// A text without [`is_unfit`] characters: it goes to terminals and line-based logs.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    // Nearly all texts are plain, which their bytes tell: unfit characters that are not ASCII begin with
    // 0xC2 and 0xE2.
    let suspect = text.bytes().fold(false, |odd, b| {
        odd | (b < b' ') | (b == 0x7f) | (b == 0xc2) | (b == 0xe2)
    });
    if !suspect || !text.contains(is_unfit) {
        return Cow::Borrowed(text);
    }
    let fit = text
        .chars()
        .map(|c| {
            if is_unfit(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    Cow::Owned(fit)
}
