//! Table-less mode: messages of `pg_logical_emit_message` are published as rows of a table are; what no
//! slot has kept is lost, and said to be.

mod rig;

use anyhow::{Context as _, Result, ensure};
use harness::eventually;
use rig::{Rig, SLOT, SOON, Stored, says};

const TABLELESS: (&str, &str) = ("CDC_MESSAGE_PREFIX", "outbox");

/// An event of this id, as the content of a message.
fn event(id: &str) -> String {
    format!(
        r#"{{"id": "{id}", "aggregatetype": "order", "aggregateid": 42, "type": "Made", "payload": {{"b": 1.10, "a": 2}}}}"#
    )
}

fn emit(content: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, 'outbox', '{content}')")
}

async fn stored(rig: &Rig, count: usize) -> Result<Vec<Stored>> {
    eventually("the events", SOON, async || {
        let stored = rig.stored().await?;
        ensure!(stored.len() == count, "{} of {count}", stored.len());
        Ok(Some(stored))
    })
    .await
}

fn ids(stored: &[Stored]) -> Vec<&str> {
    stored.iter().map(|message| message.id.as_str()).collect()
}

#[tokio::test]
async fn messages_are_published_in_commit_order_with_all_that_a_row_could_have_said() -> Result<()>
{
    let rig = Rig::without_outbox(&[]).await?;
    let environment = [
        TABLELESS,
        ("CDC_SUBJECT", "events.{tenant}.{type}"),
        ("CDC_CLOUDEVENTS_SOURCE", "/shop"),
    ];
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    let all = r#"{"id": 7, "aggregatetype": "order", "aggregateid": "42", "type": "Made", "tenant": "a\u0063me",
        "payload": {"b": 1.10, "a": 2}, "headers": {"traceparent": "00-1", "n": 5}, "more": []}"#;
    let bytes = r#"{"id": "8", "aggregatetype": "order", "aggregateid": "42", "type": "Made", "tenant": "acme",
        "payload_base64": "AP8="}"#;
    let rolled_back = emit(&event("never"));
    rig.sql
        .batch_execute(&format!("BEGIN; {rolled_back}; ROLLBACK"))
        .await?;
    let other = "SELECT pg_logical_emit_message(true, 'another prefix', 'x')";
    rig.sql
        .batch_execute(&format!(
            "BEGIN; {}; {other}; {}; COMMIT",
            emit(all),
            emit(bytes)
        ))
        .await?;
    rig.sql
        .batch_execute(&emit(all).replace("\"id\": 7", "\"id\": 9"))
        .await?;

    let stored = stored(&rig, 3).await?;
    assert_eq!(ids(&stored), ["7", "8", "9"]);
    let header = |at: usize, name: &str| {
        let value = stored[at].headers.get(name)?;
        Some(value.as_str().to_owned())
    };
    assert_eq!(
        stored[0].payload, r#"{"b": 1.10, "a": 2}"#,
        "as it was written"
    );
    assert_eq!(stored[0].subject, "events.acme.Made");
    assert_eq!(header(0, "traceparent").as_deref(), Some("00-1"));
    assert_eq!(header(0, "n").as_deref(), Some("5"));
    assert_eq!(header(0, "Aggregate-Id").as_deref(), Some("42"));
    assert_eq!(
        header(0, "ce-datacontenttype").as_deref(),
        Some("application/json")
    );
    assert_eq!(header(1, "ce-datacontenttype"), None);
    assert_eq!(stored[1].payload.as_bytes()[0], 0);
    assert_eq!(header(1, "Cdc-Commit").as_deref(), Some("2"));
    let at: Vec<u32> = stored
        .iter()
        .map(|message| message.position.index)
        .collect();
    assert_eq!(at, [0, 1, 0], "only events of the prefix count");
    assert!(stored[1].position < stored[2].position);
    Ok(())
}

#[tokio::test]
async fn a_kill_between_messages_repeats_none_and_loses_none() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let relay = rig.relay_with("relay", &[TABLELESS])?;
    relay.wait_ready().await?;
    let (mut expected, rounds) = (Vec::new(), 5);
    for round in 0..rounds {
        for number in 0..20 {
            let (first, second) = (format!("{round}-{number}-a"), format!("{round}-{number}-b"));
            let both = format!(
                "BEGIN; {}; {}; COMMIT",
                emit(&event(&first)),
                emit(&event(&second))
            );
            rig.sql.batch_execute(&both).await?;
            expected.extend([first, second]);
        }
        relay.kill().await?;
        relay.start_again()?;
    }
    let stored = stored(&rig, expected.len()).await?;
    assert_eq!(ids(&stored), expected);
    Ok(())
}

