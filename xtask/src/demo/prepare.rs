//! What must be there before anything starts: the two servers, and our own binaries.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::show::Show;
use crate::shell;

/// Finds or fetches Postgres and nats-server.
pub(super) async fn servers(show: Show) -> Result<()> {
    // Whole lines: a fetch says so on standard error.
    show.row("servers", "found on this machine, or fetched once");
    let postgres = tokio::task::spawn_blocking(harness::tools::postgres_bin).await??;
    show.row("", &found("Postgres", &postgres));
    let nats = tokio::task::spawn_blocking(harness::tools::nats_server).await??;
    show.row("", &found("nats-server", &nats));
    Ok(())
}

fn found(name: &str, path: &Path) -> String {
    format!("{name:<12} {}", path.display())
}

/// Builds the workspace; cargo itself shows how far it is.
pub(super) async fn build(show: Show) -> Result<()> {
    let begun = Instant::now();
    show.row(
        "build",
        "the services and the relay (the first time takes minutes)",
    );
    let mut command = shell::cargo();
    command.args(["build", "--workspace"]).stdin(Stdio::null());
    let shown = shell::shown(&command);
    // In a group of its own, so that a signal to us alone can end rustc too.
    let mut child = tokio::process::Command::from(command)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let group = Group(child.id());
    let status = child.wait().await?;
    group.has_ended();
    ensure!(
        status.success(),
        "{shown} ended with {status}; what it says above must be mended first"
    );
    show.row(
        "",
        &format!("built, after {:.1} s", begun.elapsed().as_secs_f64()),
    );
    Ok(())
}

/// A running process group; it ends when this is dropped.
struct Group(Option<u32>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // Fails when it has just ended by itself, which is as good.
            let _ = Command::new("kill")
                .args(["-s", "TERM", "--", &format!("-{id}")])
                .stderr(Stdio::null())
                .status();
        }
    }
}
