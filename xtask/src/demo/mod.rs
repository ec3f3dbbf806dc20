//! `cargo xtask demo`: the whole system on this machine, and a story told with it.
//!
//! In order: find the servers, build, start, tell the story, let an order time out, kill a relay, open the
//! books. Whatever
//! ends it, a signal too, drops the system, and with it goes everything that was started.

mod cancel;
mod chaos;
mod closing;
mod deadline;
mod hand;
mod prepare;
mod show;
mod signals;
mod stage;
mod story;
mod trail;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use self::show::Show;
use self::signals::Signals;
use self::stage::Stage;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leaves everything running until Ctrl-C, with the addresses printed
    #[arg(long)]
    keep: bool,
    /// Takes the binaries as they are; for tests, which have built them
    #[arg(long, hide = true)]
    no_build: bool,
}

/// Exit status 0 only if the story went as it should and the books add up; 130 after Ctrl-C, 143
/// after SIGTERM.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let show = Show::new();
    let outcome = tokio::runtime::Runtime::new()
        .context("cannot start the async runtime")
        .and_then(|runtime| runtime.block_on(until_signalled(arguments, show)));
    outcome.unwrap_or_else(|error| {
        show.failure(&error);
        ExitCode::FAILURE
    })
}

async fn until_signalled(arguments: &Arguments, show: Show) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let signalled = async {
        let status = signals.received().await;
        show.row("ending", "everything that was started");
        status
    };
    // Whichever comes first; the other is dropped, and with the performance all that it started.
    tokio::select! {
        status = signalled => Ok(ExitCode::from(status)),
        performed = perform(arguments, show) => performed.map(|()| ExitCode::SUCCESS),
    }
}

async fn perform(arguments: &Arguments, show: Show) -> Result<()> {
    show.title("Orders and customers: two services, two databases, no distributed transaction");
    prepare::servers(show).await?;
    if !arguments.no_build {
        prepare::build(show).await?;
    }
    let begun = Instant::now();
    let mut stage = Stage::start(show).await?;
    let told = tell(&mut stage).await;
    let told = told.map_err(|error| stage.explain(error))?;
    show.row("took", &told.summary(begun));
    if arguments.keep {
        stage.keep().await?;
    }
    Ok(())
}

/// When the story began and ended.
#[derive(Debug)]
struct Told {
    began: Instant,
    ended: Instant,
}

impl Told {
    fn summary(&self, started: Instant) -> String {
        let whole = self.ended.duration_since(started).as_secs_f64();
        let story = self.ended.duration_since(self.began).as_secs_f64();
        format!("{whole:.1} s, of which the story {story:.1} s")
    }
}

async fn tell(stage: &mut Stage) -> Result<Told> {
    let began = Instant::now();
    let ada_id = story::tell(stage).await?;
    deadline::tell(stage, &ada_id).await?;
    chaos::tell(stage).await?;
    closing::tell(stage).await?;
    let ended = Instant::now();
    Ok(Told { began, ended })
}
