//! An event whose handler ends its process, on real Postgres and real NATS: this program starts itself
//! again, in the part of the service that dies, as often as that dies.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, and says where"
)]
#![allow(
    dead_code,
    reason = "the world of the other tests has more than is needed here"
)]

#[path = "data_path/script.rs"]
mod script;
#[path = "data_path/world.rs"]
mod world;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mailbox::consumer::{self, Config};
use mailbox::dead_letter;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::world::{SOON, Script, World, header, numbered};

/// What the child is told: Postgres, NATS, and the name of everything.
const TOLD: [&str; 3] = ["CRASH_POSTGRES", "CRASH_NATS", "CRASH_NAME"];

const EVENTS: usize = 20;
/// The event that kills stands among them.
const POISON: usize = 10;
/// Two for which the whole batch is in hand, and three marked ones.
const DEATHS: usize = 5;

/// Short, so that the batch of a process that died comes again soon.
const ACK_WAIT: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    if let Ok(name) = std::env::var(TOLD[2]) {
        return serve(&name).await;
    }
    an_event_that_kills_its_process_is_dead_lettered_and_those_beside_it_are_applied().await?;
    Ok(())
}

/// The service: ends when it is killed, by the event or by the test.
async fn serve(name: &str) -> Result<()> {
    let pool = world::pool(&std::env::var(TOLD[0])?)?;
    let client = async_nats::connect(std::env::var(TOLD[1])?).await?;
    let mut config = Config::new(name, name, [format!("{name}.>")]);
    config.ack_wait = ACK_WAIT;
    let token = CancellationToken::new();
    Ok(consumer::run(pool, client, config, Script::default(), token).await?)
}

fn start(world: &World) -> Result<Child> {
    let told = [
        world.servers.postgres.url(&world.name),
        world.servers.nats.url(),
        world.name.clone(),
    ];
    let started = Command::new(std::env::current_exe()?)
        .envs(TOLD.into_iter().zip(told))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    started.context("this program cannot be started again")
}

async fn an_event_that_kills_its_process_is_dead_lettered_and_those_beside_it_are_applied()
-> Result<()> {
    let world = World::alone().await?;
    world.create_stream().await?;
    let mut payloads: Vec<String> = numbered(EVENTS).collect();
    payloads[POISON] = "abort".to_owned();
    let ids = world.publish(payloads.clone()).await?;

    let mut deaths = 0;
    let survivor = loop {
        let mut service = start(&world)?;
        tokio::select! {
            ended = service.wait() => {
                let ended = ended?;
                ensure!(!ended.success(), "it ended by itself: {ended}");
                deaths += 1;
                ensure!(deaths <= DEATHS, "it dies for ever");
            }
            settled = settled(&world) => {
                settled?;
                break service;
            }
        }
    };
    assert_eq!(deaths, DEATHS);
    payloads.remove(POISON);
    let mut applied = world.applied().await?;
    applied.sort_unstable_by_key(|payload| payload.parse::<usize>().unwrap());
    assert_eq!(applied, payloads, "those beside it");
    let letters = world.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        header(&letters[0], "Original-Nats-Msg-Id"),
        ids[POISON].to_string()
    );
    let reason = header(&letters[0], dead_letter::REASON);
    assert!(reason.contains("the process died"), "{reason}");
    let letters = dead_letter::Letters::new(world.nats.clone(), &world.name);
    let letters = letters.page(0, 10).await?;
    assert!(letters[0].ends_its_process(), "nobody is warned of it");
    // Removed once the letter is stored.
    harness::eventually("the marks to be gone", SOON, async || {
        let marks = world.count("SELECT count(*) FROM inbox_marks").await?;
        Ok((marks == 0).then_some(()))
    })
    .await?;
    drop(survivor);
    Ok(())
}

async fn settled(world: &World) -> Result<()> {
    harness::eventually("the dead letter", 2 * SOON, async || {
        let letters = world.dead_letters().await.unwrap_or_default();
        Ok((!letters.is_empty()).then_some(()))
    })
    .await?;
    world.settled().await
}
