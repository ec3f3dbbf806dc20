//! The demo as a person runs it: what it tells, and that nothing is left of it.
//!
//! It starts the binaries beside it, which `cargo xtask test` has built.

// Whatever is missing here fails the test, and the message says where.
#![expect(clippy::unwrap_used, reason = "outside the test functions too")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The story takes some seconds; other tests may take the processors.
const STORY_DEADLINE: Duration = Duration::from_secs(240);
const END_DEADLINE: Duration = Duration::from_secs(30);

/// A running demo, with a place of its own for temporary files.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    told: Vec<String>,
    temporary: TempDir,
}

impl Demo {
    fn start() -> Self {
        let temporary = tempfile::Builder::new()
            .prefix("demo-")
            .permissions(Permissions::from_mode(0o755)) // Postgres may run as another user.
            .tempdir()
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["demo", "--no-build"])
            .env("TMPDIR", temporary.path())
            .env_remove("HARNESS_KEEP")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            told: Vec::new(),
            temporary,
        }
    }

    /// Reads on until a line begins with `beginning`; without one, to the end.
    async fn read_until(&mut self, beginning: Option<&str>) {
        let read = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let found = beginning.is_some_and(|word| line.trim_start().starts_with(word));
                self.told.push(line);
                if found {
                    return true;
                }
            }
            false
        };
        let found = timeout(STORY_DEADLINE, read).await;
        let told = self.told.join("\n");
        let found = found.unwrap_or_else(|_| panic!("it hangs after:\n{told}"));
        assert_eq!(found, beginning.is_some(), "it ended early:\n{told}");
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.await.unwrap().success());
    }

    async fn end(&mut self) -> ExitStatus {
        self.read_until(None).await;
        let ended = timeout(END_DEADLINE, self.child.wait()).await;
        ended
            .expect("it closed its output and did not end")
            .unwrap()
    }

    /// The processes that it has said it started.
    fn pids(&self) -> Vec<&str> {
        let words = |line: &'_ str| line.contains(" pid ") && line.contains(" admin ");
        let lines = self.told.iter().filter(|line| words(line));
        lines
            .filter_map(|line| line.split(" pid ").nth(1)?.split_whitespace().next())
            .collect()
    }

    async fn assert_nothing_is_left(&self) {
        let left: Vec<_> = std::fs::read_dir(self.temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "files are left: {left:?}");
        let running = Command::new("ps").args(["-A", "-o", "pid=,args="]).output();
        let running = String::from_utf8(running.await.unwrap().stdout).unwrap();
        let temporary = self.temporary.path().to_str().unwrap();
        for line in running.lines() {
            // Servers are told their files by argument; our own are known by id.
            let pid = line.split_whitespace().next().unwrap();
            let ours = line.contains(temporary) || self.pids().contains(&pid);
            assert!(!ours, "a process is left: {line}");
        }
    }

    /// Asserts that these stand in what it told, in this order.
    fn assert_told(&self, expected: &[&str]) {
        let mut lines = self.told.iter();
        for text in expected {
            let found = lines.any(|line| line.contains(text));
            assert!(found, "{text:?} is missing in:\n{}", self.told.join("\n"));
        }
    }
}

#[tokio::test]
async fn the_story_ends_as_told_and_the_books_add_up() {
    let mut demo = Demo::start();
    let status = demo.end().await;
    demo.assert_told(&[
        "a · An order that the credit covers",
        "watched    approved, after ",
        "OrderCreated        ORDERS 1",
        "CreditReserved      CUSTOMERS 2",
        "OrderApproved       ORDERS 2",
        "outcome    approved; Ada has 80.00 EUR of 200.00 EUR left",
        "shop order create $CUSTOMER 120.00 EUR --wait 5s",
        "b · An order beyond the credit limit",
        "waited     cancelled: credit limit exceeded, after ",
        "CreditLimitExceeded CUSTOMERS 3",
        "outcome    cancelled: credit limit exceeded; Ada has 80.00 EUR of 200.00 EUR left",
        "c · An order that fits the limit exactly",
        "outcome    approved; Ada has 0.00 EUR of 200.00 EUR left",
        "d · An order of an unknown customer",
        "CustomerNotFound    CUSTOMERS 5",
        "outcome    cancelled: unknown customer",
        "e · An approved order is cancelled",
        "OrderCancelled      ORDERS 9",
        "CreditReleased      CUSTOMERS 6",
        "outcome    cancelled: by customer; Ada has 120.00 EUR of 200.00 EUR left",
        "f · An order that nobody answers in time",
        "stopped    customer-service",
        "watched    cancelled: timed out, after ",
        "CreditReserved      CUSTOMERS 7",
        "CreditReleased      CUSTOMERS 8",
        "outcome    cancelled: timed out; Ada has 120.00 EUR of 200.00 EUR left",
        "g · A relay dies in the middle of it",
        "is killed with SIGKILL",
        "10000.00 EUR of 10000.00 EUR are reserved for Grace",
        "251 approved, 54 cancelled (1 by customer, 51 credit limit exceeded, 1 timed out, 1 unknown customer), 0 pending",
        "CUSTOMERS  309 events of 309 in the outbox",
        "ORDERS     611 events of 611 in the outbox",
        "violations: 0",
    ]);
    assert!(status.success(), "{status}");
    let painted = demo.told.iter().find(|line| line.contains('\x1b'));
    assert_eq!(painted, None, "escape sequences where there is no terminal");
    assert_eq!(demo.pids().len(), 4);
    demo.assert_nothing_is_left().await;
}

#[tokio::test]
async fn an_interrupted_story_leaves_nothing_behind() {
    let mut demo = Demo::start();
    demo.read_until(Some("c · ")).await;
    demo.signal("INT").await;
    let status = demo.end().await;
    assert_eq!(status.code(), Some(130));
    demo.assert_told(&["ending     everything that was started"]);
    assert_eq!(demo.pids().len(), 4);
    demo.assert_nothing_is_left().await;
}

#[tokio::test]
async fn a_start_that_is_terminated_leaves_nothing_behind() {
    let mut demo = Demo::start();
    demo.read_until(Some("start ")).await;
    demo.signal("TERM").await;
    let status = demo.end().await;
    assert_eq!(status.code(), Some(143));
    demo.assert_nothing_is_left().await;
}
