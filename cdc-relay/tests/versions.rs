//! Every version of Postgres that is served, as far as it can be had here: logins, TLS, and the commands
//! and messages of replication.

mod rig;

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, ensure};
use harness::{Guard, Nats, Postgres, certificates::Authority, tools};
use rig::{DATABASE, OUTBOX, Rig, load};

/// A relay over TLS that is bound to the channel, from the first copy over a kill under load.
async fn serves(major: u32) -> Result<()> {
    let Some(bin) = tools::postgres_or_skip(major, &format!("the test of version {major}"))? else {
        return Ok(());
    };
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = authority.sign(&["127.0.0.1"])?;
    let (certificate, key) = (
        server.certificate.display().to_string(),
        server.key.display().to_string(),
    );
    let tls = [
        ("ssl", "on"),
        ("ssl_cert_file", &certificate),
        ("ssl_key_file", &key),
    ];
    let postgres = Postgres::start_from(&guard, bin, &tls).await?;
    let nats = Nats::start_with(&guard, "").await?;
    postgres.create_database(DATABASE).await?;
    let sql = postgres.connect(DATABASE).await?;
    sql.batch_execute(OUTBOX).await?;
    let rig = Rig {
        sql,
        postgres,
        nats,
        guard,
    };
    let version: String = rig
        .sql
        .query_one("SHOW server_version_num", &[])
        .await?
        .get(0);
    ensure!(version.starts_with(&major.to_string()), "it is {version}");

    rig.insert("from before the relay").await?;
    let trusted = authority.certificate().display();
    let parameters = format!("sslmode=verify-full&sslrootcert={trusted}&channel_binding=require");
    // Without the question and answer before the handshake, where the server can.
    let direct = if major >= 17 {
        "&sslnegotiation=direct"
    } else {
        ""
    };
    let url = format!("{}?{parameters}{direct}", rig.postgres.url(DATABASE));
    let relay = rig.relay_with("relay", &[("DATABASE_URL", &url)])?;
    relay.wait_ready().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(load(rig.postgres.url(DATABASE), 0, stop.clone()));
    relay.restart().await?;
    stop.store(true, Ordering::Relaxed);
    ensure!(writer.await? > 0, "the writer wrote nothing");
    rig.settled().await?;
    ensure!(relay.terminate().await?.success(), "it ended in failure");
    // What a shutdown has confirmed is not passed over once more.
    relay.start_again()?;
    relay.wait_ready().await?;
    rig.insert("after").await?;
    rig.settled().await?;
    ensure!(
        relay
            .metric("cdc_relay_resumed_total")
            .await?
            .unwrap_or(0.0)
            == 0.0
    );
    Ok(())
}

#[tokio::test]
async fn postgres_15_is_served() -> Result<()> {
    serves(15).await
}

#[tokio::test]
async fn postgres_16_is_served() -> Result<()> {
    serves(16).await
}

#[tokio::test]
async fn postgres_17_is_served() -> Result<()> {
    serves(17).await
}

#[tokio::test]
async fn postgres_18_is_served() -> Result<()> {
    serves(18).await
}
