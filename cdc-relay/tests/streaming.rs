//! Large transactions that Postgres sends while they run: they appear at their commit, whole and in
//! their place, without what was rolled back, whatever happens to the relay meanwhile (I5), and pin
//! neither memory (I12) nor what was committed before them (I3).

mod rig;

use anyhow::{Result, ensure};
use harness::{Process, eventually};
use rig::{DATABASE, Rig, SOON, Stored};
use tokio_postgres::Client;

/// Postgres streams what exceeds the least that it takes for this.
const SETTINGS: [(&str, &str); 2] = [
    ("logical_decoding_work_mem", "64kB"),
    ("max_prepared_transactions", "4"),
];

const OFF: (&str, &str) = ("CDC_STREAMING", "off");

async fn rig() -> Result<Rig> {
    Rig::start_with(&SETTINGS).await
}

/// Inserts rows `{name}-1` to `{name}-{count}`.
async fn rows(sql: &Client, name: &str, count: u32) -> Result<()> {
    let statement = format!(
        "INSERT INTO outbox (payload) SELECT convert_to('{name}-' || n, 'UTF8') FROM generate_series(1, {count}) n"
    );
    Ok(sql.batch_execute(&statement).await?)
}

/// Waits until so many transactions wait in the relay's spool.
async fn spooled(relay: &Process, count: u32) -> Result<()> {
    let series = "cdc_relay_spool_transactions";
    eventually("transactions in the spool", SOON, async || {
        let now = relay.metric(series).await?.unwrap_or_default();
        ensure!(now == f64::from(count), "{now} of {count}");
        Ok(Some(()))
    })
    .await
}

async fn replayed(relay: &Process) -> Result<f64> {
    let count = relay.metric("cdc_relay_spool_replayed_total").await?;
    Ok(count.unwrap_or_default())
}

/// The payloads without their numbers, each once where it repeats.
fn names(stored: &[Stored]) -> Vec<&str> {
    let name = |event: &'_ Stored| event.payload.rfind('-').unwrap_or(event.payload.len());
    let mut names: Vec<&str> = stored.iter().map(|e| &e.payload[..name(e)]).collect();
    names.dedup();
    names
}

/// The rows of one name, in the order of their numbers.
fn ensure_whole(stored: &[Stored], name: &str, count: usize) -> Result<()> {
    let of_name = stored
        .iter()
        .filter_map(|e| e.payload.strip_prefix(name)?.strip_prefix('-'));
    let numbers: Vec<usize> = of_name.map(str::parse).collect::<Result<_, _>>()?;
    ensure!(
        numbers.iter().copied().eq(1..=count),
        "{name} is not whole: {} rows",
        numbers.len()
    );
    Ok(())
}

#[tokio::test]
async fn large_transactions_stand_at_their_commits_without_what_was_rolled_back() -> Result<()> {
    let rig = rig().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let (first, second) = (
        rig.postgres.connect(DATABASE).await?,
        rig.postgres.connect(DATABASE).await?,
    );

    // Two in chunks that alternate, small ones between, and one that never commits.
    let third = rig.postgres.connect(DATABASE).await?;
    for open in [&first, &second, &third] {
        open.batch_execute("BEGIN").await?;
    }
    rows(&third, "never", 3000).await?;
    rows(&first, "first", 3000).await?;
    rig.insert("small").await?;
    rows(&second, "second", 3000).await?;
    spooled(&relay, 3).await?;
    first.batch_execute("SAVEPOINT a").await?;
    rows(&first, "taken back", 3000).await?;
    first.batch_execute("SAVEPOINT b").await?;
    rows(&first, "taken back too", 3000).await?;
    first.batch_execute("RELEASE b; ROLLBACK TO a").await?;
    rows(&second, "second more", 2000).await?;
    rows(&first, "first again", 3000).await?;
    first.batch_execute("SAVEPOINT c").await?;
    rows(&first, "kept", 2000).await?;
    first.batch_execute("RELEASE c").await?;
    third.batch_execute("ROLLBACK").await?;
    spooled(&relay, 2).await?;
    second.batch_execute("COMMIT").await?;
    rig.insert("between").await?;
    first.batch_execute("COMMIT").await?;
    rig.insert("last").await?;

    let stored = rig.settled().await?;
    let expected = [
        "small",
        "second",
        "second more",
        "between",
        "first",
        "first again",
        "kept",
        "last",
    ];
    assert_eq!(names(&stored), expected);
    for (name, count) in [
        ("first", 3000),
        ("first again", 3000),
        ("kept", 2000),
        ("second", 3000),
        ("second more", 2000),
    ] {
        ensure_whole(&stored, name, count)?;
    }
    assert_eq!(replayed(&relay).await?, 2.0);
    spooled(&relay, 0).await?;
    assert_eq!(relay.metric("cdc_relay_spool_bytes").await?, Some(0.0));
    Ok(())
}

