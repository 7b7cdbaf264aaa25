//! Outputs as the user says them: a URL, to what it means. No I/O: files that it names are opened later.
//! A URL never holds a secret, because URLs end up in logs and process lists; it names files that do.

use std::path::PathBuf;
use std::time::Duration;

use super::filter::Filter;
use super::query::{Query, decode};
use super::url_error::UrlError;
use crate::record::Format;

/// In place of the scheme that `-` does not have.
const STANDARD: &str = "standard";
/// Size of an output's spool where none is said: at 2 KB a record a quarter of a million records.
const SPOOL_BYTES: u64 = 512 << 20;
/// The least that makes sense: some hundred records.
const SPOOL_LEAST: u64 = 256 << 10;
/// The longest wait between two attempts where none is said.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long a sent syslog record is kept for a resend where none is said (`docs/outputs.md`).
const SYSLOG_HOLD: Duration = Duration::from_secs(5);
/// How long Splunk may take to index before a batch is sent again.
const ACK_TIMEOUT: Duration = Duration::from_secs(120);
/// How long one HTTP request may take where none is said: receivers of bulk index while one waits.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// Ports of RFC 5426, RFC 6587 (by custom) and RFC 5425.
const SYSLOG_PORT: u16 = 514;
const SYSLOG_TLS_PORT: u16 = 6514;

/// Where records should go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How it is called in messages and by the folder of its spool: the URL without its options, or
    /// `?name=`.
    pub name: String,
    /// The scheme of the URL, which numbers of it are told by: it holds no address. `standard` of `-`.
    pub scheme: String,
    /// The receiver.
    pub kind: Kind,
    /// The form of the records.
    pub format: Format,
    /// Which records.
    pub filter: Filter,
    /// Bytes of its spool on disk, at the most.
    pub spool_bytes: u64,
    /// The longest wait between two attempts.
    pub retry_max: Duration,
}

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

impl Target {
    /// Standard output.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            name: "-".to_owned(),
            scheme: STANDARD.to_owned(),
            kind: Kind::Standard,
            format: Format::Native,
            filter: Filter::default(),
            spool_bytes: SPOOL_BYTES,
            retry_max: RETRY_MAX,
        }
    }

    /// What a URL means.
    ///
    /// # Errors
    ///
    /// [`UrlError`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (place, options) = url.split_once('?').unwrap_or((url, ""));
        let mut query = Query::parse(options)?;
        let (scheme, kind) = if place == "-" {
            (STANDARD, Kind::Standard)
        } else {
            let (scheme, rest) = place.split_once("://").ok_or(UrlError::NoUrl)?;
            (scheme, kind(scheme, rest, &mut query)?)
        };
        let format = match query.text("format") {
            None => Format::Native,
            Some(name) => Format::parse(&name).ok_or_else(|| {
                let names = Format::ALL.map(Format::name).join(", ");
                UrlError::Option("format".to_owned(), format!("the formats are {names}"))
            })?,
        };
        let takes_json = matches!(&kind, Kind::Http(http) if http.dialect != Dialect::Lines);
        if takes_json && !format.is_json() {
            let why = "this kind of output takes formats of JSON only".to_owned();
            return Err(UrlError::Option("format".to_owned(), why));
        }
        let verdicts = query.text("verdict");
        let filter = Filter::new(verdicts.as_deref(), query.flag("coverage", true)?)?;
        let name = query.text("name");
        let (mut spool_bytes, mut retry_max) = (SPOOL_BYTES, RETRY_MAX);
        if kind.is_durable() {
            spool_bytes = query.size("spool_size")?.unwrap_or(spool_bytes);
        }
        if kind != Kind::Standard {
            retry_max = query.duration("retry_max")?.unwrap_or(retry_max);
        }
        query.finish()?;
        if spool_bytes < SPOOL_LEAST {
            let why = "must be 256k at least".to_owned();
            return Err(UrlError::Option("spool_size".to_owned(), why));
        }
        if name.as_ref().is_some_and(|name| !is_plain(name)) {
            let why = "must be of 1 to 64 letters, digits, dots, dashes and underscores".to_owned();
            return Err(UrlError::Option("name".to_owned(), why));
        }
        Ok(Self {
            name: name.unwrap_or_else(|| place.to_owned()),
            scheme: scheme.to_owned(),
            kind,
            format,
            filter,
            spool_bytes,
            retry_max,
        })
    }

    /// What is not delivered stays on disk; of a file, unless it turns out to be a device or a pipe.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        self.kind.is_durable()
    }

    /// The name of the folder of its spool: readable, and another for every name.
    #[must_use]
    pub fn folder_name(&self) -> String {
        if is_plain(&self.name) {
            return self.name.clone();
        }
        let plain: String = self
            .name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '.' {
                    c
                } else {
                    '-'
                }
            })
            .take(64)
            .collect();
        format!("{plain}-{:08x}", crc32c::crc32c(self.name.as_bytes()))
    }
}

