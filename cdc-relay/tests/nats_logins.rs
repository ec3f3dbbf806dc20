//! Each way to log in to NATS, TLS, and what is said when one fails. Secrets are never logged.

mod rig;

use std::{fs, path::PathBuf, time::SystemTime};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use harness::{
    Guard, Process,
    certificates::{Authority, Identity},
    eventually, http,
};
use nkeys::KeyPair;
use rig::{Rig, SOON};
use serde_json::{Value, json};

/// Users by password and nkey, and one for the harness, which does not log in.
fn users(nkey: &str) -> String {
    format!(
        "accounts: {{ APP: {{ jetstream: enabled, users: [ {{ user: harness, password: harness }}, \
         {{ user: ana, password: \"hunter2 #\" }}, {{ nkey: {nkey} }} ] }} }}\nno_auth_user: harness\n"
    )
}

fn file(guard: &Guard, name: &str, content: &str) -> Result<String> {
    let path: PathBuf = guard.directory().join(name);
    fs::write(&path, content)?;
    Ok(path.display().to_string())
}

/// Awaits that the relay has published another row.
async fn publishes(rig: &Rig, relay: &Process) -> Result<()> {
    relay.wait_ready().await?;
    let counter = "cdc_relay_published_total";
    let before = relay.metric(counter).await?.unwrap_or(0.0);
    rig.insert("let in").await?;
    eventually("the row to be published", SOON, async || {
        let now = relay.metric(counter).await?.unwrap_or(0.0);
        Ok((now > before).then_some(()))
    })
    .await
}

/// Whom the server takes the relay for.
async fn user(rig: &Rig) -> Result<String> {
    let (_, page) = http::get(rig.nats.monitoring_port(), "/connz?auth=1").await?;
    let page: Value = serde_json::from_str(&page)?;
    let connections = page["connections"].as_array().context("no connections")?;
    let relay = connections.iter().find(|one| one["name"] == "cdc-relay");
    let user = relay.context("no relay")?["authorized_user"].as_str();
    Ok(user.context("nobody")?.to_owned())
}

/// The relay ends by itself, having said this and no secret.
async fn refused(rig: &Rig, environment: &[(&str, &str)], text: &str, secret: &str) -> Result<()> {
    let mut all = environment.to_vec();
    all.push(("LOG_FILTER", "trace"));
    let relay = rig.relay_with("refused", &all)?;
    let status = relay.wait_ended(SOON).await?;
    ensure!(!status.success(), "it went on");
    let log = relay.log().text();
    ensure!(log.contains(text), "no `{text}`: {}", relay.log().tail());
    ensure!(!log.contains(secret), "the log shows the secret");
    Ok(())
}

#[tokio::test]
async fn passwords_and_nkeys_are_taken_and_neither_is_logged() -> Result<()> {
    let guard = Guard::start()?;
    let key = KeyPair::new_user();
    let seed = key.seed()?;
    let rig = Rig::start_in(guard.clone(), &[], &users(&key.public_key())).await?;
    let password = file(&guard, "password", "hunter2 #\n")?;
    let nkey = file(&guard, "user.nk", &format!("# of the relay\n{seed}\n"))?;
    for (environment, expected) in [
        (
            vec![("NATS_USER", "ana"), ("NATS_PASSWORD", "hunter2 #")],
            "ana",
        ),
        (
            vec![("NATS_USER", "ana"), ("NATS_PASSWORD_FILE", &password)],
            "ana",
        ),
        (vec![("NATS_NKEY", &nkey)], &key.public_key()),
    ] {
        let mut all = environment.clone();
        all.push(("LOG_FILTER", "trace"));
        let relay = rig.relay_with("relay", &all)?;
        publishes(&rig, &relay).await?;
        assert_eq!(user(&rig).await?, expected);
        let log = relay.log().text();
        ensure!(!log.contains("hunter2"), "the log shows the password");
        ensure!(!log.contains(&seed), "the log shows the seed");
        relay.kill().await?;
    }
    rig.settled().await?;

    let (ana, wrong) = (("NATS_USER", "ana"), ("NATS_PASSWORD", "sesame"));
    let mend = "authorization violation; correct NATS_USER and its password";
    refused(&rig, &[ana, wrong], mend, "sesame").await?;
    let stranger = KeyPair::new_user().seed()?;
    let stranger_file = file(&guard, "stranger.nk", &stranger)?;
    let nkey = ("NATS_NKEY", stranger_file.as_str());
    refused(&rig, &[nkey], "correct NATS_NKEY", &stranger).await?;
    let both = "in several ways: NATS_NKEY, NATS_USER and its password; keep one";
    refused(&rig, &[nkey, ana, wrong], both, "sesame").await?;
    let lost = ("NATS_NKEY", "/nowhere/user.nk");
    refused(
        &rig,
        &[lost],
        "NATS_NKEY: cannot read /nowhere/user.nk",
        &seed,
    )
    .await
}

