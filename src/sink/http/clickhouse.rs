//! ClickHouse by HTTP: one `INSERT … FORMAT JSONEachRow` a batch. A row is what every query needs as
//! columns, and the record as text, so that the table need not change when records do. The deduplication
//! token is the same whenever the same batch is sent again.

use std::sync::Arc;

use serde_json::json;

use crate::sink::entry::Entry;

/// The setting that a batch's token goes by; servers from before 2022 refuse what they do not know.
const TOKEN: &str = "insert_deduplication_token";
/// How a server begins to say that it does not know a setting (`UNKNOWN_SETTING` of its list of errors).
const UNKNOWN_SETTING: &str = "Code: 115";

/// The path with the statement and, where the server knows it, the token of this batch.
pub(super) fn path(path: &str, table: &str, batch: &[Arc<Entry>], knows_token: bool) -> String {
    let path = if path.is_empty() { "/" } else { path };
    // Tables are of letters, digits, dots and underscores: nothing to escape but the spaces.
    let statement = format!("{path}?query=INSERT%20INTO%20{table}%20FORMAT%20JSONEachRow");
    if knows_token {
        format!("{statement}&{TOKEN}={}", token(batch))
    } else {
        statement
    }
}

/// Whether an answer says that the server is too old for tokens.
pub(super) fn knows_no_token(answer: &str) -> bool {
    answer.starts_with(UNKNOWN_SETTING) && answer.contains(TOKEN)
}

fn token(batch: &[Arc<Entry>]) -> String {
    let sum = batch.iter().fold(0, |sum, entry| {
        crc32c::crc32c_append(crc32c::crc32c_append(sum, entry.id.as_bytes()), b"\n")
    });
    let plain = |entry: &Arc<Entry>| -> String {
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
        entry.id.chars().filter(plain).collect()
    };
    let first = batch.first().map(plain).unwrap_or_default();
    format!("{first}.{}.{sum:08x}", batch.len())
}

/// One row a line.
pub(super) fn body(batch: &[Arc<Entry>]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in batch {
        let row = json!({
            "event_id": entry.id,
            "time": entry.time_ns,
            "verdict": entry.label,
            "community_id": entry.community_id().unwrap_or_default(),
            "record": String::from_utf8_lossy(&entry.body),
        });
        body.extend_from_slice(row.to_string().as_bytes());
        body.push(b'\n');
    }
    body
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::{body, knows_no_token, path};
    use crate::sink::entry::Entry;

    fn entry(id: &str) -> Arc<Entry> {
        Arc::new(Entry {
            id: id.to_owned(),
            key: "1:abc=".to_owned(),
            time_ns: 5,
            severity: 6,
            label: "remote".to_owned(),
            body: b"{\"x\":\"\\n\"}".to_vec(),
        })
    }

    #[test]
    fn the_token_is_that_of_the_batch_and_of_no_other() {
        let (a, b) = (entry("h-1"), entry("h-2"));
        let path = |batch: &[Arc<Entry>]| path("", "db.t", batch, true);
        let one = path(&[a.clone(), b.clone()]);
        assert!(
            one.starts_with("/?query=INSERT%20INTO%20db.t%20FORMAT"),
            "{one}"
        );
        assert_eq!(one, path(&[a.clone(), b.clone()]));
        assert_ne!(one, path(&[b, a.clone()]));
        assert_ne!(one, path(&[a]));
    }

    #[test]
    fn an_old_server_is_told_from_one_that_refuses_something_else() {
        let old = "Code: 115, e.displayText() = DB::Exception: Unknown setting \
                   insert_deduplication_token, e.what() = DB::Exception";
        assert!(knows_no_token(old));
        for other in [
            "",
            "Code: 115. DB::Exception: Unknown setting asnyc_insert",
            "Code: 60. DB::Exception: Table default.insert_deduplication_token does not exist",
        ] {
            assert!(!knows_no_token(other), "{other}");
        }
        let path = path("", "t", &[entry("h-1")], false);
        assert_eq!(path, "/?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow");
    }

    #[test]
    fn a_row_holds_the_record_as_text() {
        let text = String::from_utf8(body(&[entry("h-1")])).unwrap();
        assert_eq!(text.lines().count(), 1);
        let row: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(row["event_id"], "h-1");
        assert_eq!(row["record"], "{\"x\":\"\\n\"}");
    }
}
