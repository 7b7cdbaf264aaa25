//! `syslog+…://`: RFC 5424 messages over TCP and TLS (RFC 6587 and RFC 5425, octet counting), UDP (RFC
//! 5426) and local sockets. A message never holds a control character, so that no receiver, however it
//! splits lines, can be made to see two.

mod datagram;
mod stream;

use std::fmt::Write;

use super::Error;
use super::entry::Entry;
use super::target::{SyslogTarget, SyslogWay};
use super::tls;
use super::transport::Transport;
use datagram::{Datagrams, Local};
use stream::{Peer, Stream};

/// The way to a syslog receiver.
pub(super) fn open(output: &str, target: &SyslogTarget) -> Result<Box<dyn Transport>, Error> {
    let form = Form::of_this_host(target.facility);
    Ok(match &target.way {
        SyslogWay::Tcp(host, port) => {
            let peer = Peer::plain(host, *port);
            Box::new(Stream::new(peer, form, target.hold))
        }
        SyslogWay::Tls(host, port, files) => {
            let peer = Peer::tls(output, host, *port, tls::client(output, files)?)?;
            Box::new(Stream::new(peer, form, target.hold))
        }
        SyslogWay::Udp(host, port) => Box::new(Datagrams::new(host, *port, form)),
        SyslogWay::Unix(path) => Box::new(Local::new(path.clone(), form)),
    })
}

/// Room for what stands before a record in a message, and for its length: a host's name rarely takes more.
const HEAD_BYTES: usize = 128;

/// What all messages of an output have in common.
#[derive(Debug, Clone)]
struct Form {
    facility: u8,
    host: String,
    process: u32,
}

impl Form {
    fn of_this_host(facility: u8) -> Self {
        let host: String = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .chars()
            // PRINTUSASCII, 255 at the most (RFC 5424 section 6).
            .filter(char::is_ascii_graphic)
            .take(255)
            .collect();
        Self {
            facility,
            host: if host.is_empty() {
                "-".to_owned()
            } else {
                host
            },
            process: std::process::id(),
        }
    }

    /// RFC 5424 section 6, without structured data and without the byte order mark, which receivers
    /// that parse JSON stumble over: MSG-ANY, which happens to be UTF-8.
    fn message(&self, entry: &Entry) -> Vec<u8> {
        let mut message = self.head(entry).into_bytes();
        message.extend_from_slice(&entry.body);
        message
    }

    fn head(&self, entry: &Entry) -> String {
        let priority = u16::from(self.facility) * 8 + u16::from(entry.severity);
        let time = jiff::Timestamp::from_nanosecond(i128::from(entry.time_ns)).unwrap_or_default();
        let mut head = String::with_capacity(HEAD_BYTES);
        // Writing to a String cannot fail. Six digits are the most that RFC 5424 allows.
        let _ = write!(
            head,
            "<{priority}>1 {time:.6} {} rstscope {} {} - ",
            self.host,
            self.process,
            msgid(&entry.label)
        );
        head
    }

    /// Octet counting (RFC 6587 section 3.4.1).
    fn frame(&self, entry: &Entry, into: &mut Vec<u8>) {
        let head = self.head(entry);
        let length = head.len() + entry.body.len();
        into.extend_from_slice(length.to_string().as_bytes());
        into.push(b' ');
        into.extend_from_slice(head.as_bytes());
        into.extend_from_slice(&entry.body);
    }
}

/// At most 32 characters of PRINTUSASCII.
fn msgid(label: &str) -> &str {
    let plain = label.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && (1..=32).contains(&label.len()) {
        label
    } else {
        "-"
    }
}

#[cfg(test)]
mod tests {
    use super::Form;
    use crate::record::sample::{emission, injected};
    use crate::record::{Format, Record};
    use crate::sink::entry::Entry;

    #[test]
    fn a_message_is_one_line_of_rfc_5424() {
        let form = Form {
            facility: 20,
            host: "lb1".to_owned(),
            process: 7,
        };
        let record = Record::Reset(Box::new(injected()));
        let entry = Entry::new(&record, &emission(), Format::Native).unwrap();
        let message = String::from_utf8(form.message(&entry)).unwrap();
        let (head, body) = message.split_once(" - ").unwrap();
        assert_eq!(
            head,
            "<164>1 2026-05-09T02:31:06.833123Z lb1 rstscope 7 injected"
        );
        assert_eq!(body.as_bytes(), entry.body);
        assert!(!message.contains(char::is_control));
        let mut frame = Vec::new();
        form.frame(&entry, &mut frame);
        form.frame(&entry, &mut frame);
        let one = format!("{} {message}", message.len());
        assert_eq!(frame, format!("{one}{one}").into_bytes());
    }

    #[test]
    fn an_odd_label_is_no_message_id() {
        assert_eq!(super::msgid("injected"), "injected");
        for odd in ["", "a b", "a\n", &"x".repeat(33)] {
            assert_eq!(super::msgid(odd), "-");
        }
        assert!(!Form::of_this_host(1).host.is_empty());
    }
}
