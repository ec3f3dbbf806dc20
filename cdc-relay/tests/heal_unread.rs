//! The stream lost events, and the slot has others that no table holds: rows that were deleted in the
//! transaction that wrote them, and messages. Healing the stream must not lose those (I5, I11).

mod rig;

use std::{collections::HashSet, time::Duration};

use anyhow::{Result, ensure};
use async_nats::jetstream;
use harness::eventually;
use rig::{Rig, SLOT, SOON, STREAM, Stored, says};

/// So little memory that a large transaction is streamed before it ends.
const STREAMED: (&str, &str) = ("logical_decoding_work_mem", "64kB");

const TABLELESS: (&str, &str) = ("CDC_MESSAGE_PREFIX", "outbox");

/// Rows of the large transaction.
const LARGE: usize = 3000;

fn payloads(stored: &[Stored]) -> Vec<&str> {
    stored.iter().map(|one| one.payload.as_str()).collect()
}

/// Writes rows and deletes them in the same transaction.
async fn pass(rig: &Rig, name: &str, rows: usize) -> Result<()> {
    let transaction = format!(
        "BEGIN; \
         INSERT INTO outbox (payload) SELECT convert_to('{name}-' || n, 'UTF8') FROM generate_series(1, {rows}) n; \
         DELETE FROM outbox WHERE convert_from(payload, 'UTF8') LIKE '{name}-%'; \
         COMMIT"
    );
    Ok(rig.sql.batch_execute(&transaction).await?)
}

fn passed(name: &str, rows: usize) -> impl Iterator<Item = String> {
    (1..=rows).map(move |n| format!("{name}-{n}"))
}

/// Some transactions that only the slot will know, and one whose row stays; in the order of the WAL.
async fn unread(rig: &Rig) -> Result<Vec<String>> {
    pass(rig, "a", 1).await?;
    pass(rig, "large", LARGE).await?;
    rig.insert("kept").await?;
    pass(rig, "b", 2).await?;
    let all = passed("a", 1).chain(passed("large", LARGE));
    let all = all.chain(["kept".to_owned()]).chain(passed("b", 2));
    Ok(all.collect())
}

/// Waits for so many events; there are no more, and none stands twice.
async fn stored(rig: &Rig, count: usize) -> Result<Vec<Stored>> {
    eventually("the events", SOON * 2, async || {
        let found = rig.count().await?;
        ensure!(found >= count as u64, "{found} of {count}");
        Ok(Some(()))
    })
    .await?;
    // One more, so that whatever would follow has come.
    rig.insert("the last").await?;
    eventually("the last event", SOON, async || {
        let stored = rig.stored().await?;
        let is_last = stored.last().is_some_and(|last| last.payload == "the last");
        ensure!(is_last, "{:?}", stored.last());
        Ok(Some(()))
    })
    .await?;
    let mut stored = rig.stored().await?;
    stored.pop();
    let ids: HashSet<&str> = stored.iter().map(|one| one.id.as_str()).collect();
    ensure!(ids.len() == stored.len(), "an event stands twice");
    ensure!(stored.len() == count, "{} of {count}", stored.len());
    Ok(stored)
}

async fn publish(rig: &Rig, payloads: &[&str]) -> Result<()> {
    for payload in payloads {
        rig.insert(payload).await?;
    }
    rig.settled().await?;
    rig.all_confirmed().await
}

/// What the stream lost comes before what it never had, and that in the order of the WAL.
#[track_caller]
fn stands(stored: &[Stored], kept: &[&str], lost: &[&str], unread: &[String]) {
    let all = payloads(stored);
    let (old, new) = all.split_at(kept.len() + lost.len());
    assert_eq!(old[..kept.len()], *kept);
    let mut again = old[kept.len()..].to_vec();
    again.sort_unstable();
    assert_eq!(again, lost);
    assert!(new == unread, "{} of {}", new.len(), unread.len());
}

