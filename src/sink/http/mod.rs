//! Receivers behind HTTP. A batch is one POST; what its answer means is the same for all but where a
//! dialect knows better. What the receiver may take later is sent again, what is too large is halved,
//! and a record that alone is refused is refused for good. Nothing is believed without an answer.

mod clickhouse;
mod elastic;
mod loki;
mod splunk;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body, http};

use super::Error;
use super::entry::Entry;
use super::target::{Credentials, Dialect, HttpTarget, TlsFiles};
use super::tls;
use super::transport::{Delivered, Failure, Fate, Transport};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer that is read: `_bulk` says some 300 bytes of each record.
const ANSWER_BYTES: u64 = 8 << 20;
/// What is kept of an answer for the operator.
const WORDS: usize = 200;
/// A secret longer than this was meant as something else.
const SECRET_BYTES: u64 = 64 << 10;

/// What a receiver answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: String,
}

impl Answer {
    /// Its status and its first words.
    fn words(&self) -> String {
        let words: String = self
            .body
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(WORDS)
            .collect();
        format!("HTTP {} {}", self.status, words.trim())
    }
}

/// A way to one HTTP receiver.
pub(super) struct HttpTransport {
    output: String,
    target: HttpTarget,
    agent: Agent,
    authorization: Option<String>,
    host: String,
    splunk: splunk::Channel,
    /// ClickHouse knows the token of a batch, as far as it did not say otherwise.
    knows_token: bool,
}

