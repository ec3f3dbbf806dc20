//! `cargo xtask test`: builds, fetches the servers once, runs all tests, and sums up.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// Each test may run a Postgres, a nats-server and four processes of ours: more of them at once than
/// this only wait for each other, and time out.
const THREADS_MAX: usize = 4;
const THREADS_MIN: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to `cargo test`: `-p mailbox`, `--test harness`, `-- a_part_of_a_name`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CARGO TEST ARGUMENTS"
    )]
    passed_on: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    // Before the tests, which would all wait for the one that fetches.
    harness::tools::postgres_bin()?;
    harness::tools::nats_server()?;
    harness::tools::postgres_or_skip(18, "the tests of failover slots")?;
    // The tests start the binaries, which cargo does not build for other packages' tests.
    shell::run(shell::cargo().args(["build", "--workspace"]))?;

    let mut command = shell::cargo();
    command.args(["test", "--no-fail-fast"]);
    if !names_packages(&arguments.passed_on) {
        command.arg("--workspace");
    }
    command.args(&arguments.passed_on).stdout(Stdio::piped());
    if env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", threads().to_string());
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", shell::shown(&command)))?;
    let output = child.stdout.take().context("cargo test without output")?;
    let mut total = Total::default();
    let mut stdout = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        stdout.write_all(&line)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
        total.read(&String::from_utf8_lossy(&line));
    }
    let status = child.wait()?;
    drop(stdout);
    println!(
        "\nxtask test: {} passed, {} failed, {} filtered out, in {:.0} s",
        total.passed,
        total.failed,
        total.filtered,
        started.elapsed().as_secs_f64()
    );
    ensure!(
        status.success(),
        "{} ended with {status}",
        shell::shown(&command)
    );
    Ok(())
}

/// Whether the caller chose packages, which --workspace would override.
fn names_packages(passed_on: &[String]) -> bool {
    passed_on
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(THREADS_MIN, usize::from)
        .clamp(THREADS_MIN, THREADS_MAX)
}

/// The sum of the closing lines of the test programs.
#[derive(Debug, Default, Eq, PartialEq)]
struct Total {
    passed: usize,
    failed: usize,
    filtered: usize,
}

impl Total {
    /// Takes in `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; …`.
    fn read(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "filtered out" => self.filtered += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut total = Total::default();
        total.read("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.1s");
        total.read("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        total.read("test a ... ok");
        let expected = Total {
            passed: 5,
            failed: 4,
            filtered: 1,
        };
        assert_eq!(total, expected);
    }

    #[test]
    fn packages_are_chosen_before_the_dashes() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(names_packages(&list("-p mailbox")));
        assert!(names_packages(&list("--package=mailbox")));
        assert!(!names_packages(&list("--test harness -- -p")));
    }
}