#[tokio::test]
async fn a_token_is_taken_and_its_lack_is_said() -> Result<()> {
    let guard = Guard::start()?;
    let rig = Rig::start_in(guard.clone(), &[], "authorization: { token: hunter2 }").await?;
    let from_file = file(&guard, "token", "hunter2\n")?;
    for way in [("NATS_TOKEN", "hunter2"), ("NATS_TOKEN_FILE", &from_file)] {
        let relay = rig.relay_with("relay", &[way])?;
        publishes(&rig, &relay).await?;
        relay.kill().await?;
    }
    refused(&rig, &[], "it wants a login: set NATS_CREDS", "hunter2").await?;
    refused(
        &rig,
        &[("NATS_TOKEN", "sesame")],
        "correct NATS_TOKEN",
        "sesame",
    )
    .await
}

/// A signed JWT as NATS has them.
fn jwt(
    issuer: &KeyPair,
    subject: &str,
    kind: &str,
    expires: Option<u64>,
    mut nats: Value,
) -> Result<String> {
    nats["type"] = kind.into();
    nats["version"] = 2.into();
    let mut claims = json!({
        "jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": kind, "sub": subject,
        "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

/// A server's configuration with an operator, one account, and one for the server's own use.
fn operator(account: &KeyPair) -> Result<String> {
    let operator = KeyPair::new_operator();
    let itself = jwt(
        &operator,
        &operator.public_key(),
        "operator",
        None,
        json!({}),
    )?;
    let plain = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1,
    });
    let mut streams = plain.clone();
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        streams[limit] = json!(-1);
    }
    let (system, id) = (KeyPair::new_account().public_key(), account.public_key());
    let of = |id: &str, limits| jwt(&operator, id, "account", None, json!({ "limits": limits }));
    Ok(format!(
        "operator: {itself}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {id}: {}, {system}: {} }}\n",
        of(&id, streams)?,
        of(&system, plain)?
    ))
}

/// A credentials file for a new user of the account.
fn credentials(account: &KeyPair, expires: Option<u64>) -> Result<String> {
    let user = KeyPair::new_user();
    let rights = json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let jwt = jwt(account, &user.public_key(), "user", expires, rights)?;
    let seed = user.seed()?;
    Ok(format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** keep it secret ***\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    ))
}

#[tokio::test]
async fn credentials_are_taken_and_a_renewed_file_needs_no_restart() -> Result<()> {
    let guard = Guard::start()?;
    let account = KeyPair::new_account();
    let rig = Rig::start_in(guard.clone(), &[], &operator(&account)?).await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let first = credentials(&account, Some(now.as_secs() + 15))?;
    let creds = file(&guard, "user.creds", &first)?;
    let relay = rig.relay_with("relay", &[("NATS_CREDS", &creds), ("LOG_FILTER", "trace")])?;
    publishes(&rig, &relay).await?;
    let first_user = user(&rig).await?;

    // The server ends the connection when the first JWT expires.
    file(&guard, "user.creds", &credentials(&account, None)?)?;
    eventually("a login by the new file", SOON, async || {
        Ok((user(&rig).await? != first_user).then_some(()))
    })
    .await?;
    publishes(&rig, &relay).await?;
    let secret = first.lines().find(|line| line.starts_with("SU"));
    let secret = secret.context("no seed")?;
    ensure!(
        !relay.log().text().contains(secret),
        "the log shows the seed"
    );
    relay.kill().await?;

    let stranger = credentials(&KeyPair::new_account(), None)?;
    let stranger = file(&guard, "stranger.creds", &stranger)?;
    refused(
        &rig,
        &[("NATS_CREDS", &stranger)],
        "correct NATS_CREDS",
        secret,
    )
    .await?;
    let garbage = file(&guard, "garbage.creds", secret)?;
    let mend = "is not a credentials file";
    refused(&rig, &[("NATS_CREDS", &garbage)], mend, secret).await
}

