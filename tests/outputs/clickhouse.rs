//! ClickHouse's own server, as Debian has it (18.16): what the output puts on the wire, and that nothing
//! is lost while it and the sensor are killed. What it stores outlives a kill, as a part is a file before
//! an insert is answered.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rstscope::record::to_json;
use rstscope::sink::{Patience, Place, Style, Target, Writer, open_all};
use serde_json::Value;

use crate::campaign::{Receiver, folder, play};
use crate::daemons::free_port;
use crate::feeder::{emission, id, record};

/// docs/outputs.md: enough for a start.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS rstscope (event_id String, time Int64, verdict String, \
                     community_id String, record String) ENGINE = MergeTree PARTITION BY tuple() ORDER BY event_id";

/// A server with a folder of its own.
struct Server {
    root: PathBuf,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

/// Where it is: unpacked by `scripts/setup`, since no server shall be installed, or installed.
fn found() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/clickhouse");
    let is_there = |root: &PathBuf| root.join("usr/sbin/clickhouse-server").exists();
    [unpacked, PathBuf::from("/")].into_iter().find(is_there)
}

impl Server {
    /// The server, not yet started; `None` when it is not here.
    fn new(name: &str) -> Option<Self> {
        let Some(root) = found() else {
            println!("skipped: {name}: clickhouse-server is not here (scripts/setup)");
            return None;
        };
        let server = Self {
            root,
            folder: folder(name),
            port: free_port(),
            child: None,
        };
        let data = server.folder.join("data").display().to_string();
        let (port, users) = (server.port, server.folder.join("users.xml"));
        let config = format!(
            "<yandex><logger><level>warning</level><console>1</console></logger>\
             <http_port>{port}</http_port><listen_host>127.0.0.1</listen_host>\
             <path>{data}/</path><tmp_path>{data}/tmp/</tmp_path>\
             <users_config>{}</users_config><default_profile>default</default_profile>\
             <default_database>default</default_database>\
             <mark_cache_size>67108864</mark_cache_size></yandex>",
            users.display()
        );
        fs::create_dir(&data).unwrap();
        fs::write(server.folder.join("config.xml"), config).unwrap();
        fs::write(
            users,
            "<yandex><profiles><default/></profiles><users><default><password></password>\
             <networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
             <quota>default</quota></default></users><quotas><default/></quotas></yandex>",
        )
        .unwrap();
        Some(server)
    }

    fn url(&self) -> String {
        format!("clickhouse+http://127.0.0.1:{}?retry_max=200ms", self.port)
    }

    /// What it answers; `None` while it is not there.
    fn ask(&self, statement: &str) -> Option<Vec<String>> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        let answer = ureq::post(&url).send(statement).ok()?;
        let lines = BufReader::new(answer.into_body().into_reader()).lines();
        lines.collect::<Result<_, _>>().ok()
    }
}

impl Receiver for Server {
    fn start(&mut self) {
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
            .map(|part| self.root.join(part).display().to_string());
        // The one of a killed one would keep the next from starting.
        let _ = fs::remove_file(self.folder.join("data/status"));
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let child = Command::new(self.root.join("usr/sbin/clickhouse-server"))
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .arg(format!(
                "--config={}",
                self.folder.join("config.xml").display()
            ))
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(60);
        while self.ask(TABLE).is_none() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "it does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn ids(&mut self) -> BTreeSet<String> {
        let ids = self.ask("SELECT DISTINCT event_id FROM rstscope");
        ids.unwrap_or_default().into_iter().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn clickhouses_own_server_stores_every_row_as_it_was_sent() {
    let Some(mut server) = Server::new("clickhouse-rows") else {
        return;
    };
    server.start();
    let place = Place::in_memory(Patience::Wait(Duration::from_secs(20)));
    let targets = [Target::parse(&server.url()).unwrap()];
    let outlets = open_all(&targets, Style::default(), &place).unwrap();
    let writer = Writer::spawn(outlets, 64, &place, |line| panic!("{line}")).unwrap();
    // A coverage record and one of 20 kB with line feeds are among them.
    for number in 0..20 {
        writer.output().send(record(number), &emission());
    }
    let totals = writer.finish();
    assert_eq!((totals.outputs[0].written, totals.lost()), (20, 0));
    let rows = server.ask("SELECT * FROM rstscope ORDER BY time FORMAT JSONEachRow");
    let rows = rows.unwrap();
    assert_eq!(rows.len(), 20);
    for (number, row) in (0..).zip(&rows) {
        let row: Value = serde_json::from_str(row).unwrap();
        assert_eq!(row["event_id"], id(number));
        assert_eq!(row["record"], to_json(&record(number), &emission()));
        let sent: Value = serde_json::from_str(row["record"].as_str().unwrap()).unwrap();
        let verdict = sent["rstscope"]
            .get("verdict")
            .map_or("coverage", |name| name.as_str().unwrap());
        assert_eq!(row["verdict"], verdict);
        let community = sent.pointer("/network/community_id");
        assert_eq!(
            row["community_id"],
            community.and_then(Value::as_str).unwrap_or_default()
        );
    }
}

#[test]
fn clickhouses_own_server_gets_every_record_though_both_are_killed() {
    let Some(mut server) = Server::new("clickhouse-server") else {
        return;
    };
    let url = server.url();
    play("clickhouse-server", &url, &mut server);
}
