//! Each event as it stands in streams and outboxes that were written before. They are kept for long, and
//! consumers of other versions read them: bytes once here never change. A new event, and a new field, gets a
//! new line beside the old ones, which must still be read: what has none fails here.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use prost::{Message, Name};
use proto::money::v1::Money;
use proto::{Timestamp, customers::v1 as customers, orders::v1 as orders};
use protox::prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

const ORDER: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17";
const CUSTOMER: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f18";

fn eur(minor_units: i64) -> Option<Money> {
    Some(Money {
        minor_units,
        currency: "EUR".to_owned(),
    })
}

fn time() -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_700_000_000,
        nanos: 123_456_000,
    })
}

/// One event as it is written today, and as it was.
struct Golden {
    name: String,
    bytes: Vec<u8>,
    golden: String,
    /// Whether what is read from the bytes is the event, also where a newer version has added fields to it.
    is_read: bool,
}

fn golden<M: Message + Name + Default + PartialEq>(event: &M, golden: impl Into<String>) -> Golden {
    let bytes = event.encode_to_vec();
    let newer = [bytes.as_slice(), &[0x9a, 0x06, 0x01, 0x78]].concat(); // field 99
    Golden {
        name: M::full_name(),
        golden: golden.into(),
        is_read: M::decode(newer.as_slice()).is_ok_and(|read| read == *event),
        bytes,
    }
}

impl Golden {
    fn assert(&self) {
        let hex: String = self
            .bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // The ids are the same everywhere, and long: they stand by name.
        let hex = hex.replace(&text(ORDER), "<order>");
        let hex = hex.replace(&text(CUSTOMER), "<customer>");
        assert_eq!(hex, self.golden, "{}", self.name);
        assert!(self.is_read, "{}", self.name);
    }
}

fn text(id: &str) -> String {
    let bytes: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{:02x}{bytes}", id.len())
}

fn orders_events() -> Vec<Golden> {
    let (order_id, customer_id) = (ORDER.to_owned(), CUSTOMER.to_owned());
    let mut events = vec![
        golden(
            &orders::OrderCreated {
                order_id: order_id.clone(),
                customer_id: customer_id.clone(),
                total: eur(1_999),
                create_time: time(),
            },
            "0a<order>12<customer>1a0808cf0f1203455552220b0880e2cfaa06108094ef3a",
        ),
        golden(
            &orders::OrderApproved {
                order_id: order_id.clone(),
                customer_id: customer_id.clone(),
                total: eur(1_999),
            },
            "0a<order>12<customer>1a0808cf0f1203455552",
        ),
    ];
    let cancelled = |reason: i32| {
        golden(
            &orders::OrderCancelled {
                order_id: order_id.clone(),
                customer_id: customer_id.clone(),
                total: eur(1_999),
                reason,
            },
            format!("0a<order>12<customer>1a0808cf0f120345555220{reason:02x}"),
        )
    };
    events.extend((1..=5).map(cancelled));
    events
}

fn customers_events() -> Vec<Golden> {
    let (order_id, customer_id) = (ORDER.to_owned(), CUSTOMER.to_owned());
    vec![
        golden(
            &customers::CustomerCreated {
                customer_id: customer_id.clone(),
                name: "Ada".to_owned(),
                credit_limit: eur(10_000),
                create_time: time(),
            },
            "0a<customer>12034164611a0808904e1203455552220b0880e2cfaa06108094ef3a",
        ),
        golden(
            &customers::CreditLimitChanged {
                customer_id: customer_id.clone(),
                credit_limit: eur(20_000),
                previous_credit_limit: eur(10_000),
            },
            "0a<customer>120908a09c0112034555521a0808904e1203455552",
        ),
        golden(
            &customers::CreditReserved {
                order_id: order_id.clone(),
                customer_id: customer_id.clone(),
                amount: eur(1_999),
            },
            "0a<order>12<customer>1a0808cf0f1203455552",
        ),
        golden(
            &customers::CreditReleased {
                order_id: order_id.clone(),
                customer_id: customer_id.clone(),
                amount: eur(1_999),
            },
            "0a<order>12<customer>1a0808cf0f1203455552",
        ),
        golden(
            &customers::CreditLimitExceeded {
                order_id: order_id.clone(),
                customer_id: customer_id.clone(),
                amount: eur(1_999),
                available: eur(0),
            },
            "0a<order>12<customer>1a0808cf0f120345555222051203455552",
        ),
        golden(
            &customers::CustomerNotFound {
                order_id: order_id.clone(),
                customer_id: customer_id.clone(),
            },
            "0a<order>12<customer>",
        ),
        golden(
            &customers::CurrencyMismatch {
                order_id,
                customer_id,
                amount: eur(1_999),
                customer_currency: "USD".to_owned(),
            },
            "0a<order>12<customer>1a0808cf0f12034555522203555344",
        ),
    ]
}

#[test]
fn the_orders_events_are_written_as_ever() {
    for golden in orders_events() {
        golden.assert();
    }
    use orders::CancellationReason as Reason;
    let reasons = [
        Reason::CreditLimitExceeded,
        Reason::UnknownCustomer,
        Reason::CurrencyMismatch,
        Reason::ByCustomer,
        Reason::TimedOut,
    ];
    assert_eq!(reasons.map(i32::from), [1, 2, 3, 4, 5]);
}

#[test]
fn the_customers_events_are_written_as_ever() {
    for golden in customers_events() {
        golden.assert();
    }
}

/// The messages of the `events.proto` of each package and version.
fn declared() -> Vec<MessageDescriptor> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let versions = folders(root).into_iter().flat_map(|one| folders(&one));
    let files: Vec<_> = versions
        .map(|version| version.join("events.proto"))
        .filter(|file| file.exists())
        .map(|file| file.strip_prefix(root).unwrap().to_owned())
        .collect();
    let compiled = protox::compile(&files, [root]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(compiled).unwrap();
    let file = |file: &std::path::PathBuf| pool.get_file_by_name(&file.to_string_lossy()).unwrap();
    files
        .iter()
        .flat_map(|name| file(name).messages().collect::<Vec<_>>())
        .collect()
}

#[test]
fn each_event_and_each_field_of_it_has_golden_bytes() {
    let mut tested: BTreeMap<String, Vec<Golden>> = BTreeMap::new();
    for golden in orders_events().into_iter().chain(customers_events()) {
        tested.entry(golden.name.clone()).or_default().push(golden);
    }
    let declared = declared();
    let names: BTreeSet<_> = declared.iter().map(|event| event.full_name()).collect();
    let tested_names: BTreeSet<_> = tested.keys().map(String::as_str).collect();
    assert_eq!(tested_names, names, "tested, and declared in events.proto");
    for event in declared {
        let read = tested[event.full_name()]
            .iter()
            .map(|golden| DynamicMessage::decode(event.clone(), golden.bytes.as_slice()).unwrap());
        let read: Vec<_> = read.collect();
        for field in event.fields() {
            let has = read.iter().any(|event| event.has_field(&field));
            assert!(has, "no golden bytes have {}", field.full_name());
        }
    }
}
