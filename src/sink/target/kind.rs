//! The kinds of receivers, and what must be known of each: read out of the part of a URL behind its scheme,
//! and of the options that only this kind has.

use std::path::PathBuf;
use std::time::Duration;

use crate::sink::query::{Query, decode};
use crate::sink::url_error::UrlError;

/// How long a sent syslog record is kept for a resend where none is said (`docs/outputs.md`).
const SYSLOG_HOLD: Duration = Duration::from_secs(5);
/// How long Splunk may take to index before a batch is sent again.
const ACK_TIMEOUT: Duration = Duration::from_secs(120);
/// How long one HTTP request may take where none is said: receivers of bulk index while one waits.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// Ports of RFC 5426, RFC 6587 (by custom) and RFC 5425.
const SYSLOG_PORT: u16 = 514;
const SYSLOG_TLS_PORT: u16 = 6514;

/// Kinds of receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `-`: a person on a terminal, JSON lines into a pipe.
    Standard,
    /// `file:///path`: lines at the end of a file.
    File(FileTarget),
    /// `syslog+…://`.
    Syslog(SyslogTarget),
    /// `elastic+…://`, `splunk+…://`, `clickhouse+…://`, `loki+…://`, `http://`, `https://`.
    Http(HttpTarget),
    /// `kafka://brokers/topic`.
    Kafka(KafkaTarget),
}

/// A file and how it is turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTarget {
    /// The file.
    pub path: PathBuf,
    /// It is turned before it grows beyond this.
    pub rotate_size: Option<u64>,
    /// It is turned when it is as old as this.
    pub rotate_every: Option<Duration>,
    /// Turned files that are kept.
    pub keep: u32,
}

/// A syslog receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogTarget {
    /// The way to it.
    pub way: SyslogWay,
    /// Facility of RFC 5424 section 6.2.1.
    pub facility: u8,
    /// What was sent so long ago over a connection that is still whole is believed to be received.
    pub hold: Duration,
}

/// Ways of syslog messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogWay {
    /// RFC 6587, octet counting: host and port.
    Tcp(String, u16),
    /// RFC 5425.
    Tls(String, u16, TlsFiles),
    /// A local socket.
    Unix(PathBuf),
    /// RFC 5426.
    Udp(String, u16),
}

/// PEM files for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that are trusted; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// An HTTP receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// What it speaks above HTTP.
    pub dialect: Dialect,
    /// `https` rather than `http`.
    pub tls: bool,
    /// Host and, where one is said, port.
    pub authority: String,
    /// Path with its leading slash, as typed.
    pub path: String,
    /// PEM files.
    pub files: TlsFiles,
    /// Who we are.
    pub credentials: Credentials,
    /// How long one request may take.
    pub timeout: Duration,
}

/// How we prove who we are: by a file, never by the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// A token in a file.
    Token(PathBuf),
    /// A user's name and a file with the password.
    Password(String, PathBuf),
}

/// What HTTP receivers speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// `_bulk` of Elasticsearch and OpenSearch.
    Elastic,
    /// HTTP event collector.
    Splunk {
        /// Wait for the indexer's acknowledgement for so long; `None`: believe the first answer.
        ack: Option<Duration>,
        /// The index, where not the token's own.
        index: Option<String>,
    },
    /// `INSERT … FORMAT JSONEachRow`.
    ClickHouse {
        /// The table, perhaps with its database.
        table: String,
    },
    /// Push API.
    Loki,
    /// A POST of JSON lines.
    Lines,
}

/// A Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaTarget {
    /// `host:port`, joined by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// A file of further librdkafka properties, `key=value` a line: TLS, SASL and its secrets.
    pub config: Option<PathBuf>,
}

impl Kind {
    /// All but standard output and UDP, which has no answer.
    pub(super) const fn is_durable(&self) -> bool {
        match self {
            Self::Standard => false,
            Self::Syslog(syslog) => !matches!(syslog.way, SyslogWay::Udp(..)),
            Self::File(_) | Self::Http(_) | Self::Kafka(_) => true,
        }
    }

    /// What a URL of this scheme means, `rest` being what stands behind `://`, and takes the options that
    /// it has.
    pub(super) fn parse(scheme: &str, rest: &str, query: &mut Query) -> Result<Self, UrlError> {
        Ok(match scheme {
            "file" => Kind::File(FileTarget {
                path: file_path(rest)?,
                rotate_size: query.size("rotate_size")?,
                rotate_every: query.duration("rotate_every")?,
                keep: query.number("keep")?.unwrap_or(7).max(1),
            }),
            "syslog+tcp" | "syslog+tls" | "syslog+udp" | "syslog+unix" => {
                syslog(scheme, rest, query)?
            }
            "elastic+http" | "elastic+https" => http(scheme, rest, Dialect::Elastic, query)?,
            "splunk+http" | "splunk+https" => {
                let timeout = query.duration("ack_timeout")?.unwrap_or(ACK_TIMEOUT);
                let dialect = Dialect::Splunk {
                    ack: query.flag("ack", true)?.then_some(timeout),
                    index: query.text("index"),
                };
                http(scheme, rest, dialect, query)?
            }
            "clickhouse+http" | "clickhouse+https" => {
                let table = query.text("table").unwrap_or_else(|| "rstscope".to_owned());
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
                if table.is_empty() || !table.chars().all(plain) {
                    let why = "must be TABLE or DATABASE.TABLE".to_owned();
                    return Err(UrlError::Option("table".to_owned(), why));
                }
                http(scheme, rest, Dialect::ClickHouse { table }, query)?
            }
            "loki+http" | "loki+https" => http(scheme, rest, Dialect::Loki, query)?,
            "http" | "https" => http(scheme, rest, Dialect::Lines, query)?,
            "kafka" => kafka(rest, query)?,
            _ => return Err(UrlError::Scheme),
        })
    }
}

