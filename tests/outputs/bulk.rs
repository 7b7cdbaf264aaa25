//! A small HTTP server that speaks what receivers of bulk speak, and misbehaves by a script: busy, too
//! large, half refused, silent. What it says it has, it has on disk, so that it can be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::campaign::{Random, Receiver, folder};
use crate::daemons::free_port;

/// What it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Elastic,
    Splunk,
    ClickHouse,
    Loki,
    Lines,
}

/// One way to misbehave, for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// This status and nothing else.
    Status(u16),
    /// 413 when there are more records than this.
    TooLarge(usize),
    /// Takes the request and never answers.
    Silent,
    /// Takes the records and hangs up without an answer.
    Forgetful,
    /// Of three records one is sent back and one refused (`_bulk` only).
    Partial,
    /// A 400 where this record is in the batch.
    Poisoned(&'static str),
    /// One of these at random, or good.
    Random,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub ids: Vec<String>,
}

struct Shared {
    speech: Speech,
    script: Mutex<Vec<Mood>>,
    /// When the script is over.
    mood: Mutex<Mood>,
    requests: Mutex<Vec<Request>>,
    file: PathBuf,
    stop: AtomicBool,
    acks: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
    random: Mutex<Random>,
}

/// The server.
pub struct Bulk {
    shared: Arc<Shared>,
    pub port: u16,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl Bulk {
    pub fn new(name: &str, speech: Speech, script: &[Mood], mood: Mood) -> Self {
        Self {
            shared: Arc::new(Shared {
                speech,
                script: Mutex::new(script.iter().rev().copied().collect()),
                mood: Mutex::new(mood),
                requests: Mutex::new(Vec::new()),
                file: folder(name).join("ids"),
                stop: AtomicBool::new(false),
                acks: AtomicU64::new(0),
                connections: Mutex::new(Vec::new()),
                random: Mutex::new(Random(7)),
            }),
            port: free_port(),
            acceptor: None,
        }
    }

    /// A URL of its kind; `more` are options.
    pub fn url(&self, more: &str) -> String {
        let scheme = match self.shared.speech {
            Speech::Elastic => "elastic+http",
            Speech::Splunk => "splunk+http",
            Speech::ClickHouse => "clickhouse+http",
            Speech::Loki => "loki+http",
            Speech::Lines => "http",
        };
        format!("{scheme}://127.0.0.1:{}?retry_max=200ms{more}", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn set_mood(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }
}

impl Receiver for Bulk {
    fn start(&mut self) {
        let listener = (0..100)
            .find_map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                TcpListener::bind(("127.0.0.1", self.port)).ok()
            })
            .expect("its port is free again");
        self.shared.stop.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.acceptor = Some(std::thread::spawn(move || {
            for socket in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let socket = socket.unwrap();
                let mut connections = shared.connections.lock().unwrap();
                connections.push(socket.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    while serve(&socket, &shared).is_some() {}
                    // The list of connections holds it open otherwise.
                    let _ = socket.shutdown(Shutdown::Both);
                });
            }
        }));
    }

    fn kill(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for socket in self.shared.connections.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }

    fn ids(&mut self) -> BTreeSet<String> {
        let text = fs::read_to_string(&self.shared.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One request; `None` ends the connection.
fn serve(socket: &TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim().split_once(": ") else {
            break;
        };
        headers.insert(key.to_lowercase(), value.to_owned());
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if path.ends_with("/services/collector/ack") {
        return acknowledge(socket, &body);
    }
    let records = records(shared.speech, &body);
    let ids: Vec<String> = records.iter().map(id_of).collect();
    let request = Request {
        path,
        headers,
        ids: ids.clone(),
    };
    shared.requests.lock().unwrap().push(request);
    if shared.stop.load(Ordering::SeqCst) {
        return None;
    }
    let (status, answer, kept) = judge(shared, &ids)?;
    keep(shared, &kept);
    if status == 0 {
        return None;
    }
    respond(socket, status, &answer)
}

fn respond(mut socket: &TcpStream, status: u16, answer: &str) -> Option<()> {
    let length = answer.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all((head + answer).as_bytes()).ok()
}

fn keep(shared: &Shared, ids: &[String]) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&shared.file)
        .unwrap();
    let mut text = ids.join("\n");
    text.push('\n');
    if !ids.is_empty() {
        file.write_all(text.as_bytes()).unwrap();
    }
}

