//! Real syslog servers: rsyslog and syslog-ng, over TCP and TLS, each with a configuration of its own
//! in a folder of its own. A server that is not installed skips its tests, visibly.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::campaign::{Receiver, folder};

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rsyslog,
    SyslogNg,
}

/// A server and its folder.
pub struct Daemon {
    kind: Kind,
    tls: bool,
    pub folder: PathBuf,
    pub port: u16,
    child: Option<Child>,
}

/// A port that nobody has now, and that no connection gets by itself: below the ephemeral ones.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..1000)
        .map(|_| {
            (std::process::id().wrapping_mul(31) % 10_000 + NEXT.fetch_add(1, Ordering::Relaxed))
                % 10_000
        })
        .filter_map(|offset| u16::try_from(20_000 + offset).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Where syslog-ng is: it cannot be installed beside rsyslog, so `scripts/setup` unpacks it.
fn syslog_ng() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/syslog-ng");
    [root, PathBuf::from("/")]
        .into_iter()
        .map(|root| (root.join("usr/sbin/syslog-ng"), root))
        .find(|(program, _)| program.exists())
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// An authority, a server's certificate for 127.0.0.1, and a client's.
pub fn certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| run("openssl", arguments, folder);
    let new = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let mut ca = vec!["req", "-x509", "-days", "30", "-subj", "/CN=test CA"];
    ca.extend(["-keyout", "ca.key", "-out", "ca.pem"]);
    ca.extend(new);
    openssl(&ca);
    fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for name in ["server", "client"] {
        let (key, request, cert, subject) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
            format!("/CN={name}"),
        );
        let mut ask = vec!["req", "-subj", &subject, "-keyout", &key, "-out", &request];
        ask.extend(new);
        openssl(&ask);
        let mut sign = vec![
            "x509", "-req", "-days", "30", "-in", &request, "-out", &cert,
        ];
        sign.extend(["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]);
        sign.extend(["-extfile", "san"]);
        openssl(&sign);
    }
}

impl Daemon {
    /// The server, not yet started; `None` when it is not installed.
    pub fn new(name: &str, kind: Kind, tls: bool) -> Option<Self> {
        let here = match kind {
            Kind::Rsyslog => Path::new("/usr/sbin/rsyslogd").exists(),
            Kind::SyslogNg => syslog_ng().is_some(),
        };
        if !here {
            println!("skipped: {name}: the server is not installed (scripts/setup)");
            return None;
        }
        let daemon = Self {
            kind,
            tls,
            folder: folder(name),
            port: free_port(),
            child: None,
        };
        if tls {
            certificates(&daemon.folder);
        }
        let text = match kind {
            Kind::Rsyslog => daemon.rsyslog(),
            Kind::SyslogNg => daemon.syslog_ng(),
        };
        fs::write(daemon.folder.join("conf"), text).unwrap();
        Some(daemon)
    }

    /// The output's URL.
    pub fn url(&self) -> String {
        let folder = self.folder.display();
        let port = self.port;
        if self.tls {
            format!(
                "syslog+tls://127.0.0.1:{port}?retry_max=500ms&ca={folder}/ca.pem\
                 &cert={folder}/client.pem&key={folder}/client.key"
            )
        } else {
            format!("syslog+tcp://127.0.0.1:{port}?retry_max=500ms")
        }
    }

    fn rsyslog(&self) -> String {
        let folder = self.folder.display();
        let port = self.port;
        let (global, module) = if self.tls {
            (
                format!(
                    "DefaultNetstreamDriver=\"gtls\" \
                     DefaultNetstreamDriverCAFile=\"{folder}/ca.pem\" \
                     DefaultNetstreamDriverCertFile=\"{folder}/server.pem\" \
                     DefaultNetstreamDriverKeyFile=\"{folder}/server.key\""
                ),
                "StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" \
                 StreamDriver.AuthMode=\"x509/certvalid\"",
            )
        } else {
            (String::new(), "")
        };
        format!(
            "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\" {global})\n\
             module(load=\"imtcp\" {module})\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             template(name=\"line\" type=\"string\" \
             string=\"%syslogseverity% %app-name% %msgid% %msg%\\n\")\n\
             action(type=\"omfile\" file=\"{folder}/out\" template=\"line\")\n"
        )
    }

    fn syslog_ng(&self) -> String {
        let folder = self.folder.display();
        let port = self.port;
        let transport = if self.tls {
            format!(
                "transport(\"tls\") tls(key-file(\"{folder}/server.key\") \
                 cert-file(\"{folder}/server.pem\") ca-file(\"{folder}/ca.pem\") \
                 peer-verify(required-trusted))"
            )
        } else {
            "transport(\"tcp\")".to_owned()
        };
        format!(
            "@version: 3.38\n\
             options {{ log-msg-size(65536); flush-lines(1); stats-freq(0); }};\n\
             source s {{ syslog(ip(127.0.0.1) port({port}) {transport}); }};\n\
             destination d {{ file(\"{folder}/out\" template(\"$LEVEL_NUM $PROGRAM $MSGID $MSG\\n\")); }};\n\
             log {{ source(s); destination(d); }};\n"
        )
    }

    fn command(&self) -> Command {
        let file = |name: &str| self.folder.join(name);
        match self.kind {
            Kind::Rsyslog => {
                let mut command = Command::new("/usr/sbin/rsyslogd");
                command
                    .arg("-n")
                    .arg("-f")
                    .arg(file("conf"))
                    .arg("-i")
                    .arg(file("pid"));
                command
            }
            Kind::SyslogNg => {
                let (program, root) = syslog_ng().unwrap();
                let libraries = [
                    "usr/lib/syslog-ng",
                    "usr/lib/x86_64-linux-gnu",
                    "lib/x86_64-linux-gnu",
                ]
                .map(|part| root.join(part).display().to_string());
                let mut command = Command::new(program);
                command
                    .env("LD_LIBRARY_PATH", libraries.join(":"))
                    .arg("--foreground")
                    .arg("--no-caps")
                    .arg(format!(
                        "--module-path={}",
                        root.join("usr/lib/syslog-ng/3.38").display()
                    ))
                    .arg("-f")
                    .arg(file("conf"))
                    .arg("-R")
                    .arg(file("persist"))
                    .arg("-p")
                    .arg(file("pid"))
                    .arg("-c")
                    .arg(file("control"));
                command
            }
        }
    }

    /// What it wrote, line by line.
    pub fn lines(&self) -> Vec<String> {
        let bytes = fs::read(self.folder.join("out")).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// The record in a line of severity, program, message id and message.
pub fn parse(line: &str) -> Option<(&str, Value)> {
    let mut parts = line.splitn(4, ' ');
    let severity = parts.next()?;
    let (program, _id, message) = (parts.next()?, parts.next()?, parts.next()?);
    if program != "rstscope" {
        return None;
    }
    // rsyslog keeps the space that ends the structured data.
    Some((severity, serde_json::from_str(message.trim_start()).ok()?))
}

impl Receiver for Daemon {
    fn start(&mut self) {
        // A pid file of a killed one would keep the next from starting.
        let _ = fs::remove_file(self.folder.join("pid"));
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let child = self
            .command()
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "it does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn ids(&mut self) -> BTreeSet<String> {
        self.lines()
            .iter()
            .filter_map(|line| {
                let (_, record) = parse(line)?;
                Some(record["event"]["id"].as_str()?.to_owned())
            })
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