/// RFC 8089 file URLs without a host, or with `localhost`. The path is taken as it stands: no
/// percent signs are decoded, since people type paths here.
fn file_path(rest: &str) -> Result<PathBuf, UrlError> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(UrlError::Path("the path must be absolute: file:///PATH"));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err(UrlError::Path(
            "this path names no file; write file:///PATH",
        ));
    }
    Ok(PathBuf::from(path))
}

fn syslog(scheme: &str, rest: &str, query: &mut Query) -> Result<Kind, UrlError> {
    let facility = match query.text("facility") {
        // local4: what rsyslog and syslog-ng leave to applications.
        None => 20,
        Some(name) => facility(&name).ok_or_else(|| {
            let why = "must be daemon, user, auth or local0 to local7".to_owned();
            UrlError::Option("facility".to_owned(), why)
        })?,
    };
    let way = match scheme {
        "syslog+unix" => {
            if !rest.starts_with('/') || rest.contains('\0') {
                return Err(UrlError::Path("name a socket by its absolute path"));
            }
            SyslogWay::Unix(rest.into())
        }
        "syslog+tls" => {
            let (host, port) = host_and_port(rest, SYSLOG_TLS_PORT)?;
            SyslogWay::Tls(host, port, tls_files(query)?)
        }
        _ => {
            let (host, port) = host_and_port(rest, SYSLOG_PORT)?;
            if scheme == "syslog+tcp" {
                SyslogWay::Tcp(host, port)
            } else {
                SyslogWay::Udp(host, port)
            }
        }
    };
    let connected = matches!(way, SyslogWay::Tcp(..) | SyslogWay::Tls(..));
    let hold = if connected {
        query.duration("hold")?
    } else {
        None
    };
    Ok(Kind::Syslog(SyslogTarget {
        way,
        facility,
        hold: hold.unwrap_or(SYSLOG_HOLD),
    }))
}

/// Numbers of RFC 5424 section 6.2.1.
fn facility(name: &str) -> Option<u8> {
    match name {
        "user" => Some(1),
        "daemon" => Some(3),
        "auth" => Some(4),
        _ => {
            let number: u8 = name.strip_prefix("local")?.parse().ok()?;
            (number < 8).then_some(16 + number)
        }
    }
}

fn host_and_port(rest: &str, default: u16) -> Result<(String, u16), UrlError> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(UrlError::Secret);
    }
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if rest.contains(odd) {
        return Err(UrlError::Host(
            "name a host and a port, HOST:PORT, and nothing behind them",
        ));
    }
    // The colons of an IPv6 address stand in brackets (RFC 3986 section 3.2.2).
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port = port.map_or(Ok(default), |port| {
        port.parse()
            .map_err(|_| UrlError::Host("the port is no number up to 65535"))
    })?;
    if host.is_empty() {
        return Err(UrlError::Host("name a host"));
    }
    Ok((host.to_owned(), port))
}

fn tls_files(query: &mut Query) -> Result<TlsFiles, UrlError> {
    let identity = match (query.path("cert")?, query.path("key")?) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => {
            let why = "a client certificate needs both cert= and key=".to_owned();
            return Err(UrlError::Option("cert".to_owned(), why));
        }
    };
    Ok(TlsFiles {
        ca: query.path("ca")?,
        identity,
    })
}

fn http(scheme: &str, rest: &str, dialect: Dialect, query: &mut Query) -> Result<Kind, UrlError> {
    let tls = scheme.ends_with("https");
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    host_and_port(authority, 1)?;
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) || decode(path).is_none() {
        return Err(UrlError::Path("the path is none of a URL"));
    }
    let files = if tls {
        tls_files(query)?
    } else {
        TlsFiles::default()
    };
    let password = query.path("password_file")?;
    let credentials = match (query.path("token_file")?, query.text("user"), password) {
        (None, None, None) => Credentials::None,
        (Some(token), None, None) => Credentials::Token(token),
        (None, Some(user), Some(file)) if !user.contains(|c: char| c == ':' || c.is_control()) => {
            Credentials::Password(user, file)
        }
        _ => {
            let why = "either token_file=, or user= and password_file=".to_owned();
            return Err(UrlError::Option("token_file".to_owned(), why));
        }
    };
    let splunk = matches!(dialect, Dialect::Splunk { .. });
    if splunk && !matches!(credentials, Credentials::Token(_)) {
        let why = "Splunk's event collector needs its token in a file".to_owned();
        return Err(UrlError::Option("token_file".to_owned(), why));
    }
    Ok(Kind::Http(HttpTarget {
        dialect,
        tls,
        authority: authority.to_owned(),
        path: path.trim_end_matches('/').to_owned(),
        files,
        credentials,
        timeout: query.duration("timeout")?.unwrap_or(HTTP_TIMEOUT),
    }))
}

fn kafka(rest: &str, query: &mut Query) -> Result<Kind, UrlError> {
    if !cfg!(feature = "kafka") {
        return Err(UrlError::NotBuilt);
    }
    let (brokers, topic) = rest
        .split_once('/')
        .ok_or(UrlError::Path("name a topic: kafka://BROKERS/TOPIC"))?;
    for broker in brokers.split(',') {
        host_and_port(broker, 9092)?;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // Kafka's own rule: org.apache.kafka.common.internals.Topic.
    if topic.is_empty() || topic.len() > 249 || !topic.chars().all(plain) {
        return Err(UrlError::Path("this is no name of a topic"));
    }
    Ok(Kind::Kafka(KafkaTarget {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        config: query.path("config")?,
    }))
}
