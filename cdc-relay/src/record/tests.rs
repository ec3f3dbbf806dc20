use clap::{Args as _, Command, FromArgMatches as _};

use super::*;
use crate::{
    config,
    pgoutput::{Column, Message, Relation, decode},
};

impl Record {
    /// A record that counts for so many bytes.
    pub(crate) fn of_size(bytes: usize) -> Self {
        Self {
            position: position(),
            subject: String::new(),
            headers: Headers::new(),
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

/// A layout as these flags set it.
fn layout(flags: &[&str]) -> Layout {
    let flags = std::iter::once("test").chain(flags.iter().copied());
    let command =
        config::Message::augment_args(config::Columns::augment_args(Command::new("test")));
    let matches = command.get_matches_from(flags);
    Layout::of(
        &config::Columns::from_arg_matches(&matches).unwrap(),
        &config::Message::from_arg_matches(&matches).unwrap(),
    )
}

fn mapping(columns: &[(&'static str, u32)]) -> Result<Mapping, Invalid> {
    mapping_for(&layout(&[]), columns)
}

fn mapping_for(layout: &Layout, columns: &[(&'static str, u32)]) -> Result<Mapping, Invalid> {
    let columns = columns
        .iter()
        .map(|&(name, type_oid)| Column { name, type_oid });
    let relation = Relation {
        id: 7,
        schema: "public",
        name: "outbox",
        columns: columns.collect(),
    };
    Mapping::of(&relation, layout)
}

fn outbox() -> Mapping {
    mapping(&[
        ("extra", 23),
        ("id", UUID),
        ("aggregatetype", TEXT),
        ("aggregateid", TEXT),
        ("type", TEXT),
        ("payload", BYTEA),
        ("headers", JSONB),
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
    read_for(&layout(&[]), mapping, values)
}

fn read_for(layout: &Layout, mapping: &Mapping, values: &[(u8, &[u8])]) -> Result<Record, Invalid> {
    let bytes = insert(values);
    let Ok(Message::Insert { tuple, .. }) = decode(&bytes) else {
        panic!("not an insert");
    };
    mapping.record(&tuple, position(), layout)
}

fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.headers.get(name)
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
        ("id", BIGINT),
        ("aggregatetype", TEXT),
        ("aggregateid", TEXT),
        ("type", TEXT),
        ("payload", JSONB),
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
    let missing = mapping(&[("id", UUID)]).unwrap_err();
    let named = "the table has no column `aggregatetype`";
    assert!(missing.to_string().starts_with(named), "{missing}");
    let wrong = mapping(&[("id", 600)]).unwrap_err();
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
        "a\r\nb":"c","d":"e\r\nf","":"g","fine":"yes"}"#;
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
    assert_eq!(
        record.headers.iter().count(),
        6,
        "five of the relay's and `fine`"
    );
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

/// Columns of another outbox, and what the relay is told of them.
const OTHER: [(&str, u32); 8] = [
    ("data", JSONB),
    ("tenant", TEXT),
    ("event_id", 23),
    ("kind", TEXT),
    ("entity", TEXT),
    ("entity_id", BIGINT),
    ("region", TEXT),
    ("at", 1184),
];
const TOLD: [&str; 16] = [
    "--cdc-column-id=event_id",
    "--cdc-column-type=kind",
    "--cdc-column-aggregate-type=entity",
    "--cdc-column-aggregate-id=entity_id",
    "--cdc-column-payload=data",
    "--cdc-column-time=at",
    "--cdc-columns-as-headers",
    "region=X-Region",
    "--cdc-subject",
    "t.{tenant}.{type}",
    "--cdc-headers",
    "X-Source=shop,X-Region=none",
    "--cdc-cloudevents-source",
    "/shop",
    "--cdc-column-headers",
    "data",
];

#[test]
fn other_columns_reach_subject_headers_and_the_attributes_of_a_cloud_event() {
    let layout = layout(&TOLD);
    let mapping = mapping_for(&layout, &OTHER).unwrap();
    let micros = 848_998_984_123_456_i64.to_be_bytes();
    let mut values: [(u8, &[u8]); 8] = [
        (b'b', b"\x01{\"a\": \"b\"}"),
        (b'b', b"acme"),
        (b'b', &7_i32.to_be_bytes()),
        (b'b', "Gr\u{fc}n".as_bytes()),
        (b'b', b"order"),
        (b'b', &42_i64.to_be_bytes()),
        (b'b', b"eu"),
        (b'b', &micros),
    ];
    let record = read_for(&layout, &mapping, &values).unwrap();
    assert_eq!(record.subject, "t.acme.Gr\u{fc}n");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/shop"),
        ("ce-type", "Gr%C3%BCn"),
        ("ce-subject", "42"),
        ("ce-time", "2026-11-26T09:03:04.123456Z"),
        ("ce-datacontenttype", "application/json"),
        ("X-Source", "shop"),
        ("X-Region", "eu"),
        ("a", "b"),
        ("Nats-Msg-Id", "7"),
        ("Aggregate-Id", "42"),
    ] {
        assert_eq!(header(&record, name), Some(value), "{name}");
    }
    // A column that becomes a header may be NULL; the fixed one stays.
    values[6] = (b'n', b"");
    let record = read_for(&layout, &mapping, &values).unwrap();
    assert_eq!(header(&record, "X-Region"), Some("none"));
    // One that the subject needs may not.
    values[1] = (b'n', b"");
    assert!(read_for(&layout, &mapping, &values).is_err());
}

#[test]
fn a_headers_column_that_was_named_must_be_there() {
    let layout = layout(&["--cdc-column-headers", "metadata"]);
    let columns = [
        ("id", UUID),
        ("aggregatetype", TEXT),
        ("aggregateid", TEXT),
        ("type", TEXT),
        ("payload", BYTEA),
        ("headers", JSONB),
    ];
    let missing = mapping_for(&layout, &columns).unwrap_err();
    assert!(missing.to_string().contains("`metadata`"), "{missing}");
}
