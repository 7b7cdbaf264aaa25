//! Outputs as the user says them: a URL, to what it means. No I/O: files that it names are opened later.
//! A URL never holds a secret, because URLs end up in logs and process lists; it names files that do.

mod kind;

use std::time::Duration;

use super::filter::Filter;
use super::query::Query;
use super::url_error::UrlError;
use crate::record::Format;
pub use kind::{
    Credentials, Dialect, FileTarget, HttpTarget, KafkaTarget, Kind, SyslogTarget, SyslogWay,
    TlsFiles,
};

/// In place of the scheme that `-` does not have.
const STANDARD: &str = "standard";
/// Size of an output's spool where none is said: at 2 KB a record a quarter of a million records.
const SPOOL_BYTES: u64 = 512 << 20;
/// The least that makes sense: some hundred records.
const SPOOL_LEAST: u64 = 256 << 10;
/// The longest wait between two attempts where none is said.
const RETRY_MAX: Duration = Duration::from_secs(60);

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
            (scheme, Kind::parse(scheme, rest, &mut query)?)
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

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
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