impl Kind {
    /// All but standard output and UDP, which has no answer.
    const fn is_durable(&self) -> bool {
        match self {
            Self::Standard => false,
            Self::Syslog(syslog) => !matches!(syslog.way, SyslogWay::Udp(..)),
            Self::File(_) | Self::Http(_) | Self::Kafka(_) => true,
        }
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

fn kind(scheme: &str, rest: &str, query: &mut Query) -> Result<Kind, UrlError> {
    Ok(match scheme {
        "file" => Kind::File(FileTarget {
            path: file_path(rest)?,
            rotate_size: query.size("rotate_size")?,
            rotate_every: query.duration("rotate_every")?,
            keep: query.number("keep")?.unwrap_or(7).max(1),
        }),
        "syslog+tcp" | "syslog+tls" | "syslog+udp" | "syslog+unix" => syslog(scheme, rest, query)?,
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

/// RFC 8089 file URLs without a host, or with `localhost`. The path is taken as it stands: no
/// percent signs are decoded, since people type paths here.
fn file_path(rest: &str) -> Result<PathBuf, UrlError> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(UrlError::Path(
            "the path must be absolute: file:// and a path that begins with a slash",
        ));
    }
    if path.ends_with('/') || path.contains('\0') {
        return Err(UrlError::Path("this path names no file"));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Credentials, Dialect, Kind, SyslogWay, Target, UrlError};

    fn parse(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn each_kind_is_told_by_its_scheme() {
        assert_eq!(parse("-"), Target::standard());
        let file = parse("file:///r?rotate_size=10M&rotate_every=1d&keep=3&verdict=injected");
        let Kind::File(options) = file.kind else {
            panic!("{file:?}")
        };
        assert_eq!((options.path.to_str(), options.keep), (Some("/r"), 3));
        assert_eq!(options.rotate_size, Some(10 << 20));
        assert_eq!(options.rotate_every, Some(Duration::from_secs(86400)));
        let named = parse("splunk+https://h?token_file=/t&name=10.0.0.1");
        assert_eq!(
            (named.scheme.as_str(), named.name.as_str()),
            ("splunk+https", "10.0.0.1")
        );
        let Kind::Syslog(tls) = parse("syslog+tls://[::1]?cert=/c&key=/k&facility=local7").kind
        else {
            panic!()
        };
        assert!(matches!(&tls.way, SyslogWay::Tls(host, 6514, files)
            if host == "::1" && files.identity.is_some()));
        assert_eq!(tls.facility, 23);
        let Kind::Http(elastic) =
            parse("elastic+https://es:9200/logs?user=u&password_file=/p").kind
        else {
            panic!()
        };
        assert_eq!(elastic.dialect, Dialect::Elastic);
        assert!(elastic.tls && elastic.path == "/logs" && elastic.authority == "es:9200");
        assert_eq!(
            elastic.credentials,
            Credentials::Password("u".into(), "/p".into())
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (url, word) in [
            ("r.jsonl", "file://"),
            ("ftp://x/y", "no such kind"),
            ("file://r", "absolute"),
            ("file:///", "names no file"),
            ("-?verdict=forged", "no verdict"),
            ("-?format=xml", "formats are"),
            ("-?colour=red", "no such option"),
            ("-?retry_max=1s", "no such option"),
            ("-?spool_size=1M", "no such option"),
            ("syslog+udp://h?spool_size=1M", "no such option"),
            ("https://u:p@host/x", "no place for a user"),
            ("syslog+tcp://u@host", "no place for a user"),
            ("syslog+tcp://host:99999", "port"),
            ("syslog+tcp://", "name a host"),
            ("syslog+tcp://h/x", "nothing behind"),
            ("syslog+unix://x", "absolute"),
            ("syslog+tls://h?cert=/c", "both"),
            ("splunk+https://h", "token"),
            ("clickhouse+http://h?table=a;b", "TABLE"),
            ("https://h?ca=x", "absolute"),
            ("https://h?spool_size=1", "256k"),
            ("https://h?name=../x", "letters"),
        ] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(error.contains(word), "{url}: {error}");
        }
        if !cfg!(feature = "kafka") {
            assert_eq!(Target::parse("kafka://b/t"), Err(UrlError::NotBuilt));
        }
    }

    #[test]
    fn names_and_folders_hold_no_options_and_differ() {
        let one = parse("https://h:1/a?token_file=/secret");
        assert_eq!(one.name, "https://h:1/a");
        let folder = one.folder_name();
        assert!(folder.starts_with("https---h-1-a-"), "{folder}");
        assert_ne!(folder, parse("https://h/1/a").folder_name());
        assert_eq!(parse("https://h?name=siem").folder_name(), "siem");
    }

    #[test]
    fn only_what_answers_is_durable() {
        for (url, durable) in [
            ("-", false),
            ("file:///x", true),
            ("syslog+udp://h", false),
            ("syslog+tcp://h", true),
            ("syslog+unix:///dev/log", true),
            ("loki+http://h", true),
        ] {
            assert_eq!(parse(url).is_durable(), durable, "{url}");
        }
    }
}
