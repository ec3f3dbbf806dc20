//! `cargo xtask check`: what a change must satisfy besides its tests. Every part runs, whatever the
//! ones before it found; a part that cannot run here is said to be skipped, and why.

mod configuration;
mod contracts;
mod dependencies;
mod deploy;
mod tidy;

use anyhow::{Result, bail};

use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these parts; without any, all
    #[arg(value_enum)]
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Part {
    /// rustfmt
    Format,
    /// clippy, and no function longer than clippy.toml allows
    Lints,
    /// The tree's own rules
    Tidy,
    /// docs/configuration.md against the binaries' --help
    Configuration,
    /// proto/contract.txt against the .proto files, and buf lint
    Contracts,
    /// The manifests: they build, an old and a current Kubernetes take them, and they fit the binaries
    Deploy,
    /// cargo-deny: licences, sources, duplicates, advisories
    Dependencies,
}

/// What a part found.
#[derive(Debug)]
pub(crate) enum Outcome {
    Fine,
    /// Could not be looked at here; why, and what would help.
    Skipped(String),
}

impl Part {
    const ALL: [Self; 7] = [
        Self::Format,
        Self::Lints,
        Self::Tidy,
        Self::Configuration,
        Self::Contracts,
        Self::Deploy,
        Self::Dependencies,
    ];

    fn run(self) -> Result<Outcome> {
        match self {
            Self::Format => format(),
            Self::Lints => lints(),
            Self::Tidy => tidy::run(),
            Self::Configuration => configuration::run(),
            Self::Contracts => contracts::run(),
            Self::Deploy => deploy::run(),
            Self::Dependencies => dependencies::run(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let parts = match arguments.parts.as_slice() {
        [] => &Part::ALL,
        some => some,
    };
    let mut lines = Vec::new();
    let mut failed = 0;
    for part in parts {
        let name = format!("{part:?}").to_lowercase();
        println!("── {name}");
        let line = match part.run() {
            Ok(Outcome::Fine) => format!("fine      {name}"),
            Ok(Outcome::Skipped(why)) => format!("SKIPPED   {name}: {why}"),
            Err(error) => {
                failed += 1;
                eprintln!("{error:#}");
                format!("FAILED    {name}")
            }
        };
        lines.push(line);
    }
    println!("\n{}", lines.join("\n"));
    if failed > 0 {
        bail!("{failed} of {} checks failed", parts.len());
    }
    Ok(())
}

fn format() -> Result<Outcome> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    Ok(Outcome::Fine)
}

fn lints() -> Result<Outcome> {
    shell::run(
        shell::cargo()
            .args(["clippy", "--workspace", "--all-targets", "--"])
            .args(["-D", "warnings", "-D", "clippy::too_many_lines"]),
    )?;
    Ok(Outcome::Fine)
}