#[tokio::test]
async fn tls_takes_the_named_authority_alone_and_shows_a_certificate() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let stranger = Authority::new(&guard, "stranger")?;
    let (server, client) = (authority.sign(&["127.0.0.1"])?, authority.sign(&["relay"])?);
    let ca = authority.certificate().display().to_string();
    let configuration = format!(
        "tls: {{ cert_file: {:?}, key_file: {:?}, ca_file: {ca:?}, verify: true, timeout: 10 }}",
        server.certificate, server.key
    );
    let rig = Rig::start_in(guard, &[], &configuration).await?;
    let (certificate, key) = (
        client.certificate.display().to_string(),
        client.key.display().to_string(),
    );
    let ca = ("NATS_TLS_CA", ca.as_str());
    let certificate = ("NATS_TLS_CERT", certificate.as_str());
    let key = ("NATS_TLS_KEY", key.as_str());

    let relay = rig.relay_with("relay", &[ca, certificate, key])?;
    publishes(&rig, &relay).await?;
    relay.kill().await?;
    let unknown = stranger.certificate().display().to_string();
    let unknown = ("NATS_TLS_CA", unknown.as_str());
    let mend = "name the file with the right CA's certificate in NATS_TLS_CA";
    refused(&rig, &[unknown, certificate, key], mend, "PRIVATE KEY").await?;
    let mend = "set NATS_TLS_CERT and NATS_TLS_KEY";
    refused(&rig, &[ca], mend, "PRIVATE KEY").await?;
    let half = "NATS_TLS_CERT is set without NATS_TLS_KEY";
    refused(&rig, &[ca, certificate], half, "PRIVATE KEY").await?;
    let name = rig.nats.url().replace("127.0.0.1", "localhost");
    let other = ("NATS_URL", name.as_str());
    let mend = "made out to another host";
    refused(&rig, &[other, ca, certificate, key], mend, "PRIVATE KEY").await
}

#[tokio::test]
async fn tls_that_is_demanded_is_never_left_out() -> Result<()> {
    let rig = Rig::start().await?;
    let url = rig.nats.url().replace("nats://", "tls://");
    for demand in [("NATS_URL", url.as_str()), ("NATS_TLS", "require")] {
        refused(&rig, &[demand], "does not speak TLS", "PRIVATE KEY").await?;
    }
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let server = authority.sign(&["127.0.0.1"])?;
    let configuration = format!(
        "tls: {{ cert_file: {:?}, key_file: {:?}, handshake_first: true, timeout: 10 }}",
        server.certificate, server.key
    );
    let rig = Rig::start_in(guard, &[], &configuration).await?;
    let ca = authority.certificate().display().to_string();
    let first = [("NATS_TLS_CA", ca.as_str()), ("NATS_TLS", "first")];
    let relay = rig.relay_with("relay", &first)?;
    publishes(&rig, &relay).await
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let ca = authority.certificate().display().to_string();
    let (expired, good) = (
        authority.sign_expired(&["127.0.0.1"])?,
        authority.sign(&["127.0.0.1"])?,
    );
    let configuration = |server: &Identity| {
        let (certificate, key) = (&server.certificate, &server.key);
        format!(
            "tls: {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true, timeout: 10 }}"
        )
    };
    let rig = Rig::start_in(guard.clone(), &[], &configuration(&expired)).await?;
    let shown = authority.sign(&["relay"])?;
    let (certificate, key) = (
        shown.certificate.display().to_string(),
        shown.key.display().to_string(),
    );
    let settings = [
        ("NATS_TLS_CA", ca.as_str()),
        ("NATS_TLS_CERT", &certificate),
        ("NATS_TLS_KEY", &key),
    ];
    let mend = "the server's certificate has expired: renew it";
    refused(&rig, &settings, mend, "PRIVATE KEY").await?;

    let rig = Rig::start_in(guard.clone(), &[], &configuration(&good)).await?;
    authority.sign_expired(&["relay"])?.replace(&shown)?;
    let mend = "the client certificate in NATS_TLS_CERT and NATS_TLS_KEY has expired: renew it";
    refused(&rig, &settings, mend, "PRIVATE KEY").await?;
    authority.sign(&["other"])?.replace(&shown)?;
    publishes(&rig, &rig.relay_with("relay", &settings)?).await
}
