//! What a file is: records that were written, or a capture. It looks at the first bytes and leaves them where
//! they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::read;

/// What the file holds, by its first byte: no capture format begins with a brace.
pub(super) enum Source {
    /// Records, from the first on.
    Records(Box<dyn BufRead>),
    /// A capture; open where it cannot be opened anew.
    Packets(Option<read::Opened>),
    /// Text of another kind.
    Neither,
}

impl Source {
    /// Looks at the first byte and leaves it where it is: a pipe has it only once.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            let mut input = io::stdin().lock();
            return Ok(match input.fill_buf()?.first() {
                Some(b'{') => Self::Records(Box::new(input)),
                _ => Self::Packets(None),
            });
        }
        let file = File::open(path)?;
        let known = file.metadata()?;
        if known.is_dir() {
            return Ok(Self::Packets(None));
        }
        let is_file = known.is_file();
        let mut input = BufReader::new(file);
        Ok(match input.fill_buf()? {
            [b'{', ..] => Self::Records(Box::new(input)),
            // Magic numbers and compressed files hold bytes that no text has.
            text @ [_, ..] if is_text(text) => Self::Neither,
            _ if is_file => Self::Packets(None),
            _ => Self::Packets(Some(Box::new(input))),
        })
    }
}

fn is_text(bytes: &[u8]) -> bool {
    let odd = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    bytes.is_ascii() && !bytes.iter().any(odd)
}
