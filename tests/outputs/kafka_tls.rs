//! Kafka over TLS. The broker that librdkafka brings along speaks none, so a proxy in front of it ends the
//! TLS of real handshakes, demands a client certificate, and gives its own port for the broker's where a
//! broker's answers name it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rstscope::sink::{Counters, Patience, Place, Style, Target, Writer, open_all};
use rstscope::verdict::Verdict;
use rustls::{ServerConfig, ServerConnection};

use crate::campaign::{Receiver, folder, play};
use crate::daemons::certificates;
use crate::feeder;
use crate::https::server;
use crate::kafka::{PARTITIONS, Reader, TOPIC};

/// How long one side may be silent before the other one is looked at.
const TURN: Duration = Duration::from_millis(5);

/// What ends the TLS.
struct Proxy {
    port: u16,
    /// Handshakes that were finished, with the client's certificate.
    handshakes: Arc<AtomicU32>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(config: &Arc<ServerConfig>, broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (handshakes, sockets) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let proxy = Self {
            port,
            handshakes: Arc::clone(&handshakes),
            sockets: Arc::clone(&sockets),
        };
        let config = Arc::clone(config);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", broker)) else {
                    continue;
                };
                sockets.lock().unwrap().push(near.try_clone().unwrap());
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (handshakes, ports) = (Arc::clone(&handshakes), (broker, port));
                std::thread::spawn(move || {
                    // Whoever hangs up, or shows no good certificate, ends it.
                    let _ = carry(tls, &near, &far, ports, &handshakes);
                    let _ = near.shutdown(Shutdown::Both);
                    let _ = far.shutdown(Shutdown::Both);
                });
            }
        });
        proxy
    }

    /// What is under way in either direction is lost.
    fn cut(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn carry(
    mut tls: ServerConnection,
    mut near: &TcpStream,
    mut far: &TcpStream,
    (broker, ours): (u16, u16),
    handshakes: &AtomicU32,
) -> io::Result<()> {
    while tls.is_handshaking() {
        tls.complete_io(&mut near)?;
    }
    handshakes.fetch_add(1, Ordering::Relaxed);
    near.set_read_timeout(Some(TURN))?;
    far.set_read_timeout(Some(TURN))?;
    let (mut bytes, mut answers) = (vec![0; 1 << 16], Vec::new());
    loop {
        match tls.read_tls(&mut near) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                tls.process_new_packets().map_err(io::Error::other)?;
            }
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error),
        }
        while let Ok(count @ 1..) = tls.reader().read(&mut bytes) {
            far.write_all(&bytes[..count])?;
        }
        match far.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => answers.extend_from_slice(&bytes[..count]),
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error),
        }
        while let Some(mut answer) = next_answer(&mut answers) {
            rename(&mut answer, broker, ours);
            tls.writer().write_all(&answer)?;
            while tls.wants_write() {
                tls.write_tls(&mut near)?;
            }
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// One whole answer of a broker, behind its length.
fn next_answer(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize + 4;
    (bytes.len() >= length).then(|| bytes.drain(..length).collect())
}

/// In place of the broker's address, a name and a port of 32 bits, ours of the same length.
fn rename(answer: &mut [u8], broker: u16, ours: u16) {
    let address = |port: u16| [b"127.0.0.1".as_slice(), &u32::from(port).to_be_bytes()].concat();
    let (theirs, ours) = (address(broker), address(ours));
    for at in 0..answer.len().saturating_sub(theirs.len() - 1) {
        if answer[at..].starts_with(&theirs) {
            answer[at..at + ours.len()].copy_from_slice(&ours);
        }
    }
}

/// A broker behind the proxy, and what a sensor must know to reach it.
struct Secure {
    cluster: MockCluster<'static, DefaultProducerContext>,
    reader: Reader,
    proxy: Proxy,
    folder: PathBuf,
}

impl Secure {
    fn start(name: &str) -> Self {
        let folder = folder(name);
        certificates(&folder);
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let port = brokers.rsplit(':').next().unwrap().parse().unwrap();
        let proxy = Proxy::start(&server(&folder), port);
        let reader = Reader::start(&brokers);
        Self {
            cluster,
            reader,
            proxy,
            folder,
        }
    }

    /// The output's URL; `more` are further properties.
    fn url(&self, more: &str) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
        let properties = format!(
            "security.protocol=ssl\nssl.ca.location={ca}\nssl.certificate.location={cert}\n\
             ssl.key.location={key}\nssl.endpoint.identification.algorithm=https\n{more}"
        );
        fs::write(file("properties"), properties).unwrap();
        let (port, config) = (self.proxy.port, file("properties"));
        format!("kafka://127.0.0.1:{port}/{TOPIC}?retry_max=500ms&config={config}")
    }
}

impl Receiver for Secure {
    fn start(&mut self) {
        self.cluster.broker_up(1).unwrap();
    }

    fn kill(&mut self) {
        self.proxy.cut();
        self.cluster.broker_down(1).unwrap();
    }

    fn ids(&mut self) -> BTreeSet<String> {
        self.reader.ids()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_broker_that_wants_tls_and_a_certificate_gets_every_record_though_both_sides_are_killed() {
    let mut broker = Secure::start("kafka-tls");
    let url = broker.url("");
    play("kafka-tls", &url, &mut broker);
    let handshakes = broker.proxy.handshakes.load(Ordering::Relaxed);
    println!("kafka-tls: {handshakes} handshakes with a client certificate");
    assert!(handshakes > 3);
}

#[test]
fn a_broker_whose_authority_is_not_trusted_gets_nothing() {
    let broker = Secure::start("kafka-distrust");
    let other = folder("kafka-other-authority");
    certificates(&other);
    // The last one of a property counts.
    let ca = other.join("ca.pem");
    let url = broker.url(&format!(
        "ssl.ca.location={}\nmessage.timeout.ms=3000\n",
        ca.display()
    ));
    let place = Place::in_memory(Patience::None);
    let outlets = open_all(&[Target::parse(&url).unwrap()], Style::default(), &place).unwrap();
    let writer = Writer::spawn(outlets, 8, &place, |_| {}).unwrap();
    let record = feeder::reset(1, Verdict::Remote, "for the right broker only".to_owned());
    writer.output().try_send(record, &feeder::emission());
    let counters = Arc::clone(&writer.output().counters()[0].1);
    let until = Instant::now() + Duration::from_secs(60);
    while Counters::get(&counters.failures) == 0 {
        assert!(Instant::now() < until, "it never fails");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(Counters::get(&counters.delivered), 0);
    assert_eq!(broker.proxy.handshakes.load(Ordering::Relaxed), 0);
    assert!(broker.reader.ids().is_empty());
    assert_eq!(writer.finish().lost(), 1, "in memory only, and said so");
    let _ = fs::remove_dir_all(&other);
}
