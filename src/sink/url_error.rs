//! Why a URL is no output, in words that follow the URL in a sentence. No secret is ever repeated.

use std::fmt;

/// What there is, for who got the kind wrong.
const KINDS: &str = "outputs are `-` (standard output), file:///PATH, \
     syslog+tcp, syslog+tls and syslog+udp://HOST:PORT, syslog+unix:///PATH, elastic+https, splunk+https, \
     clickhouse+https, loki+https and https://HOST:PORT (or http), kafka://BROKERS/TOPIC";

/// Why a URL is no output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlError {
    /// Not a URL.
    NoUrl,
    /// No such kind of output.
    Scheme,
    /// The path cannot be meant.
    Path(&'static str),
    /// No host, or no port where one is needed.
    Host(&'static str),
    /// A user or password in the URL.
    Secret,
    /// An option, and what is wrong with it.
    Option(String, String),
    /// This program was built without it.
    NotBuilt,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUrl => write!(
                f,
                "not a URL; for a file write file:// and its absolute path; {KINDS}"
            ),
            Self::Scheme => write!(f, "there is no such kind of output; {KINDS}"),
            Self::Path(why) | Self::Host(why) => f.write_str(why),
            Self::Secret => f.write_str(
                "a URL is no place for a user or password, because URLs end up in logs: name files, \
                 ?user=NAME&password_file=PATH or ?token_file=PATH",
            ),
            Self::Option(key, why) => write!(f, "option {key}: {why}"),
            Self::NotBuilt => f.write_str(
                "this rstscope was built without Kafka: build it with `--features kafka`, or install the package, which has it",
            ),
        }
    }
}

impl std::error::Error for UrlError {}
