//! The decoder against Postgres' own bytes: random transactions, and for each way to get at the bytes
//! (SQL, a walsender while they run, `pg_recvlogical` where it is installed) and each protocol version
//! every byte is accounted for, and what comes out is what SQL says was committed.

// One program: nobody else sees what its parts show each other.
#![allow(unreachable_pub, missing_debug_implementations, clippy::print_stdout)]

mod account;
mod model;
mod mutate;
mod read;
#[path = "../rig/mod.rs"]
mod rig;
mod sources;

use account::{Tally, account};
use anyhow::{Context as _, Result, bail, ensure};
use model::{Event, Session, Shape, pick};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use read::Transactions;
use rig::Rig;

/// Rounds on a table of another shape each, and steps in each.
const ROUNDS: u64 = 4;
/// So many when chance keeps one of [`SEEN`] back.
const ROUNDS_MAX: u64 = 12;
const STEPS: usize = 250;
/// How often a round is begun anew over [`UNREADABLE_SLOT`].
const SLOTS_MAX: usize = 4;
const SESSIONS: usize = 3;

/// What the rounds must have come across, or they prove little.
const SEEN: [char; 14] = [
    'B', 'C', 'R', 'Y', 'I', 'U', 'D', 'T', 'S', 'E', 'c', 'A', 'n', 'u',
];

/// Transactions on one database.
struct Run {
    rng: StdRng,
    shape: Shape,
    sessions: Vec<Session>,
    /// Who holds the table's strongest lock, perhaps.
    exclusive: Option<usize>,
    next: i64,
    columns: usize,
    committed: Vec<Vec<Event>>,
}

impl Run {
    async fn step(&mut self) -> Result<()> {
        let at = self.rng.random_range(0..self.sessions.len());
        if self.exclusive.is_some_and(|holder| holder != at) {
            return Ok(());
        }
        if !self.sessions[at].is_open() {
            self.sessions[at].run("BEGIN").await?;
            self.sessions[at].levels.push(Vec::new());
        }
        let depth = self.sessions[at].levels.len();
        match self.rng.random_range(0..30) {
            0..=6 => self.insert(at, 1).await?,
            7..=11 => self.insert(at, 60).await?,
            12..=15 if depth < 6 => self.sessions[at].savepoint().await?,
            16..=20 if depth > 1 => {
                let (depth, release) = (self.rng.random_range(1..depth), self.rng.random_bool(0.5));
                self.sessions[at].leave(depth, release).await?;
            }
            21..=22 => self.change(at).await?,
            23..=24 if depth == 1 || !self.shape.is_partitioned => self.alter(at).await?,
            25 => {
                let statement = "INSERT INTO other (x) VALUES ('not ours')";
                self.sessions[at].run(statement).await?;
            }
            26..=27 => self.end(at).await?,
            _ => {}
        }
        Ok(())
    }

    async fn insert(&mut self, at: usize, count: usize) -> Result<()> {
        let statement = self.shape.insert(&mut self.rng, count, &mut self.next);
        self.sessions[at].insert(&statement).await
    }

    /// Updates or deletes rows of the transaction's own, which nobody else waits for.
    async fn change(&mut self, at: usize) -> Result<()> {
        let events: Vec<&Event> = self.sessions[at].levels.iter().flatten().collect();
        if events.is_empty() {
            return Ok(());
        }
        let id = &events[self.rng.random_range(0..events.len())].id;
        let statement = match self.rng.random_bool(0.5) {
            // The note stays where it is, out of line if it is long.
            true => format!(
                "UPDATE outbox SET type = 'changed' WHERE id::text = '{id}' OR length(note) > 8000 AND xmin::text = pg_current_xact_id()::text"
            ),
            false => format!("DELETE FROM outbox WHERE id::text = '{id}'"),
        };
        self.sessions[at].run(&statement).await
    }

    /// What takes the table for itself, and so waits for the others to end.
    ///
    /// Danger: not after a savepoint of a partitioned table. Postgres 15.18 streams a transaction on its way, and
    /// when a savepoint that changed the catalog is rolled back meanwhile, the walsender no longer finds the
    /// partitions' parent and dies of it, with the whole server (SIGSEGV in `pgoutput`'s `init_tuple_slot`;
    /// seed 300609 without this exception).
    async fn alter(&mut self, at: usize) -> Result<()> {
        for other in (0..self.sessions.len()).filter(|other| *other != at) {
            if self.sessions[other].is_open() {
                self.end(other).await?;
            }
        }
        self.exclusive = Some(at);
        self.columns += 1;
        let column = format!("more_{}", self.columns);
        let statement = match self.rng.random_range(0..6) {
            0..=1 => "TRUNCATE outbox".to_owned(),
            2 => format!("ALTER TABLE outbox ADD COLUMN {column} text DEFAULT 'more'"),
            3 => format!(
                "ALTER TABLE outbox ADD COLUMN {column} int; ALTER TABLE outbox DROP COLUMN {column}"
            ),
            // Every row is written anew, which is no insert.
            4 => "ALTER TABLE outbox ALTER COLUMN type TYPE text".to_owned(),
            _ => {
                let identity = pick(&mut self.rng, &["FULL", "DEFAULT"]);
                format!("ALTER TABLE outbox REPLICA IDENTITY {identity}")
            }
        };
        self.sessions[at].run(&statement).await
    }

