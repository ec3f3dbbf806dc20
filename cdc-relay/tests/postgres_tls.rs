//! The relay's two connections to Postgres over TLS, by libpq's modes, and who is let in.

mod rig;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use cdc_relay::{error::Error, wal::Connection};
use chassis::{
    config::DatabaseUrl,
    postgres::Target,
    tls::{certificates, private_key},
};
use harness::{
    Guard, Process,
    certificates::{Authority, Identity},
    eventually,
};
use rig::{DATABASE, Rig, SOON, load, says};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// The harness's own user by password, and one that is known by its certificate alone.
const LOGINS: &str = "\
    host all postgres 127.0.0.1/32 scram-sha-256\n\
    host all postgres ::1/128 scram-sha-256\n\
    hostssl all badge 127.0.0.1/32 cert\n";

/// A rig whose Postgres has this certificate.
async fn rig(guard: Guard, authority: &Authority, server: &Identity) -> Result<Rig> {
    let logins = guard.directory().join("pg_hba.conf");
    fs::write(&logins, LOGINS)?;
    let path = |path: &Path| path.display().to_string();
    let settings = [
        ("ssl", "on"),
        ("ssl_cert_file", &path(&server.certificate)),
        ("ssl_key_file", &path(&server.key)),
        ("ssl_ca_file", &path(authority.certificate())),
        ("hba_file", &path(&logins)),
        // The address that `localhost` may stand for, beside the harness's own.
        ("listen_addresses", "localhost"),
    ];
    Rig::start_in(guard, &settings, "").await
}

fn url(rig: &Rig, host: &str, parameters: &str) -> String {
    let url = rig.postgres.url(DATABASE).replace("127.0.0.1", host);
    format!("{url}?{parameters}")
}

fn relay(rig: &Rig, host: &str, parameters: &str) -> Result<Process> {
    rig.relay_with("relay", &[("DATABASE_URL", &url(rig, host, parameters))])
}

/// Whether the relay's connections, one for replication among them, are encrypted, all or none.
async fn is_encrypted(rig: &Rig) -> Result<bool> {
    let query = "SELECT bool_and(ssl), bool_or(ssl), bool_or(backend_type = 'walsender') \
                 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'cdc-relay'";
    eventually("the relay's connections", SOON, async || {
        let row = rig.sql.query_one(query, &[]).await?;
        let of = |at: usize| row.get::<_, Option<bool>>(at);
        ensure!(of(2) == Some(true), "none for replication");
        ensure!(of(0) == of(1), "some are encrypted and some are not");
        Ok(of(0))
    })
    .await
}

#[tokio::test]
async fn both_connections_are_encrypted_and_the_stream_stays_exact_under_load() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = authority.sign(&["127.0.0.1"])?;
    let rig = rig(guard, &authority, &server).await?;
    let trusted = authority.certificate().display();
    let relay = relay(
        &rig,
        "127.0.0.1",
        &format!("sslmode=verify-full&sslrootcert={trusted}"),
    )?;
    relay.wait_ready().await?;
    assert!(is_encrypted(&rig).await?);

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|writer| tokio::spawn(load(rig.postgres.url(DATABASE), writer, stop.clone())))
        .collect();
    // Rows of many records of TLS each, beside the small ones.
    let large = "INSERT INTO outbox (payload) SELECT convert_to(repeat(md5(n::text), 3000), 'UTF8') \
                 FROM generate_series(1, 200) n";
    rig.sql.batch_execute(large).await?;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        relay.restart().await?;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        ensure!(writer.await? > 0, "a writer wrote nothing");
    }
    let stored = rig.settled().await?;
    ensure!(stored.len() > 1000, "only {} rows", stored.len());
    Ok(())
}

#[tokio::test]
async fn verify_full_refuses_a_certificate_for_another_host() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = authority.sign(&["localhost"])?;
    let rig = rig(guard, &authority, &server).await?;
    let trusted = authority.certificate().display();
    let full = format!("sslmode=verify-full&sslrootcert={trusted}");
    let other = relay(&rig, "127.0.0.1", &full)?;
    says(&other, "made out to another host").await?;
    other.kill().await?;

    let by_name = relay(&rig, "localhost", &full)?;
    by_name.wait_ready().await?;
    by_name.kill().await?;
    let whoever = relay(
        &rig,
        "127.0.0.1",
        &format!("sslmode=verify-ca&sslrootcert={trusted}"),
    )?;
    whoever.wait_ready().await
}