#[tokio::test]
async fn a_large_transaction_of_messages_arrives_whole_and_in_order() -> Result<()> {
    // So small that it is streamed in chunks.
    let rig = Rig::without_outbox(&[("logical_decoding_work_mem", "64kB")]).await?;
    let relay = rig.relay_with("relay", &[TABLELESS])?;
    relay.wait_ready().await?;
    let many = "BEGIN; SELECT count(pg_logical_emit_message(true, 'outbox', \
                json_build_object('id', n, 'aggregatetype', 'a', 'aggregateid', 'b', 'type', 'Made', \
                                  'payload', repeat('x', 200))::text)) FROM generate_series(1, 3000) n; COMMIT";
    rig.sql.batch_execute(many).await?;
    let stored = stored(&rig, 3000).await?;
    for (at, event) in stored.iter().enumerate() {
        assert_eq!(event.id, (at + 1).to_string());
        assert_eq!(usize::try_from(event.position.index)?, at);
    }
    Ok(())
}

#[tokio::test]
async fn what_was_emitted_before_the_slot_is_lost_and_said_to_be() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    rig.sql.batch_execute(&emit(&event("early"))).await?;
    let relay = rig.relay_with("relay", &[TABLELESS])?;
    relay.wait_ready().await?;
    says(&relay, "are lost: no table holds them").await?;
    rig.sql.batch_execute(&emit(&event("late"))).await?;
    assert_eq!(ids(&stored(&rig, 1).await?), ["late"]);
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_not_transactional_is_left_out_and_told() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let relay = rig.relay_with("relay", &[TABLELESS])?;
    relay.wait_ready().await?;
    rig.sql
        .batch_execute(&emit(&event("never")).replace("true", "false"))
        .await?;
    rig.sql.batch_execute(&emit(&event("one"))).await?;
    assert_eq!(ids(&stored(&rig, 1).await?), ["one"]);
    says(&relay, "it is not transactional").await?;
    let refused = relay.metric("cdc_relay_messages_refused_total").await?;
    assert_eq!(refused, Some(1.0));
    Ok(())
}

#[tokio::test]
async fn where_deleted_streams_are_refused_going_on_is_a_persons_word() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let relay = rig.relay_with("relay", &[TABLELESS, ("CDC_STREAM_DELETED", "refuse")])?;
    relay.wait_ready().await?;
    rig.sql.batch_execute(&emit(&event("one"))).await?;
    stored(&rig, 1).await?;
    let written = rig.wal_end().await?;
    eventually("the first to be confirmed", SOON, async || {
        let confirmed = rig.confirmed().await?;
        ensure!(confirmed >= written, "{confirmed} of {written}");
        Ok(Some(()))
    })
    .await?;
    relay.kill().await?;
    rig.sql.batch_execute(&emit(&event("two"))).await?;
    let jetstream = async_nats::jetstream::new(rig.nats.client().await?);
    let stream = jetstream.get_stream(rig::STREAM).await?;
    let config = stream.cached_info().config.clone();
    jetstream.delete_stream(rig::STREAM).await?;
    relay.start_again()?;
    says(
        &relay,
        "create the stream again, and the relay goes on there",
    )
    .await?;
    jetstream.create_stream(config).await?;
    let stored = stored(&rig, 1).await?;
    assert_eq!(ids(&stored), ["two"], "the slot still had it");
    Ok(())
}

#[tokio::test]
async fn init_check_and_status_know_that_there_is_no_table() -> Result<()> {
    let rig = Rig::without_outbox(&[]).await?;
    let url = format!(
        "postgres://relay:secret@127.0.0.1:{}/shop",
        rig.postgres.port()
    );
    let environment = [TABLELESS, ("DATABASE_URL", url.as_str())];
    let script = rig
        .command(&["init", "--with-password"], &environment)
        .await?;
    rig.sql
        .batch_execute(&String::from_utf8(script.stdout)?)
        .await?;
    let checked = rig.command(&["check"], &environment).await?;
    ensure!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    let relay = rig.relay_with("relay", &environment)?;
    relay.wait_ready().await?;
    relay.terminate().await?;
    let two = format!(
        "{}; {}; SELECT pg_logical_emit_message(true, 'outbox2', 'x')",
        emit(&event("one")),
        emit(&event("two"))
    );
    rig.sql.batch_execute(&two).await?;
    let found = rig.command(&["status", "--json"], &environment).await?;
    let found: serde_json::Value =
        serde_json::from_slice(&found.stdout).with_context(|| format!("{found:?}"))?;
    assert_eq!(found["waiting"]["events"], 2, "{found:#}");
    assert_eq!(found["slot_name"], SLOT);
    let compared = rig.command(&["reconcile"], &environment).await?;
    assert!(String::from_utf8(compared.stderr)?.contains("no table holds them"));
    Ok(())
}