impl HttpTransport {
    pub(super) fn open(output: &str, target: &HttpTarget) -> Result<Self, Error> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirected POST becomes a GET, which delivers nothing and is answered by 200.
            .max_redirects(0)
            .user_agent(concat!("rstscope/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(target.timeout));
        if target.tls {
            config = config.tls_config(tls_config(output, &target.files)?);
        }
        Ok(Self {
            output: output.to_owned(),
            authorization: authorization(output, target)?,
            target: target.clone(),
            agent: config.build().new_agent(),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            splunk: splunk::Channel::new(),
            knows_token: true,
        })
    }

    fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer, Failure> {
        let scheme = if self.target.tls { "https" } else { "http" };
        let url = format!("{scheme}://{}{path}", self.target.authority);
        let mut request = self.agent.post(&url).header("content-type", content_type);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if matches!(self.target.dialect, Dialect::Splunk { .. }) {
            request = request.header("x-splunk-request-channel", self.splunk.id());
        }
        let answer = request.send(body).map_err(|error| self.unreached(&error))?;
        self.read(answer)
    }

    fn read(&self, mut answer: http::Response<Body>) -> Result<Answer, Failure> {
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(|error| self.unreached(&error))?;
        Ok(Answer {
            status: answer.status().as_u16(),
            retry_after,
            body,
        })
    }

    fn unreached(&self, error: &ureq::Error) -> Failure {
        let remedy = match error {
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => {
                ": see ?ca=, ?cert= and ?key=, and the host's name"
            }
            ureq::Error::HostNotFound => ": its name is not known",
            _ => "",
        };
        Failure::new(format!("{}: {error}{remedy}", self.target.authority))
    }

    /// Sends a batch, in parts where it must be.
    fn send(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        let answer = match self.ask(batch) {
            Ok(answer) => answer,
            Err(failure) => return Delivered::failed(batch.len(), failure),
        };
        match answer.status {
            200..=299 => self.taken(batch, &answer),
            413 => self.halve(batch, &answer),
            _ if self.learn_no_token(&answer) => self.send(batch),
            // The configuration is wrong, or the receiver is not ready: nothing is wrong with the
            // records.
            300..=399 | 401 | 403..=405 | 407 | 408 | 421 | 425 | 429 | 500.. => {
                Delivered::failed(batch.len(), self.not_now(&answer))
            }
            _ => self.halve(batch, &answer),
        }
    }

    /// Whether the server refused the token alone; it is left out from then on.
    fn learn_no_token(&mut self, answer: &Answer) -> bool {
        let is_clickhouse = matches!(self.target.dialect, Dialect::ClickHouse { .. });
        let is_news = is_clickhouse && self.knows_token && clickhouse::knows_no_token(&answer.body);
        self.knows_token &= !is_news;
        is_news
    }

    fn not_now(&mut self, answer: &Answer) -> Failure {
        let remedy = match answer.status {
            300..=399 => ": the receiver moved: name its new address",
            401 | 403 => {
                // Perhaps the file holds another secret by now.
                if let Ok(authorization) = authorization(&self.output, &self.target) {
                    self.authorization = authorization;
                }
                ": see ?token_file=, or ?user= and ?password_file="
            }
            404 | 405 => ": see the path of the URL",
            _ => "",
        };
        Failure {
            what: format!("{}: {}{remedy}", self.target.authority, answer.words()),
            retry_after: answer.retry_after,
        }
    }

    /// Both halves for themselves; a single record is refused.
    fn halve(&mut self, batch: &[Arc<Entry>], answer: &Answer) -> Delivered {
        if batch.len() < 2 {
            return Delivered::all(batch.len(), Fate::Refused(answer.words()));
        }
        let (left, right) = batch.split_at(batch.len() / 2);
        let mut delivered = self.send(left);
        let rest = if delivered.failure.is_none() {
            self.send(right)
        } else {
            Delivered::all(right.len(), Fate::Again)
        };
        delivered.fates.extend(rest.fates);
        delivered.failure = delivered.failure.or(rest.failure);
        delivered
    }

    fn ask(&self, batch: &[Arc<Entry>]) -> Result<Answer, Failure> {
        match &self.target.dialect {
            Dialect::Elastic => {
                let path = elastic::path(&self.target.path);
                self.post(&path, "application/x-ndjson", &elastic::body(batch))
            }
            Dialect::Splunk { index, .. } => {
                let body = splunk::body(batch, &self.host, index.as_deref());
                let path = format!("{}{}", self.target.path, splunk::EVENTS);
                self.post(&path, "application/json", &body)
            }
            Dialect::ClickHouse { table } => {
                let path = clickhouse::path(&self.target.path, table, batch, self.knows_token);
                self.post(&path, "application/x-ndjson", &clickhouse::body(batch))
            }
            Dialect::Loki => {
                let path = format!("{}{}", self.target.path, loki::PUSH);
                self.post(&path, "application/json", &loki::body(batch, &self.host))
            }
            Dialect::Lines => {
                let path = if self.target.path.is_empty() {
                    "/"
                } else {
                    &self.target.path
                };
                self.post(path, "application/x-ndjson", &lines(batch))
            }
        }
    }

    /// The receiver said yes; some say of what.
    fn taken(&self, batch: &[Arc<Entry>], answer: &Answer) -> Delivered {
        match &self.target.dialect {
            Dialect::Elastic => elastic::delivered(&answer.body, batch.len()),
            Dialect::Splunk { ack, .. } => match (ack, splunk::ack_id(&answer.body)) {
                (_, Err(what)) => Delivered::failed(batch.len(), Failure::new(what)),
                // Without an id this token has no acknowledgement: the answer is all there is.
                (None, _) | (_, Ok(None)) => Delivered::all(batch.len(), Fate::Taken),
                (Some(limit), Ok(Some(id))) => self.acknowledged(batch.len(), id, *limit),
            },
            _ => Delivered::all(batch.len(), Fate::Taken),
        }
    }

    /// Asks until the indexer has the batch.
    fn acknowledged(&self, count: usize, id: u64, limit: Duration) -> Delivered {
        let path = format!("{}{}", self.target.path, splunk::ACKS);
        let asked = splunk::question(id);
        let until = super::clock::now() + limit;
        let mut wait = splunk::FIRST_QUESTION;
        loop {
            std::thread::sleep(wait);
            match self.post(&path, "application/json", &asked) {
                Ok(answer) if splunk::is_acknowledged(&answer.body, id) => {
                    return Delivered::all(count, Fate::Taken);
                }
                Ok(_) => {}
                Err(failure) => return Delivered::failed(count, failure),
            }
            if super::clock::now() >= until {
                let what = format!(
                    "{}: a batch was not acknowledged within {limit:?}",
                    self.target.authority
                );
                return Delivered::failed(count, Failure::new(what));
            }
            wait = (wait * 2).min(splunk::LAST_QUESTION);
        }
    }
}

impl Transport for HttpTransport {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        self.send(batch)
    }

