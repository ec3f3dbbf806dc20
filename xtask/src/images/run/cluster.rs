//! Containers on a network of their own, each as its manifest says, and all of it gone afterwards.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::{Guard, eventually, http};

use super::super::podman::{LIMITS, Podman};
use super::pod::{Container, Ready, Volume};
use super::standin::StandIn;
use crate::shell;

/// From nothing to ready, with a new database and migrations, where others compile beside it.
const READY_DEADLINE: Duration = Duration::from_secs(180);
/// Of a log, when something went wrong.
const LINES: &str = "20";

#[derive(Debug)]
pub(super) struct Cluster {
    podman: Podman,
    guard: Guard,
    /// Its network, and the beginning of all its names.
    name: String,
    started: Vec<Container>,
}

impl Cluster {
    pub(super) fn new(podman: Podman) -> Result<Self> {
        let name = format!("saga-{}", std::process::id());
        let cluster = Self {
            podman,
            guard: Guard::start()?,
            name,
            started: Vec::new(),
        };
        cluster.podman(&["network", "create", &cluster.name])?;
        Ok(cluster)
    }

    /// Where files can be kept for as long as it runs.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(super) fn started(&self) -> &[Container] {
        &self.started
    }

    /// Starts it, and waits for nothing.
    pub(super) fn start(&mut self, container: Container, instead: Option<&StandIn>) -> Result<()> {
        let mut run = self.run(&container, instead)?;
        self.started.push(container);
        let output = shell::capture(&mut run)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "podman run: {}", said.trim());
        Ok(())
    }

    /// Runs it to its end, with what it says in a file; what it says of its progress goes on to us.
    pub(super) fn run_to_end(
        &mut self,
        container: Container,
        instead: Option<&StandIn>,
        into: &Path,
    ) -> Result<ExitStatus> {
        let mut run = self.run(&container, instead)?;
        self.started.push(container);
        run.stdout(File::create(into)?)
            .status()
            .context("podman run")
    }

    fn run(&self, container: &Container, instead: Option<&StandIn>) -> Result<Command> {
        let mut run = self.podman.command();
        run.args([
            "run",
            "--pull=never",
            "--read-only",
            "--read-only-tmpfs=false",
        ]);
        run.args(["--cap-drop=all", "--security-opt=no-new-privileges"])
            .args(LIMITS);
        run.args([
            "--name",
            &self.named(&container.pod),
            "--hostname",
            &container.pod,
        ]);
        run.args(["--network", &self.name, "--user", &container.user]);
        if !container.ends {
            run.arg("--detach");
        }
        for alias in &container.aliases {
            run.args(["--network-alias", alias]);
        }
        for port in &container.ports {
            run.arg(format!("--publish=127.0.0.1::{port}"));
        }
        if let Some(memory) = &container.memory {
            run.args(["--memory", memory]);
        }
        for (name, value) in &container.environment {
            // By way of podman's own environment: its arguments everybody sees.
            run.env(name, value).args(["--env", name]);
        }
        for (path, volume) in &container.volumes {
            let mount = match volume {
                Volume::Room(name) => format!("{}:{path}:U", self.named(name)),
                Volume::Files(files) => {
                    let name = format!("{}{}", container.pod, path.replace('/', "-"));
                    let folder = self.guard.make_directory(&name)?;
                    for (file, bytes) in files {
                        fs::write(folder.join(file), bytes)?;
                    }
                    format!("{}:{path}:ro", folder.display())
                }
            };
            run.args(["--volume", &mount]);
        }
        if let Some(instead) = instead {
            for mount in &instead.mounts {
                run.args(["--volume", mount]);
            }
            for variable in &instead.environment {
                run.args(["--env", variable]);
            }
        }
        run.arg(instead.map_or(&container.image, |instead| &instead.image));
        run.args(&container.arguments);
        Ok(run)
    }

    /// Waits until all that was started is ready, by its own probe.
    pub(super) async fn ready(&self) -> Result<()> {
        for container in &self.started {
            let what = format!("{} to be ready", container.pod);
            let asked = eventually(&what, READY_DEADLINE, async || {
                // Nothing is started in an order, and nothing may end over it.
                if self.state(container)? != "running" {
                    return Ok(Some(false));
                }
                Ok(self.is_ready(container).await?.then_some(true))
            });
            if !matches!(asked.await, Ok(true)) {
                bail!(
                    "{} is not ready; its log ends with\n{}",
                    container.pod,
                    self.log(container)?
                );
            }
        }
        Ok(())
    }

    async fn is_ready(&self, container: &Container) -> Result<bool> {
        let within = |command: &[&str]| -> Result<bool> {
            let name = self.named(&container.pod);
            let mut exec = self.podman.command();
            Ok(shell::capture(exec.args(["exec", &name]).args(command))?
                .status
                .success())
        };
        match &container.ready {
            None => Ok(true),
            Some(Ready::Grpc) => within(&["/healthy"]),
            Some(Ready::Command(words)) => {
                within(&words.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Some(Ready::Page { port, path }) => {
                let port = self.port(container, *port)?;
                Ok(http::get(port, path).await?.0 == 200)
            }
        }
    }

    /// Where one of its ports is published on loopback.
    pub(super) fn port(&self, container: &Container, port: u64) -> Result<u16> {
        let said = self.podman(&["port", &self.named(&container.pod), &port.to_string()])?;
        let published = said
            .trim()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        published.with_context(|| format!("{} publishes no {port}: {said}", container.pod))
    }

    fn state(&self, container: &Container) -> Result<String> {
        let name = self.named(&container.pod);
        let said = self.podman(&[
            "inspect",
            "--type=container",
            "--format={{.State.Status}}",
            &name,
        ])?;
        Ok(said.trim().to_owned())
    }

    /// The end of what it said.
    pub(super) fn log(&self, container: &Container) -> Result<String> {
        self.podman(&["logs", "--tail", LINES, &self.named(&container.pod)])
    }

    /// All that it said.
    pub(super) fn whole_log(&self, container: &Container) -> Result<String> {
        self.podman(&["logs", &self.named(&container.pod)])
    }

    /// Ends it as Kubernetes would, and returns its exit status.
    pub(super) fn stop(&self, container: &Container) -> Result<i32> {
        let name = self.named(&container.pod);
        self.podman(&[
            "stop",
            "--time",
            &container.grace_seconds.to_string(),
            &name,
        ])?;
        let said = self.podman(&[
            "inspect",
            "--type=container",
            "--format={{.State.ExitCode}}",
            &name,
        ])?;
        said.trim()
            .parse()
            .with_context(|| format!("no exit status: {said}"))
    }

    fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// What podman says to it, on both its outputs: a container's log comes on both.
    fn podman(&self, arguments: &[&str]) -> Result<String> {
        let output = shell::capture(self.podman.command().args(arguments))?;
        let [out, err] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        ensure!(
            output.status.success(),
            "podman {}: {}",
            arguments.join(" "),
            err.trim()
        );
        Ok(match arguments.first() {
            Some(&"logs") => format!("{out}{err}"),
            _ => out.into_owned(),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let remove = |arguments: &[&str]| {
            // What is left behind, its name tells whose it was.
            let _ = shell::capture(self.podman.command().args(arguments));
        };
        for container in &self.started {
            remove(&["rm", "--force", "--time=0", &self.named(&container.pod)]);
            for (_, volume) in &container.volumes {
                if let Volume::Room(name) = volume {
                    remove(&["volume", "rm", "--force", &self.named(name)]);
                }
            }
        }
        remove(&["network", "rm", "--force", &self.name]);
    }
}
