//! The spool against a model: random transactions in chunks, with savepoints, rollbacks and changes of
//! the table's columns among them, sent as Postgres would send them.

use std::collections::HashSet;

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Settings, Spool};
use crate::config::Table;

const ROUNDS: u64 = 150;
const OUTBOX: u32 = 500;
const OTHER: u32 = 501;

/// One subtransaction on the stack; the first is the transaction itself.
#[derive(Default)]
struct Level {
    xid: Option<u32>,
    /// Ids of those that were released into it, in order.
    released: Vec<u32>,
    rows: Vec<Row>,
    /// The columns as they are seen from here on, when they were changed.
    columns: Option<u32>,
}

/// A row, and the version of the columns that it was written with.
type Row = (u32, u32);

struct Open {
    xid: u32,
    levels: Vec<Level>,
    is_streamed: bool,
    has_rows: bool,
}

/// Postgres, as far as the plugin's messages go.
struct Server {
    rng: StdRng,
    sent: Vec<Bytes>,
    next_xid: u32,
    next_row: u32,
    next_columns: u32,
    columns: u32,
    /// What the plugin remembers of the descriptions that it has sent.
    is_described: bool,
    described_in: HashSet<u32>,
    open: Vec<Open>,
    committed: Vec<Vec<Row>>,
}

impl Open {
    fn columns(&self, global: u32) -> u32 {
        let own = self.levels.iter().rev().find_map(|level| level.columns);
        own.unwrap_or(global)
    }

    fn has_own_columns(&self) -> bool {
        self.levels.iter().any(|level| level.columns.is_some())
    }
}

