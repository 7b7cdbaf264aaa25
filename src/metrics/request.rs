//! One question over HTTP/1.1: its head within limits of bytes and time, one answer, and the end of the
//! connection. Whoever asks may send anything and as slowly as he likes: it costs a thread that is there for it a
//! few seconds, and nothing else. Reads no body.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::Form;

/// Longest head of a request, in bytes: those of scrapers and probes have some hundred.
pub(super) const HEAD_MAX: usize = 8 << 10;

/// How long one connection may take, question and answer together.
pub(super) const WAIT: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// Without what follows a question mark.
    pub(super) path: &'a str,
    /// OpenMetrics for who names it, the older format for all others.
    pub(super) form: Form,
    /// The length of the answer is wanted, and not the answer.
    pub(super) is_head: bool,
}

/// What is said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    pub(super) text: String,
}

impl Answer {
    /// A line for a person.
    pub(super) fn plain(status: u16, text: &str) -> Self {
        Self {
            status,
            media_type: "text/plain; charset=utf-8",
            text: text.to_owned(),
        }
    }

    fn head(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "Bad Request",
        };
        let (status, media_type, length) = (self.status, self.media_type, self.text.len());
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        )
    }
}

/// Hears one question, says what `answer` makes of it, and ends the connection.
pub(super) fn serve(
    stream: &TcpStream,
    answer: impl FnOnce(Request<'_>) -> Answer,
) -> io::Result<()> {
    let mut peer = Timed::new(stream);
    let mut bytes = [0; HEAD_MAX];
    let (said, is_head, is_whole) = match peer.head(&mut bytes)? {
        Some(head) => match parse(head) {
            Ok(request) => (answer(request), request.is_head, true),
            Err(refusal) => (refusal, false, false),
        },
        None => (Answer::plain(431, "too long\n"), false, false),
    };
    peer.write_all(said.head().as_bytes())?;
    if !is_head {
        peer.write_all(said.text.as_bytes())?;
    }
    stream.shutdown(Shutdown::Write)?;
    // A connection that is closed on bytes which nobody read is reset, and the answer may be lost by it.
    while !is_whole && peer.read(&mut bytes)? > 0 {}
    Ok(())
}

/// What the head of a request asks, or what is to be said of one that asks for nothing we have.
fn parse(head: &[u8]) -> Result<Request<'_>, Answer> {
    let odd = || Answer::plain(400, "not understood\n");
    let head = std::str::from_utf8(head).map_err(|_| odd())?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(odd());
    };
    if !version.starts_with("HTTP/1.") {
        return Err(odd());
    }
    let is_head = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Answer::plain(405, "only GET\n")),
    };
    let names_it = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("Accept") && value.contains("application/openmetrics-text")
        });
    Ok(Request {
        path: target.split('?').next().unwrap_or_default(),
        form: if names_it {
            Form::OpenMetrics
        } else {
            Form::Prometheus
        },
        is_head,
    })
}

/// A peer with whom all must be done in [`WAIT`].
struct Timed<'a> {
    stream: &'a TcpStream,
    begun: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a peer takes, far from frames"
)]
impl<'a> Timed<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        Self {
            stream,
            begun: Instant::now(),
        }
    }

    /// What is left of the time; an error when nothing is.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = WAIT.saturating_sub(self.begun.elapsed());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(Some(left)),
        }
    }

    /// Reads up to the empty line that ends a head, and answers what stands before it; `None` when there is none in
    /// as many bytes as there is room for.
    fn head<'b>(&mut self, room: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let mut len = 0;
        loop {
            let free = room.get_mut(len..).unwrap_or_default();
            if free.is_empty() {
                return Ok(None);
            }
            let read = self.read(free)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // The end may have begun in what was there before.
            let from = len.saturating_sub(3);
            len += read;
            let news = room.get(from..len).unwrap_or_default();
            if let Some(at) = news.windows(4).position(|end| end == b"\r\n\r\n") {
                return Ok(room.get(..from + at));
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(room)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, parse};
    use crate::metrics::Form;

    #[test]
    fn a_head_is_understood_or_refused_with_its_reason() {
        let asked = |path, form, is_head| {
            Ok(Request {
                path,
                form,
                is_head,
            })
        };
        assert_eq!(
            parse(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x"),
            asked("/metrics", Form::Prometheus, false)
        );
        assert_eq!(
            parse(b"HEAD / HTTP/1.0\r\naccept: text/html, application/openmetrics-text;q=0.5"),
            asked("/", Form::OpenMetrics, true)
        );
        let status = |head: &[u8]| parse(head).unwrap_err().status;
        assert_eq!(status(b"POST /metrics HTTP/1.1"), 405);
        for odd in [
            &b""[..],
            b"GET",
            b"GET /metrics",
            b"GET /metrics HTTP/2",
            b"GET /metrics x HTTP/1.1",
            b"GET /\xff HTTP/1.1",
            b"\x16\x03\x01\x02\x00",
        ] {
            assert_eq!(status(odd), 400, "{odd:?}");
        }
    }
}
