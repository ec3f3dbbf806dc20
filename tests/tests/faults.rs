//! What tests of faults stand on: links that can be cut, a cluster of nats-servers, a standby.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream};
use harness::{Guard, Link, NatsCluster, Postgres, eventually, tools};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);
/// Long enough for loopback, short enough to await silence.
const SILENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_cut_link_holds_what_is_sent_and_a_healed_one_brings_it() -> Result<()> {
    let target = TcpListener::bind("127.0.0.1:0").await?;
    let link = Link::to(target.local_addr()?.port()).await?;
    let mut client = TcpStream::connect(("127.0.0.1", link.port())).await?;
    let (mut server, _) = target.accept().await?;
    let mut bytes = [0; 3];
    client.write_all(b"one").await?;
    server.read_exact(&mut bytes).await?;

    link.cut();
    client.write_all(b"two").await?;
    server.write_all(b"TWO").await?;
    assert!(timeout(SILENCE, server.read(&mut bytes)).await.is_err());
    assert!(timeout(SILENCE, client.read(&mut bytes)).await.is_err());
    link.cut_from_target();
    server.read_exact(&mut bytes).await?;
    assert_eq!(&bytes, b"two");
    assert!(timeout(SILENCE, client.read(&mut bytes)).await.is_err());
    link.heal();
    client.read_exact(&mut bytes).await?;
    assert_eq!(&bytes, b"TWO");

    // Who comes during a cut is heard after it; a goodbye waits as well.
    link.cut();
    drop(client);
    let mut late = TcpStream::connect(("127.0.0.1", link.port())).await?;
    late.write_all(b"new").await?;
    assert!(timeout(SILENCE, server.read(&mut bytes)).await.is_err());
    assert!(timeout(SILENCE, target.accept()).await.is_err());
    link.heal();
    assert_eq!(server.read(&mut bytes).await?, 0);
    let (mut server, _) = target.accept().await?;
    server.read_exact(&mut bytes).await?;
    assert_eq!(&bytes, b"new");
    link.close_connections();
    assert_eq!(server.read(&mut bytes).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_cluster_goes_on_without_its_leader_killed_or_cut_off() -> Result<()> {
    let guard = Guard::start()?;
    let cluster = NatsCluster::start(&guard, 3).await?;
    let jetstream = jetstream::new(cluster.client().await?);
    let config = stream::Config {
        name: "S".into(),
        subjects: vec!["s".into()],
        num_replicas: 3,
        ..Default::default()
    };
    jetstream.create_stream(config).await?;
    // By a client of that very node: one of the node that is cut off reaches nobody.
    let publish_at = async |at: usize| {
        let jetstream = jetstream::new(cluster.node(at).client().await?);
        eventually("an acknowledgement", SOON, async || {
            let ack = jetstream.publish("s", "x".into()).await?.await?;
            Ok(Some(ack.sequence))
        })
        .await
    };
    let first = cluster.leader("S").await?;
    publish_at(first).await?;
    cluster.cut_routes(first);
    let second = eventually("another leader", SOON, async || {
        let at = cluster.leader("S").await?;
        ensure!(at != first, "still {at}");
        Ok(Some(at))
    })
    .await?;
    publish_at(second).await?;
    cluster.heal(first);
    cluster.wait_ready().await?;
    cluster.node(second).kill().await?;
    publish_at(first).await?;
    cluster.node(second).launch()?;
    cluster.wait_ready().await?;
    let third = cluster.leader("S").await?;
    cluster.step_down("S").await?;
    eventually("another leader", SOON, async || {
        Ok((cluster.leader("S").await? != third).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_standby_follows_and_takes_over_with_its_failover_slots() -> Result<()> {
    let name = "a_standby_follows_and_takes_over_with_its_failover_slots";
    let Some(bin) = tools::postgres_or_skip(18, name)? else {
        return Ok(());
    };
    let guard = Guard::start()?;
    let primary = Postgres::start_from(&guard, bin, &[]).await?;
    primary.create_database("shop").await?;
    let sql = primary.connect("shop").await?;
    sql.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await?;
    let standby = primary.standby("standby", "shop", &[]).await?;
    primary.set("synchronized_standby_slots", "standby").await?;
    let slot = "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, false, true)";
    sql.batch_execute(slot).await?;
    sql.batch_execute("INSERT INTO t VALUES (2)").await?;
    standby.wait_caught_up(&primary).await?;
    let copy = standby.connect("shop").await?;
    let synced = "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = 's'";
    eventually("the slot on the standby", SOON, async || {
        // The primary's slot has to move for the standby's to be kept.
        sql.batch_execute("INSERT INTO t VALUES (3); SELECT pg_log_standby_snapshot()")
            .await?;
        let drain = "SELECT count(*) FROM pg_logical_slot_get_binary_changes('s', NULL, NULL, \
                     'proto_version', '1', 'publication_names', 'none')";
        sql.batch_execute(drain).await?;
        let row = copy.query_opt(synced, &[]).await?.context("no slot")?;
        Ok(row.get::<_, bool>(0).then_some(()))
    })
    .await?;
    primary.stop().await?;
    standby.promote().await?;
    let row = copy.query_one("SELECT count(*) FROM t", &[]).await?;
    assert!(row.get::<_, i64>(0) >= 2);
    copy.batch_execute("INSERT INTO t VALUES (4)").await?;
    Ok(())
}
