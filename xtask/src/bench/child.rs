//! A contender as a process of its own. It says on standard output when it is prepared and what it has
//! measured, a line of JSON each; it begins when a line comes on standard input, and ends at its end: so
//! it can be looked at after its work, and dies with whoever started it.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};

#[derive(Debug)]
pub(super) struct Child {
    name: String,
    process: Process,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(super) fn start(name: &str, mut command: Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdin = process.stdin.take().context("no standard input")?;
        let stdout = process.stdout.take().context("no standard output")?;
        Ok(Self {
            name: name.to_owned(),
            process,
            stdin,
            lines: BufReader::new(stdout).lines(),
        })
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.process
            .id()
            .with_context(|| format!("{} has ended", self.name))
    }

    /// The next thing that it says.
    pub(super) async fn says(&mut self) -> Result<Value> {
        let line = self.lines.next_line().await?;
        let Some(line) = line else {
            bail!("{} ended with {}", self.name, self.process.wait().await?);
        };
        serde_json::from_str(&line).with_context(|| format!("{} says {line}", self.name))
    }

    pub(super) async fn begin(&mut self) -> Result<()> {
        self.stdin.write_all(b"begin\n").await?;
        Ok(())
    }

    /// Lets it end.
    pub(super) async fn end(mut self) -> Result<()> {
        drop(self.stdin);
        let status = self.process.wait().await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}