#[tokio::test]
async fn a_transaction_in_progress_holds_up_nothing_and_survives_a_kill_in_either_mode()
-> Result<()> {
    let rig = rig().await?;
    let on = rig.relay("on")?;
    on.wait_ready().await?;
    let open = rig.postgres.connect(DATABASE).await?;
    open.batch_execute("BEGIN").await?;
    rows(&open, "one", 3000).await?;
    spooled(&on, 1).await?;
    rig.insert("small").await?;
    rig.settled().await?;
    // I3: what was committed before, and the idle time since, is confirmed past the open one's rows.
    rig.all_confirmed().await?;
    on.kill().await?;

    let off = rig.relay_with("off", &[OFF])?;
    off.wait_ready().await?;
    rows(&open, "two", 3000).await?;
    rig.insert("small more").await?;
    rig.settled().await?;
    rig.all_confirmed().await?;
    off.kill().await?;

    on.start_again()?;
    on.wait_ready().await?;
    rows(&open, "three", 3000).await?;
    spooled(&on, 1).await?;
    rig.all_confirmed().await?;
    on.kill().await?;
    open.batch_execute("COMMIT").await?;
    rig.insert("last").await?;
    on.start_again()?;

    let stored = rig.settled().await?;
    assert_eq!(
        names(&stored),
        ["small", "small more", "one", "two", "three", "last"]
    );
    for name in ["one", "two", "three"] {
        ensure_whole(&stored, name, 3000)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_relay_killed_amid_the_publishing_goes_on_in_the_other_mode() -> Result<()> {
    let rig = rig().await?;
    let on = rig.relay("on")?;
    on.wait_ready().await?;
    let off = rig.relay_with("off", &[OFF])?;
    off.kill().await?;
    let open = rig.postgres.connect(DATABASE).await?;
    for (round, (now, then)) in [(&on, &off), (&off, &on)].into_iter().enumerate() {
        now.wait_ready().await?;
        let before = rig.count().await?;
        open.batch_execute("BEGIN").await?;
        for part in 0..5 {
            rows(&open, &format!("{round} {part}"), 6000).await?;
            open.batch_execute("SAVEPOINT s").await?;
            rows(&open, "taken back", 500).await?;
            open.batch_execute("ROLLBACK TO s").await?;
        }
        open.batch_execute("COMMIT").await?;
        rig.insert("after").await?;
        eventually("a part of it", SOON, async || {
            Ok((rig.count().await? > before).then_some(()))
        })
        .await?;
        now.kill().await?;
        ensure!(
            rig.count().await? < before + 30_000,
            "too late: all of it was there"
        );
        then.start_again()?;
        let stored = rig.settled().await?;
        for part in 0..5 {
            ensure_whole(&stored, &format!("{round} {part}"), 6000)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn ddl_amid_a_large_transaction_counts_from_there_and_not_when_rolled_back() -> Result<()> {
    let rig = rig().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    rig.insert("before").await?;
    let open = rig.postgres.connect(DATABASE).await?;
    open.batch_execute("BEGIN").await?;
    rows(&open, "one", 2000).await?;
    // What makes it no outbox, rolled back: nobody's business.
    open.batch_execute("SAVEPOINT a; ALTER TABLE outbox DROP COLUMN headers, DROP COLUMN type; ALTER TABLE outbox ADD COLUMN type int[]").await?;
    rows(&open, "taken back", 2000).await?;
    open.batch_execute("ROLLBACK TO a").await?;
    rows(&open, "two", 2000).await?;
    open.batch_execute("ALTER TABLE outbox DROP COLUMN type; ALTER TABLE outbox ADD COLUMN type text NOT NULL DEFAULT 'Moved'").await?;
    rows(&open, "three", 2000).await?;
    open.batch_execute("SAVEPOINT b; ALTER TABLE outbox ADD COLUMN more text DEFAULT 'x'")
        .await?;
    rows(&open, "never", 2000).await?;
    open.batch_execute("ROLLBACK TO b").await?;
    spooled(&relay, 1).await?;
    open.batch_execute("COMMIT").await?;
    // The server counts the streamed description as sent.
    rig.insert("after").await?;
    rig.sql
        .batch_execute("ALTER TABLE outbox ADD COLUMN again text")
        .await?;
    rig.insert("last").await?;

    let stored = rig.settled().await?;
    assert_eq!(
        names(&stored),
        ["before", "one", "two", "three", "after", "last"]
    );
    let moved = stored
        .iter()
        .filter(|event| event.subject == "events.Moved")
        .count();
    // A rewrite of the table is no insert: rows from before keep the type that they had.
    assert_eq!(moved, 2002);
    assert_eq!(replayed(&relay).await?, 1.0);
    Ok(())
}

/// A loop with a savepoint for each of its rows; every third is rolled back.
fn savepoints(name: &str, count: u32) -> String {
    format!(
        "DO $$ BEGIN FOR n IN 1..{count} LOOP BEGIN
             INSERT INTO outbox (payload) VALUES (convert_to('{name}-' || n, 'UTF8'));
             IF n % 3 = 0 THEN RAISE 'back'; END IF;
         EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$"
    )
}

#[tokio::test]
async fn thousands_of_savepoints_take_back_their_rows_and_no_others() -> Result<()> {
    let rig = rig().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let open = rig.postgres.connect(DATABASE).await?;
    open.batch_execute("BEGIN").await?;
    rows(&open, "one", 500).await?;
    open.batch_execute("SAVEPOINT early").await?;
    open.batch_execute(&savepoints("never", 3000)).await?;
    spooled(&relay, 1).await?;
    open.batch_execute("ROLLBACK TO early").await?;
    open.batch_execute(&savepoints("kept", 3000)).await?;
    rows(&open, "last", 500).await?;
    open.batch_execute("COMMIT").await?;
    let stored = rig.settled().await?;
    assert_eq!(names(&stored), ["one", "kept", "last"]);
    let kept = stored[500..2500].iter().map(|event| event.payload.as_str());
    let expected = (1..=3000)
        .filter(|n| n % 3 != 0)
        .map(|n| format!("kept-{n}"));
    ensure!(kept.eq(expected), "other rows than those that were kept");
    assert_eq!(replayed(&relay).await?, 1.0);
    Ok(())
}

#[tokio::test]
async fn a_prepared_transaction_stands_where_it_was_committed() -> Result<()> {
    let rig = rig().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    for name in ["kept", "never"] {
        let open = rig.postgres.connect(DATABASE).await?;
        open.batch_execute("BEGIN").await?;
        rows(&open, name, 3000).await?;
        open.batch_execute(&format!("PREPARE TRANSACTION '{name}'"))
            .await?;
    }
    spooled(&relay, 2).await?;
    rig.insert("before").await?;
    rig.sql.batch_execute("COMMIT PREPARED 'kept'").await?;
    rig.sql.batch_execute("ROLLBACK PREPARED 'never'").await?;
    rig.insert("after").await?;
    let stored = rig.settled().await?;
    assert_eq!(names(&stored), ["before", "kept", "after"]);
    ensure_whole(&stored, "kept", 3000)?;
    spooled(&relay, 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_spool_that_is_full_or_cannot_be_written_turns_streaming_off_and_loses_nothing()
-> Result<()> {
    let rig = rig().await?;
    let small = rig.relay_with("small", &[("CDC_SPOOL_BYTES_MAX", "1048576")])?;
    small.wait_ready().await?;
    let open = rig.postgres.connect(DATABASE).await?;
    open.batch_execute("BEGIN").await?;
    rows(&open, "one", 20_000).await?;
    rig.insert("small").await?;
    eventually("streaming to go off", SOON, async || {
        Ok(small
            .log()
            .tail()
            .contains("starting over with streaming off")
            .then_some(()))
    })
    .await?;
    rows(&open, "two", 1000).await?;
    open.batch_execute("COMMIT").await?;
    assert_eq!(names(&rig.settled().await?), ["small", "one", "two"]);
    small.terminate().await?;

    let nowhere = rig.guard.directory().join("nowhere");
    let nowhere = rig.relay_with(
        "nowhere",
        &[("CDC_SPOOL_DIRECTORY", &nowhere.to_string_lossy())],
    )?;
    nowhere.wait_ready().await?;
    rows(&rig.sql, "three", 3000).await?;
    assert_eq!(
        names(&rig.settled().await?),
        ["small", "one", "two", "three"]
    );
    assert!(
        nowhere
            .log()
            .tail()
            .contains("starting over with streaming off"),
        "{}",
        nowhere.log().tail()
    );
    assert_eq!(replayed(&nowhere).await?, 0.0);
    Ok(())
}

#[tokio::test]
async fn a_server_that_crashes_amid_a_large_transaction_leaves_nothing_behind() -> Result<()> {
    let rig = rig().await?;
    let relay = rig.relay("relay")?;
    relay.wait_ready().await?;
    let open = rig.postgres.connect(DATABASE).await?;
    open.batch_execute("BEGIN").await?;
    rows(&open, "never", 3000).await?;
    spooled(&relay, 1).await?;
    rig.postgres.kill().await?;
    rig.postgres.start_again().await?;
    let rig = Rig {
        sql: rig.postgres.connect(DATABASE).await?,
        ..rig
    };
    rows(&rig.sql, "after", 3000).await?;
    let stored = rig.settled().await?;
    assert_eq!(names(&stored), ["after"]);
    ensure_whole(&stored, "after", 3000)?;
    Ok(())
}
