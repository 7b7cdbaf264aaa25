//! Splunk's HTTP event collector, with acknowledgement by the indexer where the token has it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sink::backoff;
use crate::sink::entry::Entry;

/// Where events go.
pub(super) const EVENTS: &str = "/services/collector/event";
/// Where acknowledgements are asked for.
pub(super) const ACKS: &str = "/services/collector/ack";
/// The first question comes so long after the batch, and each further one twice as long after the one
/// before, up to the last: indexers acknowledge after seconds, and count questions as load.
pub(super) const FIRST_QUESTION: Duration = Duration::from_millis(50);
pub(super) const LAST_QUESTION: Duration = Duration::from_secs(2);

/// The channel to which acknowledgements belong: a GUID, one a start.
#[derive(Debug)]
pub(super) struct Channel(String);

impl Channel {
    pub(super) fn new() -> Self {
        let (high, low) = (backoff::seed(), backoff::seed());
        Self(format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff
        ))
    }

    pub(super) fn id(&self) -> &str {
        &self.0
    }
}

/// One object a record, one behind the other.
pub(super) fn body(batch: &[Arc<Entry>], host: &str, index: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in batch {
        let kind = if entry.is_coverage() {
            "rstscope:coverage:json"
        } else {
            "rstscope:reset:json"
        };
        let mut envelope = json!({
            "host": host,
            "source": "rstscope",
            "sourcetype": kind,
            "fields": {"verdict": entry.label},
        });
        if let Some(id) = entry.community_id() {
            envelope["fields"]["community_id"] = id.into();
        }
        if let (Some(index), Some(fields)) = (index, envelope.as_object_mut()) {
            fields.insert("index".to_owned(), index.into());
        }
        let envelope = envelope.to_string();
        // The record is JSON already, and the time must not pass through a float.
        let (seconds, micros) = (
            entry.time_ns / 1_000_000_000,
            entry.time_ns / 1000 % 1_000_000,
        );
        let time = format!(",\"time\":{seconds}.{micros:06},\"event\":");
        body.extend_from_slice(envelope.strip_suffix('}').unwrap_or_default().as_bytes());
        body.extend_from_slice(time.as_bytes());
        body.extend_from_slice(&entry.body);
        body.extend_from_slice(b"}\n");
    }
    body
}

/// The number under which a batch is acknowledged; an error when the answer is no success.
pub(super) fn ack_id(answer: &str) -> Result<Option<u64>, String> {
    let parsed: Value = serde_json::from_str(answer).unwrap_or_default();
    match parsed.get("code").and_then(Value::as_u64) {
        Some(0) => Ok(parsed.get("ackId").and_then(Value::as_u64)),
        Some(code) => Err(format!("the event collector answers code {code}")),
        None => Err("the receiver does not answer like an event collector".to_owned()),
    }
}

/// Asks for one number.
pub(super) fn question(id: u64) -> Vec<u8> {
    json!({"acks": [id]}).to_string().into_bytes()
}

/// The answer says yes to this number.
pub(super) fn is_acknowledged(answer: &str, id: u64) -> bool {
    let parsed: Value = serde_json::from_str(answer).unwrap_or_default();
    parsed
        .get("acks")
        .and_then(|acks| acks.get(id.to_string()))
        .and_then(Value::as_bool)
        == Some(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::{Channel, ack_id, body, is_acknowledged};
    use crate::sink::entry::Entry;

    #[test]
    fn an_event_is_the_record_in_an_envelope() {
        let entry = Arc::new(Entry {
            id: "a-1".to_owned(),
            key: "1:abc".to_owned(),
            time_ns: 1_777_293_866_000_123_456,
            severity: 6,
            label: "injected".to_owned(),
            body: b"{\"x\":1}".to_vec(),
        });
        let text = String::from_utf8(body(&[entry.clone(), entry], "lb1", Some("net"))).unwrap();
        assert!(text.contains("\"time\":1777293866.000123,"));
        let events: Vec<Value> = serde_json::Deserializer::from_str(&text)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["event"]["x"], 1);
        assert_eq!(events[0]["index"], "net");
        assert_eq!(events[0]["fields"]["community_id"], "1:abc");
        assert_eq!(events[0]["sourcetype"], "rstscope:reset:json");
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        assert_eq!(
            ack_id(r#"{"text":"Success","code":0,"ackId":7}"#),
            Ok(Some(7))
        );
        assert_eq!(ack_id(r#"{"text":"Success","code":0}"#), Ok(None));
        assert!(ack_id(r#"{"text":"Server is busy","code":9}"#).is_err());
        assert!(ack_id("<html>").is_err());
        assert!(is_acknowledged(r#"{"acks":{"7":true}}"#, 7));
        assert!(!is_acknowledged(r#"{"acks":{"7":false,"8":true}}"#, 7));
        assert!(!is_acknowledged("", 7));
    }

    #[test]
    fn a_channel_is_a_guid_and_another_each_time() {
        let one = Channel::new();
        let lengths: Vec<usize> = one.id().split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_ne!(one.id(), Channel::new().id());
    }
}