#[tokio::test]
async fn an_unknown_authority_is_refused_and_mending_its_file_is_enough() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let stranger = Authority::new(&guard, "stranger")?;
    let server = authority.sign(&["127.0.0.1"])?;
    let rig = rig(guard, &authority, &server).await?;
    let trusted = rig.guard.directory().join("trusted.pem");
    fs::copy(stranger.certificate(), &trusted)?;
    let parameters = format!("sslmode=require&sslrootcert={}", trusted.display());
    let relay = relay(&rig, "127.0.0.1", &parameters)?;
    says(
        &relay,
        "name the file with the right CA's certificate in sslrootcert",
    )
    .await?;
    fs::copy(authority.certificate(), &trusted)?;
    relay.wait_ready().await?;

    fs::write(&trusted, "no certificate")?;
    relay.kill().await?;
    relay.start_again()?;
    says(&relay, "holds no certificate in PEM form").await
}

#[tokio::test]
async fn a_server_that_signed_itself_is_trusted_by_its_own_certificate() -> Result<()> {
    let guard = Guard::start()?;
    let other = Authority::new(&guard, "other")?;
    let server = other.sign(&["127.0.0.1"])?;
    let rig = rig(guard, &other, &server).await?;
    // The server's own certificate, not that of who signed it.
    let own = server.certificate.display();
    let relay = relay(
        &rig,
        "127.0.0.1",
        &format!("sslmode=verify-full&sslrootcert={own}"),
    )?;
    relay.wait_ready().await
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_demanded() -> Result<()> {
    let rig = Rig::start().await?;
    let relay = relay(&rig, "127.0.0.1", "sslmode=require")?;
    says(&relay, "does not offer TLS").await?;
    relay.kill().await?;
    let target = target(&rig, "sslmode=require")?;
    let dialled = Connection::open(&target, Duration::from_secs(10)).await;
    assert!(matches!(dialled, Err(Error::Definite(text)) if text.contains("does not offer TLS")));
    let prefers = rig.relay("prefers")?;
    prefers.wait_ready().await?;
    assert!(!is_encrypted(&rig).await?);
    Ok(())
}

/// Makes the role that is known by its certificate alone; its URL, without that.
async fn holder(rig: &Rig, authority: &Authority) -> Result<String> {
    let role = "CREATE ROLE badge SUPERUSER REPLICATION LOGIN";
    rig.sql.batch_execute(role).await?;
    let (port, ca) = (rig.postgres.port(), authority.certificate().display());
    Ok(format!(
        "postgres://badge@127.0.0.1:{port}/{DATABASE}?sslmode=verify-full&sslrootcert={ca}"
    ))
}

#[tokio::test]
async fn a_client_certificate_is_enough_where_pg_hba_asks_for_one() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let (server, badge) = (authority.sign(&["127.0.0.1"])?, authority.sign(&["badge"])?);
    let rig = rig(guard, &authority, &server).await?;
    let base = holder(&rig, &authority).await?;
    let without = rig.relay_with("without", &[("DATABASE_URL", &base)])?;
    says(&without, "connection requires a valid client certificate").await?;
    without.kill().await?;

    let (certificate, key) = (badge.certificate.display(), badge.key.display());
    let with = format!("{base}&sslcert={certificate}&sslkey={key}");
    let with = rig.relay_with("with", &[("DATABASE_URL", &with)])?;
    with.wait_ready().await?;
    rig.insert("let in").await?;
    rig.settled().await?;
    Ok(())
}

fn target(rig: &Rig, parameters: &str) -> Result<Target> {
    let url = url(rig, "127.0.0.1", parameters);
    let url: DatabaseUrl = url.parse().map_err(anyhow::Error::msg)?;
    Ok(Target::new(&url, "cdc-relay"))
}

#[tokio::test]
async fn scram_plus_binds_to_the_channel() -> Result<()> {
    for sha384 in [false, true] {
        let guard = Guard::start()?;
        let authority = match sha384 {
            true => Authority::with_sha384(&guard, "authority")?,
            false => Authority::new(&guard, "authority")?,
        };
        let server = authority.sign(&["127.0.0.1"])?;
        let rig = rig(guard, &authority, &server).await?;
        for (parameters, is_bound) in [
            ("sslmode=require&channel_binding=require", true),
            ("sslmode=require&channel_binding=disable", true),
            ("sslmode=require", true),
            ("sslmode=disable&channel_binding=require", false),
        ] {
            let target = target(&rig, parameters)?;
            let sql = target.connect().await;
            let replication = Connection::open(&target, Duration::from_secs(10)).await;
            assert_eq!(sql.is_ok(), is_bound, "{parameters}: {sql:?}");
            assert_eq!(
                replication.is_ok(),
                is_bound,
                "{parameters}: {replication:?}"
            );
            if let Err(error) = replication {
                assert!(matches!(&error, Error::Definite(_)), "{error:?}");
            }
        }
        let plain = relay(&rig, "127.0.0.1", "sslmode=disable&channel_binding=require")?;
        says(&plain, "this connection cannot be bound").await?;
    }
    Ok(())
}

