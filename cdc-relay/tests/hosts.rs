//! Several hosts in `DATABASE_URL`: the one that takes writes is found, and both connections go there.

mod rig;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Link, Port, Postgres, Process, eventually};
use rig::{DATABASE, Rig, SLOT, SOON, insert};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// A URL with these ports of the loopback address as hosts.
fn url(rig: &Rig, ports: &[u16]) -> String {
    let hosts: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let password = rig.postgres.password();
    format!(
        "postgres://postgres:{password}@{}/{DATABASE}",
        hosts.join(",")
    )
}

fn relay(rig: &Rig, ports: &[u16]) -> Result<Process> {
    rig.relay_with("relay", &[("DATABASE_URL", &url(rig, ports))])
}

/// Whether somebody streams from the slot there.
async fn is_streaming(postgres: &Postgres) -> Result<bool> {
    let client = postgres.connect(DATABASE).await?;
    let query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active";
    let count: i64 = client.query_one(query, &[&SLOT]).await?.get(0);
    Ok(count == 1)
}

#[tokio::test]
async fn the_primary_is_found_whatever_place_it_has() -> Result<()> {
    let rig = Rig::start().await?;
    let standby = rig.postgres.standby("standby", DATABASE, &[]).await?;
    let nobody = Port::free()?;
    let relay = relay(
        &rig,
        &[nobody.number(), standby.port(), rig.postgres.port()],
    )?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    ensure!(is_streaming(&rig.postgres).await?, "it streams elsewhere");
    Ok(())
}

#[tokio::test]
async fn a_standby_alone_is_awaited_until_it_is_promoted() -> Result<()> {
    let rig = Rig::start().await?;
    rig.insert("before the failover").await?;
    let standby = rig.postgres.standby("standby", DATABASE, &[]).await?;
    standby.wait_caught_up(&rig.postgres).await?;
    rig.postgres.kill().await?;
    let relay = relay(&rig, &[rig.postgres.port(), standby.port()])?;
    eventually("the relay to say what it waits for", SOON, async || {
        let log = relay.log().text();
        ensure!(
            log.contains("is a standby: waiting until"),
            "{}",
            relay.log().tail()
        );
        ensure!(
            log.contains("no server of DATABASE_URL can be used"),
            "{log}"
        );
        Ok(Some(()))
    })
    .await?;
    standby.promote().await?;
    relay.wait_ready().await?;
    eventually("what stood in the table", SOON, async || {
        Ok((rig.count().await? == 1).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_running_relay_follows_the_promotion_by_itself() -> Result<()> {
    let rig = Rig::start().await?;
    let standby = rig.postgres.standby("standby", DATABASE, &[]).await?;
    let relay = relay(&rig, &[rig.postgres.port(), standby.port()])?;
    relay.wait_ready().await?;
    rig.insert("one").await?;
    rig.settled().await?;
    standby.wait_caught_up(&rig.postgres).await?;
    rig.postgres.kill().await?;
    standby.promote().await?;
    let sql = standby.connect(DATABASE).await?;
    insert(&sql, "two").await?;
    eventually("the row of the promoted server", SOON * 2, async || {
        Ok((rig.count().await? == 2).then_some(()))
    })
    .await?;
    // The row may come out of the table, before the new slot.
    eventually("the relay to stream from there", SOON, async || {
        Ok(is_streaming(&standby).await?.then_some(()))
    })
    .await?;
    relay.ensure_alive()
}

#[tokio::test]
async fn a_former_primary_that_comes_back_is_passed_over() -> Result<()> {
    let rig = Rig::start().await?;
    let standby = rig.postgres.standby("standby", DATABASE, &[]).await?;
    standby.wait_caught_up(&rig.postgres).await?;
    rig.postgres.kill().await?;
    standby.promote().await?;
    // Nobody has told it that it was left behind.
    rig.postgres.start_again().await?;
    let relay = relay(&rig, &[rig.postgres.port(), standby.port()])?;
    relay.wait_ready().await?;
    ensure!(is_streaming(&standby).await?, "it streams elsewhere");
    ensure!(
        !is_streaming(&rig.postgres).await?,
        "from the former primary"
    );
    ensure!(
        relay
            .log()
            .text()
            .contains("several servers of DATABASE_URL take writes")
    );
    Ok(())
}

#[tokio::test]
async fn a_host_that_says_nothing_holds_up_no_session() -> Result<()> {
    let rig = Rig::start().await?;
    let silent = Link::to(rig.postgres.port()).await?;
    silent.cut();
    let begun = Instant::now();
    let relay = relay(&rig, &[silent.port(), rig.postgres.port()])?;
    relay.wait_ready().await?;
    // A server that says nothing is given up after 10 s.
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(9), "it took {took:?}");
    Ok(())
}

#[tokio::test]
async fn a_relay_that_is_to_use_a_standby_is_told_that_it_cannot() -> Result<()> {
    let rig = Rig::start().await?;
    let url = format!(
        "{}?target_session_attrs=standby",
        rig.postgres.url(DATABASE)
    );
    let relay = rig.relay_with("relay", &[("DATABASE_URL", &url)])?;
    eventually("the refusal", SOON, async || {
        let log = relay.log().text();
        Ok(log.contains("the relay needs the primary").then_some(()))
    })
    .await
}

/// Leads every other connection to the one server, and the rest to the other.
async fn balancer(one: u16, other: u16) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        let mut turn = [one, other].into_iter().cycle();
        while let (Ok((mut client, _)), Some(target)) = (listener.accept().await, turn.next()) {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(port)
}

#[tokio::test]
async fn connections_that_end_at_different_servers_are_noticed() -> Result<()> {
    let (rig, other) = (Rig::start().await?, Rig::start().await?);
    for rig in [&rig, &other] {
        for statement in [
            "CREATE ROLE relay SUPERUSER LOGIN REPLICATION PASSWORD 'same'",
            "CREATE PUBLICATION cdc_relay FOR TABLE outbox WITH (publish = 'insert')",
            "SELECT pg_create_logical_replication_slot('relay', 'pgoutput')",
        ] {
            rig.sql.batch_execute(statement).await?;
        }
    }
    let port = balancer(rig.postgres.port(), other.postgres.port()).await?;
    let url = format!("postgres://relay:same@127.0.0.1:{port}/{DATABASE}");
    let relay = rig.relay_with("relay", &[("DATABASE_URL", &url)])?;
    eventually("the relay to notice", SOON, async || {
        let log = relay.log().text();
        ensure!(
            log.contains("its two connections ended at different servers"),
            "{log}"
        );
        Ok(Some(()))
    })
    .await
}
