//! The numbers over HTTP: `/metrics`, `/healthz` (the watch over the sensor turns) and `/readyz` (it
//! watches everything that it was told to). GET only; it reads no body and knows no secret.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tiny_http::{Header, Method, Request, Response};

use super::{Family, Form, render};

/// How old the numbers may be before the sensor is called unhealthy: they are new every second, and a
/// busy host is late.
const STALE: Duration = Duration::from_secs(10);

/// What is shown, renewed by whoever has the numbers.
#[derive(Debug, Default)]
pub struct Board {
    shown: Mutex<Shown>,
}

#[derive(Debug, Default, Clone)]
struct Shown {
    families: Arc<Vec<Family>>,
    /// Everything is watched that should be.
    is_ready: bool,
    at: Option<Instant>,
}

impl Board {
    /// Shows new numbers.
    pub fn show(&self, families: Vec<Family>, is_ready: bool, now: Instant) {
        let shown = Shown {
            families: Arc::new(families),
            is_ready,
            at: Some(now),
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// The numbers that are shown.
    #[must_use]
    pub fn families(&self) -> Arc<Vec<Family>> {
        self.now().families
    }

    fn now(&self) -> Shown {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Status, media type and text for a path.
    fn answer(&self, path: &str, form: Form, now: Instant) -> (u16, &'static str, String) {
        let plain = "text/plain; charset=utf-8";
        let shown = self.now();
        let is_fresh = shown
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < STALE);
        let verdict = |good: bool| if good { (200, "yes\n") } else { (503, "no\n") };
        let (status, text) = match path {
            "/metrics" => return (200, form.media_type(), render(&shown.families, form)),
            "/healthz" => verdict(is_fresh),
            "/readyz" => verdict(is_fresh && shown.is_ready),
            _ => (404, "there are /metrics, /healthz and /readyz\n"),
        };
        (status, plain, text.to_owned())
    }
}

/// The listening server; it ends with the process.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _thread: JoinHandle<()>,
}

impl Server {
    /// Serves what the board shows.
    ///
    /// # Errors
    ///
    /// What the system says to the socket or the thread.
    pub fn start(listener: TcpListener, board: Arc<Board>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let thread = std::thread::Builder::new()
            .name("rst-metrics".to_owned())
            .spawn(move || {
                for request in server.incoming_requests() {
                    respond(request, &board);
                }
            })?;
        Ok(Self {
            address,
            _thread: thread,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the age of what is shown, far from frames"
)]
fn respond(request: Request, board: &Board) {
    let (status, media_type, text) = if matches!(request.method(), Method::Get | Method::Head) {
        let path = request.url().split('?').next().unwrap_or_default();
        board.answer(path, form(&request), Instant::now())
    } else {
        (405, "text/plain", "only GET\n".to_owned())
    };
    let mut response = Response::from_string(text).with_status_code(status);
    if let Ok(header) = Header::from_bytes("Content-Type", media_type) {
        response.add_header(header);
    }
    // Who asked may have gone away.
    let _ = request.respond(response);
}

/// OpenMetrics for who names it, the older format for all others.
fn form(request: &Request) -> Form {
    let names_it = request.headers().iter().any(|header| {
        header.field.equiv("Accept")
            && header
                .value
                .as_str()
                .contains("application/openmetrics-text")
    });
    if names_it {
        Form::OpenMetrics
    } else {
        Form::Prometheus
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Board, STALE, Server};
    use crate::metrics::Form;
    use crate::metrics::sample::families;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test of ages")]
    fn health_is_freshness_and_readiness_is_said() {
        let (board, start) = (Board::default(), Instant::now());
        let status = |path: &str, now| board.answer(path, Form::Prometheus, now).0;
        assert_eq!(status("/healthz", start), 503, "nothing shown yet");
        board.show(families(), false, start);
        assert_eq!(
            (status("/healthz", start), status("/readyz", start)),
            (200, 503)
        );
        board.show(families(), true, start);
        assert_eq!(status("/readyz", start), 200);
        let late = start + STALE + Duration::from_millis(1);
        assert_eq!(
            (status("/healthz", late), status("/readyz", late)),
            (503, 503)
        );
        assert_eq!(status("/metrics", late), 200);
        assert_eq!(status("/etc/passwd", start), 404);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test of ages")]
    fn the_format_is_the_one_that_is_asked_for() {
        let board = Arc::new(Board::default());
        board.show(families(), true, Instant::now());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(listener, board).unwrap();
        let ask = |request: &str| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            write!(stream, "{request}\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let plain = ask("GET /metrics HTTP/1.1");
        assert!(
            plain.contains("version=0.0.4") && !plain.contains("# EOF"),
            "{plain}"
        );
        let open =
            ask("GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0");
        assert!(
            open.contains("openmetrics-text; version=1.0.0") && open.contains("# EOF"),
            "{open}"
        );
        assert!(ask("POST /metrics HTTP/1.1\r\nContent-Length: 0").starts_with("HTTP/1.1 405"));
    }
}