/// Listens with a certificate of its own, and passes on all that it reads to the server, over TLS.
async fn somebody_between(identity: &Identity, server: Target) -> Result<u16> {
    let chain = certificates("the certificate", &identity.certificate)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private_key(&identity.key)?)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let mut request = [0; 8];
                stream.read_exact(&mut request).await?;
                stream.write_all(b"S").await?;
                let mut client = acceptor.accept(stream).await?;
                let mut server = server.dial().await?.stream;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(port)
}

#[tokio::test]
async fn somebody_between_who_reads_along_is_found_out() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let (server, other) = (
        authority.sign(&["127.0.0.1"])?,
        authority.sign(&["localhost"])?,
    );
    let rig = rig(guard, &authority, &server).await?;
    let behind = target(&rig, "sslmode=require")?;
    let port = somebody_between(&other, behind).await?.to_string();
    // Without a look at the certificate the login alone can tell.
    for (parameters, is_let_through) in [
        ("sslmode=require&channel_binding=disable", true),
        ("sslmode=require", false),
        ("sslmode=require&channel_binding=require", false),
    ] {
        let url = url(&rig, "127.0.0.1", parameters);
        let url = url.replace(&rig.postgres.port().to_string(), &port);
        let url: DatabaseUrl = url.parse().map_err(anyhow::Error::msg)?;
        let target = Target::new(&url, "cdc-relay");
        let sql = target.connect().await;
        let replication = Connection::open(&target, Duration::from_secs(10)).await;
        assert_eq!(sql.is_ok(), is_let_through, "{parameters}: {sql:?}");
        assert_eq!(
            replication.is_ok(),
            is_let_through,
            "{parameters}: {replication:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn prefer_goes_on_without_tls_where_the_handshake_cannot_work() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = authority.sign(&["127.0.0.1"])?;
    let rig = rig(guard, &authority, &server).await?;
    let lost = "sslcert=/nowhere/relay.pem&sslkey=/nowhere/relay.key";
    let prefers = relay(&rig, "127.0.0.1", lost)?;
    prefers.wait_ready().await?;
    assert!(!is_encrypted(&rig).await?);
    says(&prefers, "going on without TLS").await?;
    prefers.kill().await?;
    let demands = relay(&rig, "127.0.0.1", &format!("sslmode=require&{lost}"))?;
    says(
        &demands,
        "cannot read the client certificate /nowhere/relay.pem",
    )
    .await
}

#[tokio::test]
async fn a_password_that_is_changed_in_its_file_is_used_by_both_connections() -> Result<()> {
    let rig = Rig::start().await?;
    let file = rig.guard.directory().join("password");
    fs::write(&file, "first\n")?;
    let create = "CREATE ROLE relay SUPERUSER LOGIN PASSWORD 'first'";
    rig.sql.batch_execute(create).await?;
    let url = format!(
        "postgres://relay@127.0.0.1:{}/{DATABASE}",
        rig.postgres.port()
    );
    let path = file.display().to_string();
    let login = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_PASSWORD_FILE", &path),
    ];
    let relay = rig.relay_with("relay", &login)?;
    relay.wait_ready().await?;
    rig.insert("by the first").await?;
    rig.settled().await?;

    fs::write(&file, "second\n")?;
    let change = "ALTER ROLE relay PASSWORD 'second'; \
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'relay'";
    rig.sql.batch_execute(change).await?;
    rig.insert("by the second").await?;
    rig.settled().await?;
    let log = relay.log().text();
    ensure!(!log.contains("28P01"), "the first was tried again");
    let both = [login[1], ("DATABASE_URL", &rig.postgres.url(DATABASE))];
    let refused = rig.command(&["status"], &both).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        said.contains("DATABASE_URL: has a password, and there is a file with one: keep one"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = authority.sign_expired(&["127.0.0.1"])?;
    let shown = authority.sign_expired(&["badge"])?;
    let rig = rig(guard, &authority, &server).await?;
    let (certificate, key) = (shown.certificate.display(), shown.key.display());
    let base = holder(&rig, &authority).await?;
    let url = format!("{base}&sslcert={certificate}&sslkey={key}");
    let relay = rig.relay_with("badge", &[("DATABASE_URL", &url)])?;
    says(&relay, "the server's certificate has expired: renew it").await?;
    authority.sign(&["127.0.0.1"])?.replace(&server)?;
    rig.sql.batch_execute("SELECT pg_reload_conf()").await?;
    says(&relay, "the client certificate in sslcert and sslkey").await?;
    authority.sign(&["badge"])?.replace(&shown)?;
    relay.wait_ready().await
}