impl Server {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // Sometimes ids run over the end of their range.
        let next_xid = if rng.random_bool(0.2) {
            u32::MAX - 20
        } else {
            700
        };
        Self {
            rng,
            sent: Vec::new(),
            next_xid,
            next_row: 0,
            next_columns: 1,
            columns: 0,
            is_described: false,
            described_in: HashSet::new(),
            open: Vec::new(),
            committed: Vec::new(),
        }
    }

    fn send(&mut self, parts: &[&[u8]]) {
        self.sent.push(parts.concat().into());
    }

    fn xid(&mut self) -> u32 {
        // 0 to 2 are not given out.
        self.next_xid = self.next_xid.wrapping_add(1).max(3);
        self.next_xid
    }

    fn invalidate(&mut self) {
        self.is_described = false;
        self.described_in.clear();
    }

    fn describe(&mut self, xid: &[u8], columns: u32) {
        let name = format!("v{columns}\0");
        let (relation, more) = (OUTBOX.to_be_bytes(), b"public\0outbox\0d\0\x01\x01");
        self.send(&[b"R", xid, &relation, more, name.as_bytes(), &[0; 8]]);
    }

    fn insert(&mut self, xid: &[u8], relation: u32, (row, columns): Row) {
        // Now and then larger than what is written or read at once.
        let size: u32 = if self.rng.random_ratio(1, 2000) {
            300_000
        } else {
            9
        };
        let mut value = format!("{row} {columns} ").into_bytes();
        value.resize(value.len().max(size as usize), b'x');
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        self.send(&[
            b"I",
            xid,
            &relation.to_be_bytes(),
            b"N\0\x01t",
            &length,
            &value,
        ]);
    }

    /// A whole transaction outside of chunks.
    fn small(&mut self) {
        if self.open.iter().any(Open::has_own_columns) {
            return; // It waits for the lock.
        }
        self.send(&[b"B", &[0; 20]]);
        if self.rng.random_bool(0.3) {
            // Another table's row: nothing that the outbox's description is for.
            self.insert(b"", OTHER, (u32::MAX, 0));
        }
        let mut rows = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            if !self.is_described {
                self.describe(b"", self.columns);
                self.is_described = true;
            }
            self.next_row += 1;
            rows.push((self.next_row, self.columns));
            self.insert(b"", OUTBOX, (self.next_row, self.columns));
        }
        self.send(&[b"C", &[0; 25]]);
        self.committed.push(rows);
    }

    /// What the transaction does before its next chunk ends.
    fn chunk(&mut self, at: usize) {
        let mut open = self.open.swap_remove(at);
        let first = u8::from(!open.is_streamed);
        self.send(&[b"S", &open.xid.to_be_bytes(), &[first]]);
        open.is_streamed = true;
        let dense = self.rng.random_ratio(1, 10);
        for _ in 0..self.rng.random_range(0..if dense { 900 } else { 12 }) {
            match self.rng.random_range(0..10) {
                0..=1 => open.levels.push(Level::default()),
                2..=3 if open.levels.len() > 1 => release(&mut open.levels),
                _ => self.row(&mut open),
            }
        }
        self.send(&[b"E"]);
        if open.has_own_columns() && self.rng.random_bool(0.5) {
            self.invalidate();
        }
        self.open.push(open);
    }

    fn row(&mut self, open: &mut Open) {
        if self.open.iter().any(Open::has_own_columns) {
            return;
        }
        for level in &mut open.levels {
            if level.xid.is_none() {
                level.xid = Some(self.xid());
            }
        }
        let xid = open
            .levels
            .last()
            .and_then(|level| level.xid)
            .unwrap()
            .to_be_bytes();
        if self.rng.random_ratio(1, 5) {
            self.insert(&xid, OTHER, (u32::MAX, 0));
            return;
        }
        let columns = open.columns(self.columns);
        if self.described_in.insert(open.xid) {
            self.describe(&xid, columns);
        }
        open.has_rows = true;
        self.next_row += 1;
        self.insert(&xid, OUTBOX, (self.next_row, columns));
        open.levels
            .last_mut()
            .unwrap()
            .rows
            .push((self.next_row, columns));
    }

    /// The table is altered, which waits for everybody else's locks.
    fn alter(&mut self, at: usize) {
        let others = (0..self.open.len()).filter(|other| *other != at);
        if others.into_iter().any(|other| self.open[other].has_rows) {
            return;
        }
        self.next_columns += 1;
        self.open[at].levels.last_mut().unwrap().columns = Some(self.next_columns);
        self.invalidate();
    }

    /// The publication takes other columns, which waits for nobody.
    fn publish(&mut self) {
        if !self.open.iter().any(Open::has_own_columns) {
            self.next_columns += 1;
            self.columns = self.next_columns;
            self.invalidate();
        }
    }

    /// Back to a savepoint: one message for each that had begun since, the innermost first, and for
    /// each the released ones before itself.
    fn roll_back(&mut self, at: usize) {
        let mut open = self.open.swap_remove(at);
        let depth = self
            .rng
            .random_range(1..open.levels.len().max(2))
            .min(open.levels.len());
        let (mut has_aborted, mut has_altered) = (false, false);
        for level in open.levels.drain(depth..).rev() {
            has_altered |= level.columns.is_some();
            for subxid in level.released.into_iter().chain(level.xid) {
                has_aborted = true;
                self.send(&[b"A", &open.xid.to_be_bytes(), &subxid.to_be_bytes()]);
            }
        }
        if has_aborted {
            self.described_in.remove(&open.xid);
        }
        if has_altered {
            self.invalidate();
        }
        self.open.push(open);
    }

    fn end(&mut self, at: usize) {
        let mut open = self.open.swap_remove(at);
        if !open.is_streamed {
            return;
        }
        let xid = open.xid.to_be_bytes();
        if self.rng.random_bool(0.3) {
            if open.has_own_columns() {
                self.invalidate();
            }
            self.described_in.remove(&open.xid);
            self.send(&[b"A", &xid, &xid]);
            return;
        }
        while open.levels.len() > 1 {
            release(&mut open.levels);
        }
        self.columns = open.columns(self.columns);
        if self.described_in.remove(&open.xid) {
            self.is_described = true;
        }
        self.send(&[b"c", &xid, &[0; 25]]);
        self.committed.push(open.levels.remove(0).rows);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0..=2 => self.small(),
            3 if self.rng.random_bool(0.5) => self.publish(),
            3..=4 if self.open.len() < 4 => {
                let xid = self.xid();
                let level = Level {
                    xid: Some(xid),
                    ..Level::default()
                };
                self.open.push(Open {
                    xid,
                    levels: vec![level],
                    is_streamed: false,
                    has_rows: false,
                });
            }
            what if !self.open.is_empty() => {
                let at = self.rng.random_range(0..self.open.len());
                match what {
                    5..=8 => self.roll_back(at),
                    9 => self.alter(at),
                    10 => self.end(at),
                    _ => self.chunk(at),
                }
            }
            _ => {}
        }
    }
}