fn acknowledge(socket: &TcpStream, body: &[u8]) -> Option<()> {
    let asked: Value = serde_json::from_slice(body).ok()?;
    let acks: serde_json::Map<String, Value> = asked["acks"]
        .as_array()?
        .iter()
        .map(|id| (id.to_string(), Value::Bool(true)))
        .collect();
    respond(socket, 200, &json!({"acks": acks}).to_string())
}

/// Status, answer, and the records that are kept; status 0 hangs up, `None` says nothing ever.
fn judge(shared: &Shared, ids: &[String]) -> Option<(u16, String, Vec<String>)> {
    let fallback = *shared.mood.lock().unwrap();
    let mut mood = shared.script.lock().unwrap().pop().unwrap_or(fallback);
    if mood == Mood::Random {
        let moods = [
            Mood::Status(429),
            Mood::Status(503),
            Mood::TooLarge(20),
            Mood::Forgetful,
            Mood::Partial,
        ];
        let at = shared.random.lock().unwrap().below(12);
        mood = usize::try_from(at)
            .ok()
            .and_then(|at| moods.get(at))
            .copied()
            .unwrap_or(Mood::Good);
        // Only `_bulk` can say which.
        if mood == Mood::Partial && shared.speech != Speech::Elastic {
            mood = Mood::Good;
        }
    }
    let nothing = Vec::new();
    Some(match mood {
        Mood::Status(status) => (status, "{\"error\":\"mood\"}".to_owned(), nothing),
        Mood::TooLarge(limit) if ids.len() > limit => (413, String::new(), nothing),
        Mood::Silent => {
            std::thread::sleep(Duration::from_secs(3));
            return None;
        }
        Mood::Forgetful => (0, String::new(), ids.to_vec()),
        Mood::Poisoned(id) if ids.iter().any(|other| other == id) => {
            (400, "{\"error\":\"odd record\"}".to_owned(), nothing)
        }
        Mood::Partial => partial(ids),
        _ => (200, good(shared, ids), ids.to_vec()),
    })
}

fn good(shared: &Shared, ids: &[String]) -> String {
    match shared.speech {
        Speech::Elastic => {
            let items: Vec<Value> = ids
                .iter()
                .map(|_| json!({"create": {"status": 201}}))
                .collect();
            json!({"errors": false, "items": items}).to_string()
        }
        Speech::Splunk => {
            let id = shared.acks.fetch_add(1, Ordering::SeqCst);
            json!({"text": "Success", "code": 0, "ackId": id}).to_string()
        }
        _ => String::new(),
    }
}

/// The first of three is taken (or was there already), the second sent back, the third taken.
fn partial(ids: &[String]) -> (u16, String, Vec<String>) {
    let mut kept = Vec::new();
    let items: Vec<Value> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| {
            if at % 3 == 1 {
                return json!({"create": {"status": 429, "error": {"type": "busy"}}});
            }
            kept.push(id.clone());
            json!({"create": {"status": if at % 3 == 0 { 409 } else { 201 }}})
        })
        .collect();
    (
        200,
        json!({"errors": true, "items": items}).to_string(),
        kept,
    )
}

/// The records of a body, checked for the form that its receiver demands.
fn records(speech: Speech, body: &[u8]) -> Vec<Value> {
    let stream = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let values: Vec<Value> = stream.map(|value| value.expect("a body of JSON")).collect();
    let inner = |value: &Value| serde_json::from_str(value.as_str().unwrap()).unwrap();
    match speech {
        Speech::Lines => values,
        Speech::Elastic => values
            .chunks(2)
            .map(|pair| {
                assert_eq!(pair[0]["create"]["_id"], pair[1]["event"]["id"]);
                pair[1].clone()
            })
            .collect(),
        Speech::Splunk => values.iter().map(|value| value["event"].clone()).collect(),
        Speech::ClickHouse => values.iter().map(|value| inner(&value["record"])).collect(),
        Speech::Loki => values
            .iter()
            .flat_map(|push| push["streams"].as_array().unwrap())
            .flat_map(|stream| stream["values"].as_array().unwrap())
            .map(|value| inner(&value[1]))
            .collect(),
    }
}

fn id_of(record: &Value) -> String {
    record["event"]["id"]
        .as_str()
        .expect("an event.id")
        .to_owned()
}
