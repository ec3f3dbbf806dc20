use super::*;
use crate::pgoutput::{Column, Message, decode};

impl Record {
    /// A record that counts for so many bytes.
    pub(crate) fn of_size(bytes: usize) -> Self {
        Self {
            position: position(),
            subject: String::new(),
            headers: HeaderMap::new(),
            payload: Bytes::new(),
            bytes,
        }
    }
}

fn position() -> Position {
    Position {
        system: 7,
        timeline: 1,
        lsn: 0x16B_3748,
        index: 3,
    }
}

const UUID: u32 = 2950;
const TEXT: u32 = 25;
const BYTEA: u32 = 17;
const JSONB: u32 = 3802;
const BIGINT: u32 = 20;

fn mapping(columns: &[(&'static str, u32)]) -> Result<Mapping, Invalid> {
    let columns = columns
        .iter()
        .map(|&(name, type_oid)| Column { name, type_oid });
    Mapping::of(&Relation {
        id: 7,
        schema: "public",
        name: "outbox",
        columns: columns.collect(),
    })
}

fn outbox() -> Mapping {
    mapping(&[
        ("extra", 23),
        (ID, UUID),
        (AGGREGATE_TYPE, TEXT),
        (AGGREGATE_ID, TEXT),
        (TYPE, TEXT),
        (PAYLOAD, BYTEA),
        (HEADERS, JSONB),
    ])
    .unwrap()
}

/// An insert of these values; `b'n'` is NULL.
fn insert(values: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = b"I\0\0\0\x07N".to_vec();
    bytes.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for (kind, value) in values {
        bytes.push(*kind);
        if *kind != b'n' {
            bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            bytes.extend(*value);
        }
    }
    bytes
}

fn read(mapping: &Mapping, values: &[(u8, &[u8])]) -> Result<Record, Invalid> {
    let bytes = insert(values);
    let Ok(Message::Insert { tuple, .. }) = decode(&bytes) else {
        panic!("not an insert");
    };
    mapping.record(&tuple, position(), &"events.{type}".parse().unwrap())
}

fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.headers.get(name).map(HeaderValue::as_str)
}

const ID_BYTES: [u8; 16] = [0xab; 16];
const ID_TEXT: &str = "abababab-abab-abab-abab-abababababab";

#[test]
fn text_and_binary_rows_make_the_same_message() {
    let headers = br#"{"traceparent":"00-1","n":5,"none":null}"#;
    let binary = read(
        &outbox(),
        &[
            (b'n', b""),
            (b'b', &ID_BYTES),
            (b'b', b"order"),
            (b'b', b"42"),
            (b'b', b"orders.v1.OrderCreated"),
            (b'b', &[0, 255]),
            (b'b', &[&[1][..], headers].concat()),
        ],
    )
    .unwrap();
    let text = read(
        &outbox(),
        &[
            (b'n', b""),
            (b't', ID_TEXT.as_bytes()),
            (b't', b"order"),
            (b't', b"42"),
            (b't', b"orders.v1.OrderCreated"),
            (b't', b"\\x00ff"),
            (b't', headers),
        ],
    )
    .unwrap();
    for record in [binary, text] {
        assert_eq!(record.subject, "events.orders.v1.OrderCreated");
        assert_eq!(&record.payload[..], [0, 255]);
        assert_eq!(header(&record, "Nats-Msg-Id"), Some(ID_TEXT));
        assert_eq!(
            header(&record, "Event-Type"),
            Some("orders.v1.OrderCreated")
        );
        assert_eq!(header(&record, "Aggregate-Type"), Some("order"));
        assert_eq!(header(&record, "Aggregate-Id"), Some("42"));
        assert_eq!(header(&record, "traceparent"), Some("00-1"));
        assert_eq!(header(&record, "n"), Some("5"));
        assert_eq!(header(&record, "none"), None);
        let at: Position = header(&record, envelope::POSITION)
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(at, position());
    }
}

#[test]
fn a_table_of_ones_own_may_have_bigint_ids_json_payloads_and_no_headers() {
    let mapping = mapping(&[
        (ID, BIGINT),
        (AGGREGATE_TYPE, TEXT),
        (AGGREGATE_ID, TEXT),
        (TYPE, TEXT),
        (PAYLOAD, JSONB),
    ])
    .unwrap();
    let record = read(
        &mapping,
        &[
            (b'b', &77_i64.to_be_bytes()),
            (b'b', b"order"),
            (b'b', b"42"),
            (b'b', b"Made"),
            (b'b', b"\x01{\"a\": 1}"),
        ],
    )
    .unwrap();
    assert_eq!(header(&record, "Nats-Msg-Id"), Some("77"));
    assert_eq!(&record.payload[..], b"{\"a\": 1}");
}

#[test]
fn a_table_that_is_no_outbox_is_refused_by_name() {
    let missing = mapping(&[(ID, UUID)]).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "the table has no column `aggregatetype`"
    );
    let wrong = mapping(&[(ID, 1184)]).unwrap_err();
    assert!(wrong.to_string().contains("column `id`"), "{wrong}");
}

#[test]
fn a_null_names_its_column() {
    let values: [(u8, &[u8]); 7] = [
        (b'n', b""),
        (b'b', &ID_BYTES),
        (b'n', b""),
        (b'b', b"42"),
        (b'b', b"Made"),
        (b'b', b""),
        (b'n', b""),
    ];
    let error = read(&outbox(), &values).unwrap_err();
    assert_eq!(error.to_string(), "column `aggregatetype` is NULL");
}

#[test]
fn a_row_cannot_set_the_headers_that_jetstream_and_the_relay_act_on() {
    let headers = br#"{"Nats-Expected-Last-Sequence":"0","nats-msg-id":"x","Cdc-Position":"y",
        "a\r\nb":"c","d":"e\r\nf","fine":"yes"}"#;
    let values: [(u8, &[u8]); 7] = [
        (b'n', b""),
        (b'b', &ID_BYTES),
        (b'b', b"order"),
        (b'b', b"42"),
        (b'b', b"Made"),
        (b'b', b""),
        (b't', headers),
    ];
    let record = read(&outbox(), &values).unwrap();
    assert_eq!(header(&record, "fine"), Some("yes"));
    assert_eq!(header(&record, "Nats-Msg-Id"), Some(ID_TEXT));
    assert_eq!(record.headers.len(), 6, "five of the relay's and `fine`");
}

#[test]
fn a_line_break_in_a_column_is_refused() {
    let values: [(u8, &[u8]); 7] = [
        (b'n', b""),
        (b'b', &ID_BYTES),
        (b'b', b"order"),
        (b'b', b"42\r\nNats-Rollup: all"),
        (b'b', b"Made"),
        (b'b', b""),
        (b'n', b""),
    ];
    let error = read(&outbox(), &values).unwrap_err();
    assert!(error.to_string().contains("`aggregateid`"), "{error}");
}
