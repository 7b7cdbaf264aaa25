//! `kafka://BROKERS/TOPIC` by librdkafka: idempotent, all replicas, keyed by Community ID so that both
//! sides of a flow come to one partition. A record is delivered when its delivery report says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::entry::Entry;
use super::target::KafkaTarget;
use super::transport::{Delivered, Failure, Fate, Transport};
use super::{Error, clock};

/// What librdkafka is told where the user's file says nothing else. Messages give up after 30 s so that
/// the spool, which is durable, and not librdkafka's memory, holds what waits.
const PROPERTIES: [(&str, &str); 8] = [
    ("client.id", "rstscope"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("linger.ms", "5"),
    ("compression.type", "lz4"),
    ("message.timeout.ms", "30000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("socket.keepalive.enable", "true"),
];
/// Longer than `message.timeout.ms`: every message is reported by then.
const REPORTS: Duration = Duration::from_secs(40);
/// One round of reports.
const POLL: Duration = Duration::from_millis(5);

/// Bytes of one batch. The next one waits for the last report of this one, so that small batches would
/// leave the broker idle between them.
const BATCH_BYTES: usize = 4 << 20;

/// A message's number among all of this run, to tell late reports from current ones. It is what
/// librdkafka carries for us, in place of a pointer.
type Number = usize;

/// What is known of the current batch.
#[derive(Default)]
struct Batch {
    /// Number of its first message.
    first: Number,
    /// In the order of its messages.
    results: Vec<Option<Result<(), KafkaError>>>,
    missing: usize,
}

impl Batch {
    /// Reports of other batches come too late: their records were taken for lost, and sent again.
    fn report(&mut self, number: Number, result: Result<(), KafkaError>) {
        let at = number.wrapping_sub(self.first);
        if let Some(known @ None) = self.results.get_mut(at) {
            *known = Some(result);
            self.missing -= 1;
        }
    }
}

/// Where reports arrive.
#[derive(Default)]
struct Reports(Mutex<Batch>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Number;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Number) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        let mut batch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        batch.report(number, result);
    }
}

/// A way to one topic.
pub(super) struct KafkaTransport {
    target: KafkaTarget,
    config: ClientConfig,
    producer: Option<BaseProducer<Reports>>,
    next: Number,
}

impl KafkaTransport {
    pub(super) fn open(output: &str, target: &KafkaTarget) -> Result<Self, Error> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &target.brokers);
        for (key, value) in PROPERTIES {
            config.set(key, value);
        }
        if let Some(path) = &target.config {
            let odd = |why: String| Error::Secret {
                output: output.to_owned(),
                path: path.clone(),
                why,
            };
            let text = std::fs::read_to_string(path)
                .map_err(|error| odd(format!("cannot read: {error}")))?;
            for (key, value) in properties(&text).map_err(odd)? {
                config.set(key, value);
            }
        }
        let mut transport = Self {
            target: target.clone(),
            config,
            producer: None,
            next: 0,
        };
        transport.producer().map_err(|error| Error::Setup {
            output: output.to_owned(),
            why: format!("librdkafka refuses its configuration: {error}"),
        })?;
        Ok(transport)
    }

    fn producer(&mut self) -> Result<&BaseProducer<Reports>, KafkaError> {
        // After a fatal error of the idempotent producer only a new one helps.
        let fatal = |producer: &BaseProducer<Reports>| producer.client().fatal_error().is_some();
        let usable = self.producer.take().filter(|producer| !fatal(producer));
        let producer = match usable {
            Some(producer) => producer,
            None => self.config.create_with_context(Reports::default())?,
        };
        Ok(self.producer.insert(producer))
    }

    fn send(&mut self, batch: &[Arc<Entry>]) -> Result<Vec<Result<(), KafkaError>>, KafkaError> {
        let first = self.next;
        self.next = first.wrapping_add(batch.len());
        let topic = self.target.topic.clone();
        let producer = self.producer()?;
        *lock(producer) = Batch {
            first,
            results: vec![None; batch.len()],
            missing: batch.len(),
        };
        let until = clock::now() + REPORTS;
        for (at, entry) in batch.iter().enumerate() {
            let number = first.wrapping_add(at);
            let mut record = BaseRecord::with_opaque_to(&topic, number)
                .payload(&entry.body)
                .key(&entry.key)
                .timestamp(entry.time_ns / 1_000_000);
            while let Err((error, back)) = producer.send(record) {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                if !full || clock::now() >= until {
                    lock(producer).report(number, Err(error));
                    break;
                }
                record = back;
                producer.poll(POLL);
            }
        }
        while lock(producer).missing > 0 && clock::now() < until {
            producer.poll(POLL);
        }
        let results = std::mem::take(&mut lock(producer).results);
        let missing = || {
            let late = RDKafkaErrorCode::MessageTimedOut;
            Err(KafkaError::MessageProduction(late))
        };
        Ok(results
            .into_iter()
            .map(|result| result.unwrap_or_else(missing))
            .collect())
    }
}

