//! Long lines as a narrow terminal shows them whole: broken between words and set in. Adds and removes no word, and
//! breaks none.

/// The lines of a text in that many columns. What goes on below stands `hang` columns further in than its line began.
#[must_use]
pub fn wrapped(text: &str, columns: usize, hang: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len() + hang;
        // Where hardly a word fits, the terminal does no worse.
        if line.chars().count() <= columns || columns < 2 * indent {
            out.push_str(line);
        } else {
            wrap(&mut out, line, columns, indent);
        }
        out.push('\n');
    }
    out
}

fn wrap(out: &mut String, line: &str, columns: usize, indent: usize) {
    let mut used = 0;
    // With the spaces before each word, so that columns that are aligned stay so.
    let mut rest = line;
    while !rest.is_empty() {
        let begin = rest.len() - rest.trim_start().len();
        let word = rest.get(begin..).unwrap_or_default();
        let end = begin + word.find(' ').unwrap_or(word.len());
        let (piece, behind) = rest.split_at(end);
        let length = piece.chars().count();
        if used > indent && used + length > columns {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(piece.trim_start());
            used = indent + length - begin;
        } else {
            out.push_str(piece);
            used += length;
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn words_are_kept_whole_and_lines_within_the_columns() {
        let text = "What to do next\n  Ask the owner of the peer's application why it aborts.\n";
        let said = wrapped(text, 30, 2);
        assert_eq!(
            said,
            "What to do next\n  Ask the owner of the peer's\n    application why it aborts.\n"
        );
        assert_eq!(wrapped(text, 120, 2), text);
    }

    #[test]
    fn what_is_aligned_stays_so_and_what_cannot_be_broken_is_left() {
        let aligned = "   -7.0  for remote     hop limit match: 63; a genuine one\n";
        let said = wrapped(aligned, 40, 2);
        assert!(
            said.starts_with("   -7.0  for remote     hop limit match:\n     63;"),
            "{said}"
        );
        let address = "  [2001:db8:1111:2222:3333:4444:5555:6666]:443\n";
        assert_eq!(wrapped(address, 20, 2), address);
        assert_eq!(wrapped("a b c d\n", 3, 2), "a b c d\n");
    }
}