#[tokio::test]
async fn rows_that_only_the_slot_has_outlive_a_lost_tail() -> Result<()> {
    let rig = Rig::start_with(&[STREAMED]).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    publish(&rig, &["one"]).await?;
    rig.nats.stop().await?;
    rig.nats.back_up("older")?;
    rig.nats.start_again().await?;
    publish(&rig, &["three", "two"]).await?;
    rig.nats.kill().await?;
    let unread = unread(&rig).await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    let all = stored(&rig, 3 + unread.len()).await?;
    stands(&all, &["one"], &["three", "two"], &unread);
    says(&relay, "JetStream lost its tail").await?;
    let positions: Vec<_> = all.iter().map(|one| one.position).collect();
    assert!(positions.is_sorted(), "not in the order of the WAL");
    Ok(())
}

#[tokio::test]
async fn rows_that_only_the_slot_has_outlive_the_stream() -> Result<()> {
    let rig = Rig::start_with(&[STREAMED]).await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    publish(&rig, &["one", "two"]).await?;
    // Under a relay that runs, with NATS away meanwhile.
    let jetstream = jetstream::new(rig.nats.client().await?);
    relay.pause()?;
    jetstream.delete_stream(STREAM).await?;
    rig.nats.kill().await?;
    relay.resume()?;
    let first = unread(&rig).await?;
    rig.nats.start_again().await?;
    let all = stored(&rig, 2 + first.len()).await?;
    stands(&all, &[], &["one", "two"], &first);
    // And under one that is away.
    rig.all_confirmed().await?;
    assert!(relay.terminate().await?.success());
    jetstream.delete_stream(STREAM).await?;
    pass(&rig, "c", 5).await?;
    relay.start_again()?;
    let all = stored(&rig, 9).await?;
    let kept = ["kept", "one", "the last", "two"];
    stands(&all, &[], &kept, &passed("c", 5).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn the_relay_killed_amid_the_healing_loses_and_doubles_nothing() -> Result<()> {
    // The stream's mark tells, not the comparison that each process makes.
    let settings = [("CDC_VERIFY", "false")];
    let rig = Rig::start_with(&[STREAMED]).await?;
    let relay = rig.relay_with("relay", &settings)?;
    relay.wait_ready().await?;
    publish(&rig, &["one"]).await?;
    rig.nats.stop().await?;
    rig.nats.back_up("older")?;
    rig.nats.start_again().await?;
    let rows = 20_000;
    let many = format!(
        "INSERT INTO outbox (payload) SELECT convert_to('x' || n || repeat('-', 1000), 'UTF8') \
         FROM generate_series(1, {rows}) n"
    );
    rig.sql.batch_execute(&many).await?;
    rig.settled().await?;
    rig.all_confirmed().await?;
    for is_deleted in [false, true] {
        relay.pause()?;
        if is_deleted {
            let jetstream = jetstream::new(rig.nats.client().await?);
            jetstream.delete_stream(STREAM).await?;
        } else {
            rig.nats.kill().await?;
            rig.nats.restore("older")?;
            rig.nats.start_again().await?;
        }
        let name = if is_deleted { "b" } else { "a" };
        pass(&rig, name, LARGE).await?;
        relay.resume()?;
        let mut kills = 0;
        for least in [1000, 6000, 12_000] {
            eventually("a part of the healing", SOON, async || {
                let count = rig.count().await.unwrap_or_default();
                ensure!(count > least, "{count}");
                Ok(Some(()))
            })
            .await?;
            relay.kill().await?;
            kills += usize::from(rig.count().await? < rows);
            relay.start_again()?;
        }
        ensure!(kills > 0, "each kill came after the healing");
        let lost = usize::try_from(rows)? + 1 + usize::from(is_deleted);
        let all = stored(&rig, lost + LARGE).await?;
        let unread: Vec<_> = passed(name, LARGE).collect();
        assert!(payloads(&all)[lost..] == unread, "of {name}");
        assert!(
            relay
                .log()
                .text()
                .contains("was not filled again to the end")
        );
        rig.all_confirmed().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_forgets_how_far_it_was_read_repeats_nothing_that_was_healed() -> Result<()> {
    let mut rig = Rig::start().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    // Postgres writes a slot's state to disk only now and then: this is one that it may find again.
    let data: String = rig.sql.query_one("SHOW data_directory", &[]).await?.get(0);
    let state = format!("{data}/pg_replslot/{SLOT}/state");
    let at_first = rig.wal_end().await?;
    let state_at_first = std::fs::read(&state)?;
    publish(&rig, &["one", "two"]).await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    jetstream.delete_stream(STREAM).await?;
    relay.restart().await?;
    rig.settled().await?;
    rig.all_confirmed().await?;
    // The last event of the stream is one that came from the table.
    relay.kill().await?;
    rig.postgres.kill().await?;
    std::fs::write(&state, state_at_first)?;
    rig.postgres.start_again().await?;
    rig.sql = rig.postgres.connect(rig::DATABASE).await?;
    let forgotten = rig.confirmed().await?;
    ensure!(forgotten <= at_first, "{forgotten} is after {at_first}");
    pass(&rig, "only in the slot", 2).await?;
    relay.start_again()?;
    let all = stored(&rig, 4).await?;
    let unread: Vec<_> = passed("only in the slot", 2).collect();
    stands(&all, &[], &["one", "two"], &unread);
    Ok(())
}

fn emit(id: usize) -> String {
    format!(
        "SELECT pg_logical_emit_message(true, 'outbox', json_build_object('id', {id}, 'aggregatetype', 'a', \
         'aggregateid', 'b', 'type', 'Made', 'payload', {id})::text);"
    )
}

fn ids(from: usize, to: usize) -> Vec<String> {
    (from..=to).map(|id| id.to_string()).collect()
}

/// Messages 3 to so many, the most of them in one transaction.
async fn emit_unread(rig: &Rig) -> Result<usize> {
    let last = 3 + LARGE;
    rig.sql.batch_execute(&emit(3)).await?;
    let many: String = (4..last).map(emit).collect();
    rig.sql
        .batch_execute(&format!("BEGIN; {many} COMMIT"))
        .await?;
    rig.sql.batch_execute(&emit(last)).await?;
    Ok(last)
}

/// Waits for exactly these.
async fn messages(rig: &Rig, expected: &[String]) -> Result<()> {
    let within = SOON + Duration::from_secs(10);
    eventually("the messages", within, async || {
        let stored = rig.stored().await?;
        let found: Vec<_> = stored.iter().map(|one| one.id.clone()).collect();
        ensure!(found == expected, "{} of {}", found.len(), expected.len());
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn messages_that_only_the_slot_has_outlive_a_lost_tail_and_the_stream() -> Result<()> {
    let rig = Rig::without_outbox(&[STREAMED]).await?;
    let relay = rig.relay_with("relay", &[TABLELESS])?;
    relay.wait_ready().await?;
    rig.sql.batch_execute(&emit(1)).await?;
    messages(&rig, &ids(1, 1)).await?;
    rig.nats.stop().await?;
    rig.nats.back_up("older")?;
    rig.nats.start_again().await?;
    rig.sql.batch_execute(&emit(2)).await?;
    messages(&rig, &ids(1, 2)).await?;
    rig.all_confirmed().await?;
    rig.nats.kill().await?;
    let last = emit_unread(&rig).await?;
    rig.nats.restore("older")?;
    rig.nats.start_again().await?;
    // The second is lost: nothing has it any more. The relay says so, and goes on by itself.
    let expected = [ids(1, 1), ids(3, last)].concat();
    messages(&rig, &expected).await?;
    says(
        &relay,
        "that the stream has lost are lost: no table holds them",
    )
    .await?;
    rig.all_confirmed().await?;
    relay.kill().await?;
    let jetstream = jetstream::new(rig.nats.client().await?);
    jetstream.delete_stream(STREAM).await?;
    rig.sql.batch_execute(&emit(last + 1)).await?;
    relay.start_again()?;
    messages(&rig, &ids(last + 1, last + 1)).await
}
