//! NATS: waiting for it, readiness, and certificates and passwords that are renewed.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use async_nats::connection::State;
use chassis::{config, health::Health, nats};
use harness::{
    Guard, Nats,
    certificates::{Authority, Identity, replace},
    eventually,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn it_waits_for_nats_and_readiness_follows_it() -> Result<()> {
    let server = Nats::start().await?;
    let url: config::NatsUrl = server.url().parse().unwrap();
    let config = config::Nats::from(url);
    server.stop().await?;
    let connecting = tokio::spawn(async move { nats::connect(&config, "tests").await });
    server.start_again().await?;
    let client = timeout(SOON, connecting).await???;

    let (health, token) = (Health::new(), CancellationToken::new());
    let watching = tokio::spawn(nats::watch(client, health.check("nats"), token.clone()));
    for (ready, what) in [(true, "ready"), (false, "not ready"), (true, "ready again")] {
        if !ready {
            server.kill().await?;
        } else if what == "ready again" {
            server.start_again().await?;
        }
        eventually(what, SOON, async || {
            Ok((health.is_ready() == ready).then_some(()))
        })
        .await?;
    }
    token.cancel();
    timeout(SOON, watching).await???;
    Ok(())
}

/// A server that asks for a certificate of `callers`, and for a login that stands in a file.
async fn secured(guard: &Guard, authority: &Authority, callers: &Authority) -> Result<Nats> {
    secured_by(guard, &authority.sign(&["127.0.0.1"])?, callers).await
}

async fn secured_by(guard: &Guard, server: &Identity, callers: &Authority) -> Result<Nats> {
    let tls = format!(
        "tls: {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true, timeout: 10 }}",
        server.certificate,
        server.key,
        callers.certificate()
    );
    Nats::start_with(guard, &format!("{tls}\ninclude \"../login.conf\"")).await
}

#[tokio::test]
async fn a_certificate_a_ca_and_a_password_that_are_renewed_are_used_by_the_next_connection()
-> Result<()> {
    let guard = Guard::start()?;
    let [authority, callers, new_authority, new_callers] = [
        Authority::new(&guard, "authority")?,
        Authority::new(&guard, "callers")?,
        Authority::new(&guard, "new-authority")?,
        Authority::new(&guard, "new-callers")?,
    ];
    let login = guard.directory().join("login.conf");
    let let_in = |password: &str| {
        let users = format!("authorization: {{ user: ana, password: {password} }}");
        fs::write(&login, users)
    };
    let_in("first")?;
    let server = secured(&guard, &authority, &callers).await?;
    let (shown, password) = (callers.sign(&["ana"])?, guard.directory().join("password"));
    fs::write(&password, "first")?;
    let trusted = guard.directory().join("trusted.pem");
    fs::copy(authority.certificate(), &trusted)?;
    let config = config::Nats {
        user: Some("ana".to_owned()),
        password_file: Some(password.clone()),
        tls_ca: Some(trusted.clone()),
        tls_cert: Some(shown.certificate.clone()),
        tls_key: Some(shown.key.clone()),
        ..server.url().parse::<config::NatsUrl>().unwrap().into()
    };
    let client = timeout(SOON, nats::connect(&config, "tests")).await??;
    let is_connected = || client.connection_state() == State::Connected;
    server.stop().await?;
    eventually("the connection to be lost", SOON, async || {
        Ok((!is_connected()).then_some(()))
    })
    .await?;

    // Each one alone would keep it out.
    let renewed = new_authority.sign(&["127.0.0.1"])?;
    renewed.replace(&authority.sign(&["127.0.0.1"])?)?;
    replace(new_callers.certificate(), callers.certificate())?;
    let_in("second")?;
    server.start_again().await?;
    let refused = timeout(SOON, nats::connect(&config, "tests")).await?;
    ensure!(refused.is_err(), "the former files are taken");
    fs::copy(new_authority.certificate(), &trusted)?;
    let refused = timeout(SOON, nats::connect(&config, "tests")).await?;
    let refused = format!("{:#}", refused.unwrap_err());
    ensure!(
        refused.contains("set NATS_TLS_CERT and NATS_TLS_KEY"),
        "{refused}"
    );
    new_callers.sign(&["ana"])?.replace(&shown)?;
    let refused = timeout(SOON, nats::connect(&config, "tests")).await?;
    let refused = format!("{:#}", refused.unwrap_err());
    ensure!(
        refused.contains("correct NATS_USER and its password"),
        "{refused}"
    );
    fs::write(&password, "second")?;
    eventually("the connection to be back", SOON, async || {
        Ok(is_connected().then_some(()))
    })
    .await?;
    client.flush().await?;
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    fs::write(guard.directory().join("login.conf"), "")?;
    let shown = authority.sign_expired(&["caller"])?;
    let connected = async |server: &Nats| {
        let config = config::Nats {
            tls_ca: Some(authority.certificate().to_owned()),
            tls_cert: Some(shown.certificate.clone()),
            tls_key: Some(shown.key.clone()),
            ..server.url().parse::<config::NatsUrl>().unwrap().into()
        };
        timeout(SOON, nats::connect(&config, "tests")).await
    };
    let expired = authority.sign_expired(&["127.0.0.1"])?;
    let server = secured_by(&guard, &expired, &authority).await?;
    let refused = format!("{:#}", connected(&server).await?.unwrap_err());
    let mend = "the server's certificate has expired: renew it";
    ensure!(refused.contains(mend), "{refused}");

    let server = secured(&guard, &authority, &authority).await?;
    let refused = format!("{:#}", connected(&server).await?.unwrap_err());
    let mend = "the client certificate in NATS_TLS_CERT and NATS_TLS_KEY has expired: renew it";
    ensure!(refused.contains(mend), "{refused}");
    authority.sign(&["caller"])?.replace(&shown)?;
    connected(&server).await??;
    Ok(())
}