fn lock(producer: &BaseProducer<Reports>) -> MutexGuard<'_, Batch> {
    let batch = &producer.context().0;
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `key=value` a line; `#` begins a comment.
fn properties(text: &str) -> Result<Vec<(&str, &str)>, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (key, value) = line
                .split_once('=')
                // The line may hold a secret: it is not repeated.
                .ok_or_else(|| "a line is not of the form key=value".to_owned())?;
            Ok((key.trim(), value.trim()))
        })
        .collect()
}

/// What a report means for its record.
fn fate(result: Result<(), KafkaError>) -> Fate {
    match result {
        Ok(()) => Fate::Taken,
        Err(error) => match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord) => {
                Fate::Refused(error.to_string())
            }
            _ => Fate::Again,
        },
    }
}

impl Transport for KafkaTransport {
    fn deliver(&mut self, batch: &[Arc<Entry>]) -> Delivered {
        let failed = |error: &KafkaError, target: &KafkaTarget| {
            Failure::new(format!("{}/{}: {error}", target.brokers, target.topic))
        };
        let results = match self.send(batch) {
            Ok(results) => results,
            Err(error) => return Delivered::failed(batch.len(), failed(&error, &self.target)),
        };
        let mut delivered = Delivered::all(0, Fate::Taken);
        for result in results {
            let error = result.as_ref().err().cloned();
            let fate = fate(result);
            if let (Fate::Again, Some(error), None) = (&fate, error, &delivered.failure) {
                delivered.failure = Some(failed(&error, &self.target));
            }
            delivered.fates.push(fate);
        }
        delivered
    }

    fn linger(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn batch_records(&self) -> usize {
        4000
    }

    fn batch_bytes(&self) -> usize {
        BATCH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Message;
    use rdkafka::mocking::MockCluster;
    use rdkafka::{Offset, TopicPartitionList};

    use super::{ClientConfig, Duration, KafkaTransport, properties};
    use crate::sink::entry::Entry;
    use crate::sink::scratch::folder;
    use crate::sink::target::KafkaTarget;
    use crate::sink::transport::{Fate, Transport};

    fn entry(number: u64, bytes: usize) -> Arc<Entry> {
        Arc::new(Entry {
            id: format!("k-{number}"),
            key: format!("1:{}", number % 7),
            time_ns: 1_777_293_866_000_000_000,
            severity: 6,
            label: "remote".to_owned(),
            body: format!("{{\"id\":\"k-{number}\",\"x\":\"{}\"}}", "x".repeat(bytes)).into_bytes(),
        })
    }

    #[test]
    fn properties_are_lines_and_an_odd_one_is_not_repeated() {
        let text = "# TLS\nsecurity.protocol = ssl\n\nssl.ca.location=/ca.pem\n";
        let expected = [("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")];
        assert_eq!(properties(text).unwrap(), expected);
        assert!(!properties("hush").unwrap_err().contains("hush"));
    }

    #[test]
    fn tls_and_sasl_are_built_in_and_a_wrong_property_is_named() {
        let folder = folder("kafka-properties");
        let path = folder.join("properties");
        let open = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let target = KafkaTarget {
                brokers: "127.0.0.1:1".to_owned(),
                topic: "resets".to_owned(),
                config: Some(path.clone()),
            };
            KafkaTransport::open("kafka", &target).map(drop)
        };
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
            let text = format!(
                "security.protocol=sasl_ssl\nsasl.mechanism={mechanism}\nsasl.username=u\n\
                 sasl.password=hush\nssl.endpoint.identification.algorithm=https\n"
            );
            let opened = open(&text);
            assert!(opened.is_ok(), "{mechanism}: {opened:?}");
        }
        let said = open("ssl.no.such=1\n").unwrap_err().to_string();
        assert!(said.contains("ssl.no.such"), "{said}");
    }

    #[test]
    fn every_record_is_reported_and_arrives_under_its_key() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("resets", 3, 1).unwrap();
        let target = KafkaTarget {
            brokers: cluster.bootstrap_servers(),
            topic: "resets".to_owned(),
            config: None,
        };
        let mut transport = KafkaTransport::open("kafka", &target).unwrap();
        let batch: Vec<Arc<Entry>> = (0..2000).map(|number| entry(number, 500)).collect();
        let delivered = transport.deliver(&batch);
        assert_eq!(delivered.failure, None);
        assert!(delivered.fates.iter().all(|fate| *fate == Fate::Taken));
        let huge = transport.deliver(&[entry(1, 2 << 20), entry(2000, 1)]);
        assert!(
            matches!(huge.fates.as_slice(), [Fate::Refused(_), Fate::Taken]),
            "{huge:?}"
        );
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "test")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..3 {
            partitions
                .add_partition_offset("resets", partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&partitions).unwrap();
        let mut seen = HashSet::new();
        while let Some(message) = consumer.poll(Duration::from_secs(10)) {
            let message = message.unwrap();
            assert!(message.key().unwrap().starts_with(b"1:"));
            seen.insert(message.payload().unwrap().to_vec());
            if seen.len() == 2001 {
                break;
            }
        }
        assert_eq!(seen.len(), 2001);
    }
}
