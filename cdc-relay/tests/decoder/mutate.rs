//! Messages that Postgres sent, broken at random: whatever comes over the wire, the decoder says so and
//! neither panics nor takes memory for what is not there.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use cdc_relay::{
    pgoutput::{Message, decode},
    spool::CommitOrder,
    wal::{Event, WalReader},
};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    read::{self, Reading},
    rig::Rig,
    sources,
};

const RUNS: usize = 4000;

/// So many in a row are one seed of the fuzzer.
const SEED_MESSAGES: usize = 40;

/// What the process may take more than before: the largest frame twice, and change.
const GROWTH_MAX_KIB: u64 = 160 * 1024;

const TRANSACTIONS: &str = "
    CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL DEFAULT 'thing',
        aggregateid text NOT NULL DEFAULT '1', type text NOT NULL DEFAULT 'Made', payload bytea, headers jsonb);
    CREATE PUBLICATION relay FOR TABLE outbox;;
    INSERT INTO outbox (payload, headers) VALUES ('one', '{\"tenant\": 7}'), ('two', NULL);
    UPDATE outbox SET type = 'Changed'; DELETE FROM outbox; TRUNCATE outbox;
    BEGIN; INSERT INTO outbox (payload) SELECT 'three' FROM generate_series(1, 400);
    SAVEPOINT s; INSERT INTO outbox (payload) SELECT 'never' FROM generate_series(1, 400); ROLLBACK TO s;
    ALTER TABLE outbox ADD COLUMN more text; INSERT INTO outbox (payload) SELECT 'four' FROM generate_series(1, 400);
    COMMIT;";

fn mutate(rng: &mut StdRng, messages: &[Bytes]) -> Vec<Vec<u8>> {
    let from = rng.random_range(0..messages.len());
    let mut some: Vec<Vec<u8>> = messages[from..]
        .iter()
        .take(60)
        .map(|m| m.to_vec())
        .collect();
    for _ in 0..rng.random_range(0..8) {
        let at = rng.random_range(0..some.len());
        let length = some[at].len();
        match rng.random_range(0..8) {
            0 if length > 0 => some[at].truncate(rng.random_range(0..length)),
            1 => some[at].extend([0, 1, 255]),
            2 if some.len() > 1 => drop(some.remove(at)),
            3 => some.insert(at, messages[rng.random_range(0..messages.len())].to_vec()),
            // Counts and lengths as large as they go.
            4 if length > 4 => {
                let offset = rng.random_range(0..length - 4);
                some[at][offset..offset + 4].fill(if rng.random() { 0xff } else { 0x7f });
            }
            5 if length > 0 => some[at][0] = b"BCRIUDTMSEcAYO"[rng.random_range(0..14)],
            _ if length > 0 => {
                let offset = rng.random_range(0..length);
                some[at][offset] = rng.random();
            }
            _ => {}
        }
    }
    some
}

/// The messages as they come over the wire.
fn frames(messages: &[Vec<u8>]) -> BytesMut {
    let mut out = BytesMut::new();
    for message in messages {
        out.put_u8(b'd');
        out.put_u32(u32::try_from(message.len()).unwrap_or(0) + 29);
        out.put_u8(b'w');
        out.put_bytes(0, 24);
        out.extend_from_slice(message);
    }
    out
}

/// Breaks the frames too, at times.
fn mutate_frames(rng: &mut StdRng, mut out: BytesMut) -> Bytes {
    if rng.random_bool(0.3) && !out.is_empty() {
        let mut noise = vec![0; rng.random_range(1..9)];
        rng.fill_bytes(&mut noise);
        let at = rng.random_range(0..out.len());
        let end = (at + noise.len()).min(out.len());
        out[at..end].copy_from_slice(&noise[..end - at]);
    }
    out.freeze()
}

/// As the relay reads: frames, spool, decoder, records; ends at the first error, as a session does.
async fn drive(recording: Bytes) -> Result<()> {
    let reader = WalReader::of_recording(std::io::Cursor::new(recording));
    let mut order = CommitOrder::new(reader, read::spool());
    let mut reading = Reading::new()?;
    loop {
        if let Event::Data(message) = order.next().await? {
            reading.take(&message)?;
        }
    }
}

/// Leaves what Postgres sent for the fuzzer to begin with, in its two forms.
fn record(messages: &[Bytes], folder: &Path) -> Result<()> {
    for (at, some) in messages
        .windows(SEED_MESSAGES)
        .step_by(SEED_MESSAGES / 2)
        .enumerate()
    {
        let some: Vec<Vec<u8>> = some.iter().map(|message| message.to_vec()).collect();
        let mut plain = vec![1];
        for message in &some {
            plain.put_u16(u16::try_from(message.len())?);
            plain.extend(message);
        }
        fs::write(folder.join(format!("messages-{at}")), plain)?;
        let wire = [&[0][..], &frames(&some)].concat();
        fs::write(folder.join(format!("wire-{at}")), wire)?;
    }
    Ok(())
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse()?)
}

#[tokio::test]
async fn broken_messages_are_refused_without_a_panic_and_without_memory() -> Result<()> {
    let rig = Rig::without_outbox(&[("logical_decoding_work_mem", "64kB")]).await?;
    let (tables, transactions) = TRANSACTIONS.split_once(";;").context("two parts")?;
    rig.sql.batch_execute(tables).await?;
    sources::create_slot(&rig.sql, "relay").await?;
    for statement in transactions.split(';') {
        rig.sql.batch_execute(statement).await?;
    }
    let mut messages = sources::by_sql(&rig.sql, "relay", false).await?;
    messages.extend(sources::by_sql(&rig.sql, "relay", true).await?);

    if let Some(folder) = std::env::var_os("CDC_FUZZ_SEEDS") {
        return record(&messages, Path::new(&folder));
    }
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let before = resident_kib()?;
    for _ in 0..RUNS {
        let mutated = mutate(&mut rng, &messages);
        for message in &mutated {
            if let Ok(Message::Insert { tuple, .. }) = decode(message) {
                let _ = tuple.values().count();
            }
        }
        // Its end, at least, is an error.
        ensure!(
            drive(mutate_frames(&mut rng, frames(&mutated)))
                .await
                .is_err()
        );
    }
    let grown = resident_kib()?.saturating_sub(before);
    ensure!(grown < GROWTH_MAX_KIB, "seed {seed}: took {grown} KiB more");
    Ok(())
}