    fn linger(&self) -> Duration {
        match self.target.dialect {
            // Each insert is a part on its disk: about one a second (its documentation's advice).
            Dialect::ClickHouse { .. } => Duration::from_secs(1),
            _ => Duration::from_millis(200),
        }
    }
}

/// JSON lines.
fn lines(batch: &[Arc<Entry>]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in batch {
        body.extend_from_slice(&entry.body);
        body.push(b'\n');
    }
    body
}

fn authorization(output: &str, target: &HttpTarget) -> Result<Option<String>, Error> {
    Ok(match &target.credentials {
        Credentials::None => None,
        Credentials::Token(path) => {
            let token = secret(output, path)?;
            let scheme = match target.dialect {
                Dialect::Splunk { .. } => "Splunk",
                Dialect::Elastic => "ApiKey",
                _ => "Bearer",
            };
            Some(format!("{scheme} {token}"))
        }
        Credentials::Password(user, path) => {
            let password = secret(output, path)?;
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            Some(format!("Basic {encoded}"))
        }
    })
}

/// The first line of a file.
fn secret(output: &str, path: &Path) -> Result<String, Error> {
    let odd = |why: String| Error::Secret {
        output: output.to_owned(),
        path: PathBuf::from(path),
        why,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES).read_to_string(&mut text))
        .map_err(|error| odd(format!("cannot read: {error}")))?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || line.contains(char::is_control) {
        return Err(odd("its first line must be the secret".to_owned()));
    }
    Ok(line.to_owned())
}

fn tls_config(output: &str, files: &TlsFiles) -> Result<TlsConfig, Error> {
    // The HTTP client would panic where certificate and key do not match; this finds it first.
    tls::client(output, files)?;
    let material = tls::read(output, files)?;
    let roots: Vec<Certificate<'static>> = material
        .roots
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    let identity = material.identity.map(|(chain, _)| {
        let chain: Vec<Certificate<'static>> = chain
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        chain
    });
    let identity = match (identity, &files.identity) {
        (Some(chain), Some((_, path))) => {
            let odd = |why: String| Error::Secret {
                output: output.to_owned(),
                path: path.clone(),
                why,
            };
            let pem = std::fs::read(path).map_err(|error| odd(error.to_string()))?;
            let key = PrivateKey::from_pem(&pem).map_err(|error| odd(error.to_string()))?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
        _ => None,
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(identity)
        .unversioned_rustls_crypto_provider(tls::provider())
        .build())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{HttpTransport, secret};
    use crate::sink::scratch::folder;
    use crate::sink::target::{Kind, Target};

    #[test]
    fn a_secret_is_the_first_line_of_its_file() {
        let folder = folder("secret");
        let path = folder.join("token");
        fs::write(&path, "s3cret\n\n").unwrap();
        assert_eq!(secret("o", &path).unwrap(), "s3cret");
        for odd in ["", "\n", "a\tb"] {
            fs::write(&path, odd).unwrap();
            assert!(
                secret("o", &path)
                    .unwrap_err()
                    .to_string()
                    .contains("first line")
            );
        }
        let gone = secret("o", &folder.join("none")).unwrap_err().to_string();
        assert!(
            gone.contains("cannot read") && gone.contains("none"),
            "{gone}"
        );
    }

    #[test]
    fn who_we_are_is_told_in_the_receivers_own_way() {
        let folder = folder("authorization");
        let file = folder.join("secret");
        fs::write(&file, "x").unwrap();
        let file = file.display();
        for (url, header) in [
            (format!("splunk+http://h?token_file={file}"), "Splunk x"),
            (format!("elastic+http://h?token_file={file}"), "ApiKey x"),
            (format!("http://h?token_file={file}"), "Bearer x"),
            (
                format!("http://h?user=u&password_file={file}"),
                "Basic dTp4",
            ),
        ] {
            let Kind::Http(target) = Target::parse(&url).unwrap().kind else {
                panic!("{url}")
            };
            let transport = HttpTransport::open("o", &target).unwrap();
            assert_eq!(transport.authorization.as_deref(), Some(header), "{url}");
        }
    }
}
