//! Kafka, by the broker that librdkafka brings along for tests. It cannot be killed, but it can refuse
//! every connection.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::campaign::{Receiver, play};

const TOPIC: &str = "resets";
const PARTITIONS: i32 = 3;

struct Broker(MockCluster<'static, DefaultProducerContext>);

impl Receiver for Broker {
    fn start(&mut self) {
        self.0.broker_up(1).unwrap();
    }

    fn kill(&mut self) {
        self.0.broker_down(1).unwrap();
    }

    fn ids(&mut self) -> BTreeSet<String> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.0.bootstrap_servers())
            .set("group.id", "test")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions
                .add_partition_offset(TOPIC, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&partitions).unwrap();
        let mut ids = BTreeSet::new();
        while let Some(message) = consumer.poll(Duration::from_secs(5)) {
            let Ok(message) = message else { continue };
            let record: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
            ids.insert(record["event"]["id"].as_str().unwrap().to_owned());
        }
        ids
    }
}

#[test]
fn kafka_gets_every_record_though_the_sensor_is_killed_and_the_broker_away() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    let url = format!(
        "kafka://{}/{TOPIC}?retry_max=500ms",
        cluster.bootstrap_servers()
    );
    play("kafka", &url, &mut Broker(cluster));
}
