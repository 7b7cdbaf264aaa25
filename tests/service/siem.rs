//! Receivers that a sensor in the lab finds by name, and speaks to by TLS: `tests/lab/receiver.py` in the
//! load balancer host's namespace. It may be away, and come later.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::lab::records::records;
use crate::lab::{Lab, Sensor, command, text};

/// The receiver's name, which only its own name server knows.
pub const NAME: &str = "siem.rstscope.test";
/// How long something may take that is waited for; a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The receivers of `tests/lab/receiver.py`, or nobody yet.
pub struct Siem {
    folder: PathBuf,
    child: Option<Child>,
    resolver: PathBuf,
}

impl Siem {
    /// Certificates for the name, and a resolver that asks 127.0.0.1; nobody listens yet.
    pub fn prepare(lab: &Lab) -> Self {
        let folder = lab.dir.join("siem");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let script = format!(
            "openssl req -x509 -days 30 -subj '/CN=test CA' -newkey ec \
             -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem && \
             openssl req -subj /CN=server -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -keyout server.key -out server.csr && printf 'subjectAltName=DNS:{NAME}\\n' >san && \
             openssl x509 -req -days 30 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
             -extfile san -out server.pem"
        );
        let made = command("sh", &["-c", &script])
            .current_dir(&folder)
            .output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        // `ip netns exec` puts it in the place of /etc/resolv.conf.
        let resolver = PathBuf::from(format!("/etc/netns/{}lb", lab.prefix));
        fs::create_dir_all(&resolver).unwrap();
        let asks = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        fs::write(resolver.join("resolv.conf"), asks).unwrap();
        Self {
            folder,
            child: None,
            resolver,
        }
    }

    pub fn start(&mut self, lab: &Lab) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/receiver.py");
        let folder = self.folder.to_str().unwrap();
        let words = ["/usr/bin/python3", "-B", script, "--folder", folder];
        let mut child = lab
            .exec("lb", &words)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        self.child = Some(child);
    }

    /// The outputs of both kinds.
    pub fn urls(&self) -> [String; 2] {
        let ca = self.folder.join("ca.pem").display().to_string();
        [
            format!("https://{NAME}:8443/in?ca={ca}&retry_max=500ms"),
            format!("syslog+tls://{NAME}:6514?ca={ca}&retry_max=500ms&hold=500ms"),
        ]
    }

    pub fn ids(&self, receiver: &str) -> BTreeSet<String> {
        let path = self.folder.join(receiver);
        if path.exists() {
            ids(&path)
        } else {
            BTreeSet::new()
        }
    }
}

impl Drop for Siem {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.resolver);
    }
}

pub fn ids(path: &Path) -> BTreeSet<String> {
    let id = |record: &serde_json::Value| record["event"]["id"].as_str().unwrap().to_owned();
    records(path).iter().map(id).collect()
}

/// Waits until it holds.
pub fn until(what: &str, sensor: &Sensor, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: {}", sensor.said());
        std::thread::sleep(Duration::from_millis(100));
    }
}
