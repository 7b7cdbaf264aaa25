//! ClickHouse by HTTP: one `INSERT … FORMAT JSONEachRow` a batch. A row is what every query needs as
//! columns, and the record as text, so that the table need not change when records do. The deduplication
//! token is the same whenever the same batch is sent again.

use std::sync::Arc;

use serde_json::json;

use crate::sink::entry::Entry;

/// The path with the statement and the token of this batch.
pub(super) fn path(path: &str, table: &str, batch: &[Arc<Entry>]) -> String {
    let token = token(batch);
    let path = if path.is_empty() { "/" } else { path };
    // Tables are of letters, digits, dots and underscores: nothing to escape but the spaces.
    format!(
        "{path}?query=INSERT%20INTO%20{table}%20FORMAT%20JSONEachRow&insert_deduplication_token={token}"
    )
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
            "community_id": entry.key,
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

    use super::{body, path};
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
        let one = path("", "db.t", &[a.clone(), b.clone()]);
        assert!(
            one.starts_with("/?query=INSERT%20INTO%20db.t%20FORMAT"),
            "{one}"
        );
        assert_eq!(one, path("", "db.t", &[a.clone(), b.clone()]));
        assert_ne!(one, path("", "db.t", &[b, a.clone()]));
        assert_ne!(one, path("", "db.t", &[a]));
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
