//! A window over a byte stream: the reader asks for the next `n` bytes in one piece and looks at
//! them where they are, so that a packet is never copied. Its memory is one buffer, whatever the
//! file's size.

use std::io::{self, Read};

/// Bytes asked of the source at a time: a system call for about a thousand full-sized packets.
const CHUNK_BYTES: usize = 1 << 20;

/// The stream and what of it is in memory.
pub struct Input {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are consumed.
    start: usize,
    /// Bytes of `buffer` that are filled.
    end: usize,
    /// Offset in the stream of `buffer[start]`.
    offset: u64,
    at_end: bool,
}

impl Input {
    /// A window at the start of `source`.
    pub fn new(source: Box<dyn Read + Send>) -> Self {
        Self {
            source,
            buffer: vec![0; CHUNK_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            at_end: false,
        }
    }

    /// Bytes consumed so far: where in the file we are.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Has `wanted` bytes ready, or as many as there are; says how many are ready.
    ///
    /// # Errors
    ///
    /// What the source says.
    #[inline]
    pub fn ready(&mut self, wanted: usize) -> io::Result<usize> {
        if self.end - self.start < wanted {
            self.fill(wanted)?;
        }
        Ok(self.end - self.start)
    }

    /// How many bytes can be had without asking the source.
    #[inline]
    pub const fn held(&self) -> usize {
        self.end - self.start
    }

    /// The bytes that are ready.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The `len` bytes that begin `back` bytes before the current place: those of a packet that
    /// was just consumed. They stay in place until the next [`Input::ready`].
    #[inline]
    pub fn behind(&self, back: usize, len: usize) -> &[u8] {
        let from = self.start.saturating_sub(back);
        self.buffer
            .get(from..from.saturating_add(len))
            .unwrap_or_default()
    }

    /// Goes `count` bytes on; they must be ready.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }

    /// Goes `count` bytes on without keeping them; says how many of them there were not.
    ///
    /// # Errors
    ///
    /// What the source says.
    pub fn skip(&mut self, mut count: u64) -> io::Result<u64> {
        while count > 0 {
            let ready = self.ready(1)?;
            if ready == 0 {
                break;
            }
            let step = usize::try_from(count).map_or(ready, |count| count.min(ready));
            self.consume(step);
            count -= step as u64;
        }
        Ok(count)
    }

    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < wanted && !self.at_end {
            let free = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.source.read(free) {
                Ok(0) => self.at_end = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::Input;

    /// Gives one byte at a time.
    struct Drip(Vec<u8>);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            buffer[0] = self.0.remove(0);
            Ok(1)
        }
    }

    #[test]
    fn a_slow_source_still_gives_whole_pieces() {
        let mut input = Input::new(Box::new(Drip((0..10).collect())));
        assert_eq!(input.ready(4).unwrap(), 4);
        assert_eq!(input.bytes(), &[0, 1, 2, 3]);
        input.consume(4);
        assert_eq!(input.behind(2, 2), &[2, 3]);
        assert_eq!(input.skip(3).unwrap(), 0);
        assert_eq!(input.ready(9).unwrap(), 3, "only three bytes are left");
        assert_eq!(input.bytes(), &[7, 8, 9]);
        assert_eq!(input.skip(5).unwrap(), 2, "two of five were not there");
        assert_eq!(input.offset(), 10);
    }
}
