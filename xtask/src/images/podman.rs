//! podman, with a runtime that can start containers here: where this machine is a container itself, or has the first
//! version of control groups beside the second, not each can.

use std::process::Command;

use anyhow::Result;

use crate::shell;

/// podman's own choice, and then the two that there are.
const RUNTIMES: [Option<&str>; 3] = [None, Some("runc"), Some("crun")];
/// As much as a container may have where this runs in one itself.
pub(super) const LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
/// What podman ends with when it could not even try.
const PODMAN_FAILED: i32 = 125;
/// What a runtime speaks of when the machine, and not the image, keeps a container from starting.
const MACHINE: [&str; 3] = ["rlimit", "cgroup", "namespace"];

/// What a container said, and whether it ended well.
pub(super) struct Said {
    pub(super) well: bool,
    pub(super) out: String,
    pub(super) err: String,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Podman {
    runtime: Option<&'static str>,
}

impl Podman {
    /// The podman that can run `image`, and what its `--version` says; or else why there is none.
    pub(super) fn that_runs(image: &str) -> Result<Result<(Self, Said), String>> {
        let mut why = String::new();
        for runtime in RUNTIMES {
            let podman = Self { runtime };
            let mut run = podman.command();
            run.args(["run", "--rm", "--pull=never", "--network=none"]);
            run.args(["--read-only", "--cap-drop=all"]).args(LIMITS);
            let Ok(output) = shell::capture(run.args([image, "--version"])) else {
                return Ok(Err("podman is not installed".to_owned()));
            };
            let said = Said {
                well: output.status.success(),
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            };
            let failed = output.status.code() == Some(PODMAN_FAILED)
                || MACHINE.iter().any(|word| said.err.contains(word));
            if !failed {
                return Ok(Ok((podman, said)));
            }
            if why.is_empty() {
                why = said.err.lines().last().unwrap_or_default().to_owned();
            }
        }
        Ok(Err(format!("podman cannot run containers here: {why}")))
    }

    /// `podman`, to which a subcommand is to be added.
    pub(super) fn command(self) -> Command {
        let mut command = shell::command("podman");
        if let Some(runtime) = self.runtime {
            command.args(["--runtime", runtime]);
        }
        command
    }
}
