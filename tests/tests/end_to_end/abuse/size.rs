//! Messages that are too large or too deep: refused, at a bounded cost, and the next request is answered.

use bytes::{Buf, BufMut};
use harness::{Side, System};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, skip_field};
use proto::customers::v1::{CreateCustomerRequest, CreateCustomerResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, Transport, euros};
use crate::shared::on_shared_system;

const DEPTH: usize = 10_000;
const MIB: usize = 1024 * 1024;

/// What all of it may add to a service's memory: some times the largest message, and the other tests' requests.
const GROWTH_MAX: usize = 96 * MIB;

const CREATES: [&str; 2] = ["orders.v1.CreateOrder", "customers.v1.CreateCustomer"];

/// Bytes that are sent as they are.
#[derive(Clone, Debug, Default)]
struct Raw(Vec<u8>);

impl prost::Message for Raw {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Groups of a field that no message has, each in the one before; closed, or left open.
fn groups(closed: bool) -> Vec<u8> {
    // Field 99: 99 << 3 | 3 begins a group, and | 4 ends it.
    let mut bytes = [0x9b, 0x06].repeat(DEPTH);
    if closed {
        bytes.extend([0x9c, 0x06].repeat(DEPTH));
    }
    bytes
}

/// The same by lengths: each field holds the next. The one that is outermost must be no longer than it says.
fn nested(tag: u8) -> Vec<u8> {
    let mut inside = Vec::new();
    for _ in 0..DEPTH {
        let mut field = Vec::new();
        prost::encoding::encode_varint(inside.len() as u64, &mut field);
        // Written from the end on.
        field.reverse();
        inside.extend(field);
        inside.push(tag << 3 | 2);
    }
    inside.reverse();
    inside
}

/// As much as NATS carries, in a field that no message has.
fn long_field() -> Vec<u8> {
    let length = MIB - 1024;
    let mut bytes = vec![14 << 3 | 2];
    prost::encoding::encode_varint(length as u64, &mut bytes);
    bytes.resize(bytes.len() + length, b'a');
    bytes
}

/// The most memory that a service has had, in bytes; without Linux' `/proc` it is not known, and 0.
fn peak(system: &System, side: Side) -> usize {
    let pid = system.process(side.service()).pid().expect("it runs");
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return 0;
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.map_or(0, |kibibytes: usize| kibibytes * 1024)
}

/// Refused as the caller's fault, and the service goes on.
async fn refused(client: &Client, operation: &str, what: &str, body: &[u8]) {
    let content_type = match client.transport {
        Transport::NatsJson => "application/json",
        Transport::Grpc | Transport::NatsProtobuf => "application/protobuf",
    };
    let code = match client.transport {
        Transport::Grpc => {
            let sent = client.call_grpc::<_, Raw>(operation, Raw(body.to_vec()));
            sent.await.map(drop)
        }
        _ => {
            let sent = client.call_nats(operation, content_type, body.to_vec());
            sent.await.map(drop)
        }
    };
    let refusal = code.expect_err(what).refusal();
    let context = format!(
        "{what} by {:?} to {operation}: {refusal:?}",
        client.transport
    );
    assert_eq!(refusal.code, "INVALID_ARGUMENT", "{context}");
    assert!(refusal.message.len() < 2048, "{context}");
    let next = client.create_customer("Next", euros(1)).await;
    next.expect("the next request is answered");
}

#[test]
fn what_is_too_deep_is_refused_and_costs_little() {
    on_shared_system(async |system| {
        let before = Side::ALL.map(|side| peak(system, side));
        let lists = |start: &str, end: &str| {
            let deep = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
            format!("{start}{deep}{end}").into_bytes()
        };
        let objects = "{\"total\":".repeat(DEPTH) + "1" + &"}".repeat(DEPTH);
        let json = [
            ("lists", lists("", "")),
            ("lists in a name", lists("{\"name\":", "}")),
            ("lists in an unknown field", lists("{\"unknown\":", "}")),
            ("lists in an id", lists("{\"customerId\":", "}")),
            ("objects", objects.into_bytes()),
            ("lists without an end", "[".repeat(MIB - 1024).into_bytes()),
            (
                "a name without an end",
                [b"{\"name\":\"", &*vec![b'a'; MIB - 1024]].concat(),
            ),
        ];
        let protobuf = [
            ("groups", groups(true)),
            ("groups without an end", groups(false)),
            ("fields in fields", nested(14)),
            ("sums in sums", nested(2)),
            ("one long unknown field", long_field()),
            (
                "a length beyond the end",
                vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f],
            ),
        ];
        for operation in CREATES {
            let client = Client::new(system, Transport::NatsJson).await.unwrap();
            for (what, body) in &json {
                refused(&client, operation, what, body).await;
            }
            for transport in [Transport::Grpc, Transport::NatsProtobuf] {
                let client = Client::new(system, transport).await.unwrap();
                for (what, body) in &protobuf {
                    refused(&client, operation, what, body).await;
                }
            }
        }
        bounded(system, before);
    });
}

#[test]
fn what_is_too_large_is_refused_and_costs_little() {
    on_shared_system(async |system| {
        let before = Side::ALL.map(|side| peak(system, side));
        for transport in Transport::ALL {
            let client = Client::new(system, transport).await.unwrap();
            for mib in [2, 16, 64] {
                let request = CreateCustomerRequest {
                    name: "a".repeat(mib * MIB),
                    credit_limit: Some(euros(1)),
                    request_id: String::new(),
                };
                let sent: Result<CreateCustomerResponse, _> =
                    client.call("customers.v1.CreateCustomer", &request).await;
                let failure = sent.expect_err("it is too large");
                if transport == Transport::Grpc {
                    let refusal = failure.refusal();
                    assert_eq!(refusal.code, "OUT_OF_RANGE", "{refusal:?}");
                }
                client.create_customer("Next", euros(1)).await.unwrap();
            }
        }
        bounded(system, before);
    });
}

#[test]
fn a_payload_beyond_the_servers_limit_ends_its_connection_alone() {
    on_shared_system(async |system| {
        // The client library would not send it.
        let mut raw = TcpStream::connect(("127.0.0.1", system.nats().port()))
            .await
            .unwrap();
        let sent = b"CONNECT {\"verbose\":false}\r\nPUB orders.v1.GetOrder 16777216\r\n";
        raw.write_all(sent).await.unwrap();
        let mut said = Vec::new();
        // It may be cut off while it is told so.
        let _ended = raw.read_to_end(&mut said).await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("Maximum Payload Violation"), "{said}");
        let client = Client::new(system, Transport::NatsJson).await.unwrap();
        let refusal = client.get_order("17").await.unwrap_err().refusal();
        assert_eq!(refusal.code, "INVALID_ARGUMENT");
    });
}

fn bounded(system: &System, before: [usize; 2]) {
    for (side, before) in Side::ALL.into_iter().zip(before) {
        let growth = peak(system, side) - before;
        assert!(growth < GROWTH_MAX, "{side:?} has grown by {growth} bytes");
    }
}
