//! An HTTPS receiver that demands a client certificate of its authority.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rstscope::sink::{Counters, Patience, Place, Style, Target, Writer, open_all};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::campaign::folder;
use crate::daemons::certificates;
use crate::feeder::{emission, id, record};

/// A server with the certificates of a folder, for clients with one of the same authority.
pub fn server(folder: &Path) -> Arc<ServerConfig> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let certificate = |name: &str| CertificateDer::from_pem_file(folder.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![certificate("server.pem")], key)
        .unwrap();
    Arc::new(config)
}

/// Takes requests as long as there are some, and keeps their bodies.
fn take(config: &Arc<ServerConfig>, socket: TcpStream, bodies: &Mutex<String>) -> Option<()> {
    let tls = ServerConnection::new(Arc::clone(config)).ok()?;
    let mut stream = BufReader::new(StreamOwned::new(tls, socket));
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            // The end of the stream, or no good certificate.
            stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        *bodies.lock().unwrap() += &String::from_utf8(body).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer).ok()?;
    }
}

#[test]
fn a_receiver_that_wants_a_certificate_takes_records_only_from_who_has_one() {
    let folder = folder("https");
    certificates(&folder);
    let (config, bodies) = (server(&folder), Arc::new(Mutex::new(String::new())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::clone(&bodies);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (config, kept) = (Arc::clone(&config), Arc::clone(&kept));
            std::thread::spawn(move || take(&config, socket, &kept));
        }
    });
    let place = Place::in_memory(Patience::None);
    let spawn = |more: &str| {
        let ca = folder.join("ca.pem");
        let url = format!(
            "https://127.0.0.1:{port}/in?ca={}&retry_max=200ms{more}",
            ca.display()
        );
        let outlets = open_all(&[Target::parse(&url).unwrap()], Style::default(), &place).unwrap();
        let writer = Writer::spawn(outlets, 8, &place, |_| {}).unwrap();
        writer.output().try_send(record(1), &emission());
        writer
    };
    let stranger = spawn("");
    let counters = Arc::clone(&stranger.output().counters()[0].1);
    let until = Instant::now() + Duration::from_secs(20);
    while Counters::get(&counters.failures) == 0 {
        assert!(Instant::now() < until, "it never fails");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(stranger.finish().lost(), 1, "in memory only, and said so");
    assert_eq!(*bodies.lock().unwrap(), "");

    let file = |name: &str| folder.join(name).display().to_string();
    let (cert, key) = (file("client.pem"), file("client.key"));
    let totals = spawn(&format!("&cert={cert}&key={key}")).finish();
    assert_eq!((totals.outputs[0].written, totals.lost()), (1, 0));
    assert!(bodies.lock().unwrap().contains(&id(1)));
    let _ = fs::remove_dir_all(&folder);
}
