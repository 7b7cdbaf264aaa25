//! What other tools call their fields, and readers of their lines that share nothing with the writers.

use serde_json::Value;

/// Type of a value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Text,
    Integer,
    Flag,
}

impl Kind {
    pub fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Integer => value.is_u64(),
            Self::Flag => value.is_boolean(),
        }
    }
}

/// Keys of Suricata 8.0.6 and their types, by its `etc/schema.json`: those that are written here.
pub const EVE: [(&str, Kind); 39] = [
    ("timestamp", Kind::Text),
    ("flow_id", Kind::Integer),
    ("host", Kind::Text),
    ("in_iface", Kind::Text),
    ("event_type", Kind::Text),
    ("src_ip", Kind::Text),
    ("src_port", Kind::Integer),
    ("dest_ip", Kind::Text),
    ("dest_port", Kind::Integer),
    ("proto", Kind::Text),
    ("ip_v", Kind::Integer),
    ("vlan[]", Kind::Integer),
    ("community_id", Kind::Text),
    ("direction", Kind::Text),
    ("ether.src_mac", Kind::Text),
    ("ether.dest_mac", Kind::Text),
    ("alert.action", Kind::Text),
    ("alert.gid", Kind::Integer),
    ("alert.signature_id", Kind::Integer),
    ("alert.rev", Kind::Integer),
    ("alert.signature", Kind::Text),
    ("alert.category", Kind::Text),
    ("alert.severity", Kind::Integer),
    ("flow.start", Kind::Text),
    ("flow.end", Kind::Text),
    ("flow.age", Kind::Integer),
    ("flow.state", Kind::Text),
    ("flow.alerted", Kind::Flag),
    ("tcp.tcp_flags", Kind::Text),
    ("tcp.syn", Kind::Flag),
    ("tcp.fin", Kind::Flag),
    ("tcp.rst", Kind::Flag),
    ("tcp.psh", Kind::Flag),
    ("tcp.ack", Kind::Flag),
    ("tcp.urg", Kind::Flag),
    ("tcp.ecn", Kind::Flag),
    ("tcp.state", Kind::Text),
    ("stats.capture.kernel_packets", Kind::Integer),
    ("stats.capture.kernel_drops", Kind::Integer),
];

/// Keys of ArcSight's CEF dictionary ("Common Event Format", version 0) that are written here.
pub const CEF: [&str; 38] = [
    "rt",
    "start",
    "end",
    "cat",
    "act",
    "proto",
    "src",
    "spt",
    "dst",
    "dpt",
    "smac",
    "dmac",
    "cnt",
    "in",
    "out",
    "deviceDirection",
    "reason",
    "outcome",
    "sproc",
    "spid",
    "dproc",
    "dpid",
    "dvchost",
    "deviceInboundInterface",
    "deviceOutboundInterface",
    "cs1",
    "cs2",
    "cs3",
    "cs4",
    "cs5",
    "cs6",
    "cn1",
    "cn2",
    "cn3",
    "cfp1",
    "c6a2",
    "c6a3",
    "msg",
];

/// Columns of Zeek's own logs (`conn.log` of 8.0 with the policies community-id-logging and
/// vlan-logging, `notice.log`), and of ours.
pub fn zeek_columns(log: &str) -> &'static [&'static str] {
    match log {
        "conn" => &[
            "ts",
            "uid",
            "id.orig_h",
            "id.orig_p",
            "id.resp_h",
            "id.resp_p",
            "proto",
            "duration",
            "orig_bytes",
            "resp_bytes",
            "conn_state",
            "vlan",
            "ip_proto",
            "community_id",
        ],
        "notice" => &[
            "ts",
            "uid",
            "id.orig_h",
            "id.orig_p",
            "id.resp_h",
            "id.resp_p",
            "proto",
            "note",
            "msg",
            "sub",
            "src",
            "dst",
            "p",
            "n",
            "peer_descr",
            "actions",
            "suppress_for",
            "community_id",
        ],
        _ => &[
            "ts",
            "ts_delta",
            "peer",
            "interface",
            "id",
            "observed",
            "passed",
            "bypassed",
            "copied",
            "lost",
            "complete",
            "msg",
        ],
    }
}

/// Paths of all leaves, lists without their length.
pub fn json_paths(value: &Value, path: &str, paths: &mut Vec<String>) {
    let mut leaves = Vec::new();
    json_leaves(value, path, &mut leaves);
    paths.extend(leaves.into_iter().map(|(path, _)| path));
}

/// Leaves with their paths.
pub fn json_leaves<'a>(value: &'a Value, path: &str, leaves: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                json_leaves(value, &path, leaves);
            }
        }
        Value::Array(items) => {
            for item in items {
                json_leaves(item, &format!("{path}[]"), leaves);
            }
        }
        _ => leaves.push((path.to_owned(), value)),
    }
}

/// Splits at a character that no backslash stands before; escapes stay.
fn split_unescaped(text: &str, at: char, parts: usize) -> Vec<&str> {
    let (mut found, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        if c == at && !escaped && found.len() + 1 < parts {
            found.push(&text[begin..index]);
            begin = index + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    found.push(&text[begin..]);
    found
}

fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// Fields of a CEF line's extension as a receiver reads them: a key is the last word in front of an
/// equal sign that is not escaped.
pub fn cef(line: &str) -> Vec<(String, String)> {
    let header = split_unescaped(line, '|', 8);
    assert_eq!(header.len(), 8, "{line}");
    assert_eq!(&header[..3], ["CEF:0", "rstscope", "rstscope"]);
    assert!(header[6].parse::<u8>().unwrap() <= 10);
    let parts = split_unescaped(header[7], '=', usize::MAX);
    let mut fields = Vec::new();
    let mut key = parts[0];
    for (index, part) in parts.iter().enumerate().skip(1) {
        let last = index + 1 == parts.len();
        let (value, next) = if last {
            (*part, "")
        } else {
            part.rsplit_once(' ').unwrap()
        };
        assert!(
            key.chars().all(|c| c.is_ascii_alphanumeric()),
            "{key:?} in {line}"
        );
        fields.push((key.to_owned(), unescaped(value)));
        key = next;
    }
    fields
}

/// Fields of a LEEF line.
pub fn leef(line: &str) -> Vec<(String, String)> {
    let header: Vec<&str> = line.splitn(7, '|').collect();
    assert_eq!(header.len(), 7, "{line}");
    assert_eq!(&header[..3], ["LEEF:2.0", "rstscope", "rstscope"]);
    header[6]
        .split(header[5])
        .map(|field| {
            let (key, value) = field.split_once('=').unwrap();
            assert!(
                key.chars().all(|c| c.is_ascii_alphanumeric()),
                "{key:?} in {line}"
            );
            (key.to_owned(), value.to_owned())
        })
        .collect()
}
