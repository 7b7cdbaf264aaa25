//! The numbers over HTTP: `/metrics`, `/healthz` (the watch over the sensor turns) and `/readyz` (it
//! watches everything that it was told to). GET only; it knows no secret.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::request::{Answer, Request, serve};
use super::{Family, Form, render};

/// How old the numbers may be before the sensor is called unhealthy: they are new every second, and a
/// busy host is late.
const STALE: Duration = Duration::from_secs(10);

/// Connections that are served at once. The threads are all made at the start: who may connect must not be able to
/// take threads, files or memory from the sensor, which ends when it can have none.
const THREADS: usize = 4;

/// How long to wait before the next connection is taken when the last one could not be.
const PAUSE: Duration = Duration::from_millis(100);

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

    fn answer(&self, path: &str, form: Form, now: Instant) -> Answer {
        let shown = self.now();
        let is_fresh = shown
            .at
            .is_some_and(|at| now.saturating_duration_since(at) < STALE);
        let verdict = |good: bool| if good { (200, "yes\n") } else { (503, "no\n") };
        let (status, text) = match path {
            "/metrics" => {
                return Answer {
                    status: 200,
                    media_type: form.media_type(),
                    text: render(&shown.families, form),
                };
            }
            "/healthz" => verdict(is_fresh),
            "/readyz" => verdict(is_fresh && shown.is_ready),
            _ => (404, "there are /metrics, /healthz and /readyz\n"),
        };
        Answer::plain(status, text)
    }
}

/// The listening server; it ends with the process.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Serves what the board shows. All threads that it will ever have are made now.
    ///
    /// # Errors
    ///
    /// What the system says to the socket or a thread.
    pub fn start(listener: TcpListener, board: Arc<Board>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        for _ in 0..THREADS {
            let (listener, board) = (Arc::clone(&listener), Arc::clone(&board));
            std::thread::Builder::new()
                .name("rst-metrics".to_owned())
                .spawn(move || answer_all(&listener, &board))?;
        }
        Ok(Self { address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer_all(listener: &TcpListener, board: &Board) {
    loop {
        match listener.accept() {
            // Who asked may have gone away, or said nothing.
            Ok((stream, _)) => {
                let _ = serve(&stream, |request| respond(request, board));
            }
            // No file or memory is to be had. Later there may be.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the age of what is shown, far from frames"
)]
fn respond(request: Request<'_>, board: &Board) -> Answer {
    board.answer(request.path, request.form, Instant::now())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Board, STALE, Server, THREADS};
    use crate::metrics::Form;
    use crate::metrics::request::{HEAD_MAX, WAIT};
    use crate::metrics::sample::families;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test of ages")]
    fn health_is_freshness_and_readiness_is_said() {
        let (board, start) = (Board::default(), Instant::now());
        let status = |path: &str, now| board.answer(path, Form::Prometheus, now).status;
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
        let (head, text) = (ask("HEAD /healthz HTTP/1.1"), ask("GET /healthz HTTP/1.1"));
        assert!(text.ends_with("\r\n\r\nyes\n"), "{text}");
        assert_eq!(text.strip_suffix("yes\n"), Some(&*head));
    }

    /// Whoever may connect: nothing is kept for him beyond a thread that was there before, and that not for long.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test of waiting")]
    fn who_says_nothing_or_too_much_is_not_waited_for() {
        let board = Arc::new(Board::default());
        board.show(families(), true, Instant::now());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(listener, board).unwrap();
        let connect = || TcpStream::connect(server.address()).unwrap();
        let mut long = connect();
        let body = vec![b'a'; 4 * HEAD_MAX];
        write!(long, "GET /metrics HTTP/1.1\r\nX: ").unwrap();
        long.write_all(&body).unwrap();
        let mut text = String::new();
        long.shutdown(std::net::Shutdown::Write).unwrap();
        long.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 431"), "{text}");

        let silent: Vec<TcpStream> = (0..THREADS).map(|_| connect()).collect();
        let begun = Instant::now();
        let mut one = connect();
        write!(one, "GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        text.clear();
        one.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        // On a busy machine late, but not for as long as they would stay.
        assert!(begun.elapsed() < 10 * WAIT, "{:?}", begun.elapsed());
        drop(silent);
    }
}