fn release(levels: &mut Vec<Level>) {
    let Some(level) = levels.pop() else { return };
    let Some(below) = levels.last_mut() else {
        return;
    };
    below.released.extend(level.released);
    below.released.extend(level.xid);
    below
        .released
        .sort_by(|a, b| a.wrapping_sub(*b).cast_signed().cmp(&0));
    below.rows.extend(level.rows);
    below.columns = level.columns.or(below.columns);
}

/// What comes out: the rows by transaction, each as it was written and under the right description.
fn received(server: &Server) -> Vec<Vec<Row>> {
    let settings = Settings {
        directory: std::env::temp_dir(),
        bytes_max: u64::MAX,
    };
    let table = Table {
        schema: "public".to_owned(),
        name: "outbox".to_owned(),
    };
    let mut spool = Spool::new(settings, table);
    let (mut out, mut columns) = (Vec::<Vec<Row>>::new(), None);
    let mut is_open = false;
    let mut take = |message: Bytes| match message[0] {
        b'B' => {
            assert!(!is_open, "a transaction within another");
            is_open = true;
            out.push(Vec::new());
        }
        b'C' => is_open = false,
        b'R' => {
            let name = &message[1 + 4 + 7 + 7 + 1 + 2 + 1..message.len() - 9];
            let name = std::str::from_utf8(name).unwrap();
            columns = Some(name.strip_prefix('v').unwrap().parse::<u32>().unwrap());
        }
        b'I' if message[1..5] == OUTBOX.to_be_bytes() => {
            let value = std::str::from_utf8(&message[13..]).unwrap();
            let mut words = value.split(' ').map(|word| word.parse::<u32>());
            let row = (
                words.next().unwrap().unwrap(),
                words.next().unwrap().unwrap(),
            );
            assert_eq!(
                columns,
                Some(row.1),
                "row {} under another description",
                row.0
            );
            out.last_mut().unwrap().push(row);
        }
        b'I' => {}
        other => panic!("{} came out", char::from(other)),
    };
    for message in &server.sent {
        if let Some(message) = spool.take(message.clone()).unwrap() {
            take(message);
        }
        while spool.has_more() {
            if let Some(message) = spool.give().unwrap() {
                take(message);
            }
        }
    }
    let in_progress = server.open.iter().filter(|open| open.is_streamed).count();
    let (transactions, bytes) = spool.held();
    assert_eq!(transactions, in_progress, "some wait for ever");
    assert!(
        in_progress > 0 || bytes == 0,
        "{bytes} bytes are kept for nothing"
    );
    out
}

#[test]
fn transactions_come_out_whole_in_commit_order_without_what_was_rolled_back() {
    let base = rand::rng().random_range(0..1_000_000);
    for seed in base..base + ROUNDS {
        println!("seed {seed}");
        let mut server = Server::new(seed);
        for _ in 0..server.rng.random_range(10..250) {
            server.step();
        }
        let received = received(&server);
        assert_eq!(received.len(), server.committed.len(), "seed {seed}");
        for (at, (received, committed)) in received.iter().zip(&server.committed).enumerate() {
            assert_eq!(received, committed, "seed {seed}, transaction {at}");
        }
    }
}