    async fn end(&mut self, at: usize) -> Result<()> {
        let commit = self.rng.random_bool(0.8);
        let events = self.sessions[at].end(commit).await?;
        if !events.is_empty() {
            self.committed.push(events);
        }
        self.exclusive = self.exclusive.filter(|holder| *holder != at);
        Ok(())
    }
}

/// Whether what was read is what was committed.
fn ensure_same(read: &Transactions, committed: &[Vec<Event>]) -> Result<()> {
    for (at, (read, committed)) in read.iter().zip(committed).enumerate() {
        ensure!(
            read.iter().map(|(_, event)| event).eq(committed),
            "transaction {at} differs: {} events, {} committed",
            read.len(),
            committed.len()
        );
    }
    let counts = (read.len(), committed.len());
    ensure!(
        counts.0 == counts.1,
        "{} transactions, {} committed",
        counts.0,
        counts.1
    );
    let positions: Vec<_> = read
        .iter()
        .flatten()
        .map(|(position, _)| position)
        .collect();
    ensure!(positions.is_sorted(), "not in commit order");
    Ok(())
}

/// What Postgres 15 says of a slot that it made while the catalog changed, and that nobody can read: now and
/// then, and only just after the slot was made. The relay makes another then, and so does a round.
const UNREADABLE_SLOT: &str = "could not map filenode";

async fn round(
    rig: &Rig,
    seed: u64,
    (round, database): (u64, &str),
    tally: &mut Tally,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let shape = Shape::random(&mut rng, round);
    println!("seed {seed}, round {round}: {shape:?}");
    rig.postgres.create_database(database).await?;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let client = rig.postgres.connect(database).await?;
        sessions.push(Session {
            client,
            levels: Vec::new(),
        });
    }
    let sql = rig.postgres.connect(database).await?;
    sql.batch_execute(&shape.statements()).await?;
    let live = sources::Live::start(rig, &sql, database).await?;
    let slot = format!("{database}_after");
    sources::create_slot(&sql, &slot).await?;

    let (exclusive, committed) = (None, Vec::new());
    let mut run = Run {
        rng,
        shape,
        sessions,
        exclusive,
        next: 0,
        columns: 0,
        committed,
    };
    for _ in 0..STEPS {
        run.step().await?;
    }
    for at in 0..SESSIONS {
        if run.sessions[at].is_open() {
            run.end(at).await?;
        }
    }

    let whole = sources::by_sql(&sql, &slot, false).await?;
    let chunks = sources::by_sql(&sql, &slot, true).await?;
    let mut all = vec![
        ("SQL, version 1", whole.clone()),
        ("SQL, version 2", chunks),
        ("a walsender while it ran, version 2", live.end(&sql).await?),
    ];
    for (name, streaming) in [("version 1", false), ("version 2", true)] {
        match sources::by_pg_recvlogical(rig, &sql, database, &slot, streaming).await? {
            Some(messages) if streaming => all.push(("pg_recvlogical, version 2", messages)),
            Some(messages) => ensure!(messages == whole, "pg_recvlogical has other bytes than SQL"),
            None => println!("no pg_recvlogical here: {name} by SQL alone"),
        }
    }
    let expected = read::read(&whole)?;
    for (name, messages) in all {
        account(&messages, tally).context(name)?;
        let read = read::read(&messages).context(name)?;
        ensure_same(&read, &run.committed).context(name)?;
        ensure!(read == expected, "{name}: other positions than version 1");
    }
    Ok(())
}

#[tokio::test]
async fn every_byte_is_accounted_for_and_what_comes_out_is_what_was_committed() -> Result<()> {
    let settings = [("logical_decoding_work_mem", "64kB")];
    let mut rig = Rig::without_outbox(&settings).await?;
    let seed = match std::env::var("CDC_TEST_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::rng().random_range(0..1_000_000),
    };
    let mut tally = Tally::new();
    let is_missing = |tally: &Tally| SEEN.into_iter().find(|tag| !tally.contains_key(tag));
    for number in 0..ROUNDS_MAX {
        if number >= ROUNDS && is_missing(&tally).is_none() {
            break;
        }
        let seed = seed + number;
        for slot in 1..=SLOTS_MAX {
            let database = format!("round_{number}_{slot}");
            let ended = round(&rig, seed, (number, &database), &mut tally).await;
            let is_readable =
                !matches!(&ended, Err(why) if format!("{why:#}").contains(UNREADABLE_SLOT));
            if is_readable || slot == SLOTS_MAX {
                ended.with_context(|| format!("seed {seed}, round {number}"))?;
                break;
            }
            println!("once more: Postgres has made a slot that cannot be decoded");
            // The same server would do it again.
            rig = Rig::without_outbox(&settings).await?;
        }
    }
    println!("{tally:?}");
    if let Some(tag) = is_missing(&tally) {
        bail!("seed {seed}: no {tag:?} in {tally:?}");
    }
    Ok(())
}
