//! A URL's keys, of a real server that changes, fails, is slow or lies.

use anyhow::{Context as _, Result, ensure};
use harness::{
    Algorithm as Kind, Answer, Guard, KeyServer, Signer,
    certificates::{Authority, Identity},
    eventually, jwks,
};
use tokio::{task::JoinSet, time::timeout};

use super::*;

/// A moment: less than the time for an answer, which is five seconds.
const AT_ONCE: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(20);

async fn keyring(server: &KeyServer) -> Result<Arc<Keyring>> {
    let source = Source::Url(server.url().parse()?, Roots::System);
    let mut keyring = Keyring::load(source).await.map_err(anyhow::Error::msg)?;
    keyring.pace.every = Duration::from_millis(20);
    keyring.pace.again = Duration::from_millis(20);
    Ok(Arc::new(keyring))
}

fn known(keyring: &Keyring, id: &str) -> bool {
    keyring.keys().find(Some(id), Algorithm::ES256).is_some()
}

async fn why(keyring: &Keyring) -> String {
    keyring.last.lock().await.failed.clone().unwrap_or_default()
}

#[tokio::test]
async fn whatever_a_url_answers_the_keys_as_they_were_go_on_being_used() -> Result<()> {
    let (first, other) = (Signer::new("first")?, Signer::new("other")?);
    let good = jwks(&[&first]);
    let others = jwks(&[&other]);
    let mut server = KeyServer::start(Answer::Document(good.clone())).await?;
    let elsewhere = KeyServer::start(Answer::Document(others.clone())).await?;
    let keyring = keyring(&server).await?;
    let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"other"}]}"#;
    for (answer, reason) in [
        (Answer::Status(500, others.clone()), "it answers 500"),
        (Answer::Status(404, String::new()), "it answers 404"),
        (Answer::Redirect(elsewhere.url()), "it answers 302"),
        (Answer::Garbage, "invalid HTTP"),
        (Answer::Endless, "larger than 262144 bytes"),
        (
            Answer::Document(" ".repeat(JWKS_BYTES_MAX + 1)),
            "larger than 262144 bytes",
        ),
        (Answer::Document("<html>".to_owned()), "it is no JWKS"),
        (Answer::Document(String::new()), "it is no JWKS"),
        (
            Answer::Document(others[..others.len() - 1].to_owned()),
            "it is no JWKS",
        ),
        (
            Answer::Document(r#"{"keys":[]}"#.to_owned()),
            "no public key",
        ),
        (Answer::Document(secret.to_owned()), "no public key"),
        (Answer::Silence, "no answer within 5 s"),
        (Answer::Slow(others.clone()), "no answer within 5 s"),
    ] {
        server.answer(answer.clone());
        ensure!(!keyring.look(Duration::ZERO).await, "{answer:?}");
        let why = why(&keyring).await;
        ensure!(why.contains(reason), "{answer:?}: {why}");
        ensure!(
            known(&keyring, "first") && !known(&keyring, "other"),
            "{answer:?}"
        );
    }
    ensure!(elsewhere.asked() == 0, "it was led elsewhere");
    server.stop().await;
    ensure!(!keyring.look(Duration::ZERO).await);
    let why = why(&keyring).await;
    ensure!(why.contains("onnection refused"), "{why}");
    ensure!(known(&keyring, "first"));
    Ok(())
}

#[tokio::test]
async fn a_urls_keys_are_taken_up_and_dropped_as_they_change() -> Result<()> {
    let (first, second) = (Signer::new("first")?, Signer::new("second")?);
    let mut server = KeyServer::start(Answer::Document(jwks(&[&first]))).await?;
    let keyring = keyring(&server).await?;
    let token = CancellationToken::new();
    let _ends = token.clone().drop_guard();
    tokio::spawn(Arc::clone(&keyring).watch(token));
    let holds = async |first: bool, second: bool| {
        let now = || (known(&keyring, "first"), known(&keyring, "second"));
        eventually("the keys", SOON, async || {
            Ok((now() == (first, second)).then_some(()))
        })
        .await
    };
    holds(true, false).await?;
    server.answer(Answer::Document(jwks(&[&first, &second])));
    holds(true, true).await?;
    server.stop().await;
    eventually("the failure to be seen", SOON, async || {
        Ok((!why(&keyring).await.is_empty()).then_some(()))
    })
    .await?;
    server.answer(Answer::Document(jwks(&[&second])));
    server.start_again().await?;
    holds(false, true).await?;
    ensure!(why(&keyring).await.is_empty(), "it is still said to fail");
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_makes_it_look_but_not_often() -> Result<()> {
    let (first, second) = (Signer::new("first")?, Signer::new("second")?);
    let server = KeyServer::start(Answer::Document(jwks(&[&first]))).await?;
    let mut keyring = keyring(&server).await?;
    let with = async |keyring: &Keyring, id| {
        let found = keyring.with(Some(id), Algorithm::ES256).await;
        found.is_some()
    };
    // It was read a moment ago, and everybody can name keys.
    for _ in 0..10 {
        ensure!(!with(&keyring, "unknown").await);
    }
    ensure!(server.asked() == 1, "asked {} times", server.asked());
    Arc::get_mut(&mut keyring).context("shared")?.pace.asked = Duration::ZERO;
    server.answer(Answer::Document(jwks(&[&second])));
    ensure!(with(&keyring, "first").await, "it was there");
    ensure!(server.asked() == 1, "a known key makes it ask");
    ensure!(with(&keyring, "second").await, "it was not looked for");
    ensure!(!known(&keyring, "first"), "it is gone");
    // A key of another kind under its name is none.
    let es384 = Signer::of("second", Kind::ES384)?;
    server.answer(Answer::Document(jwks(&[&es384])));
    ensure!(
        keyring
            .with(Some("second"), Algorithm::ES384)
            .await
            .is_some()
    );
    ensure!(!with(&keyring, "second").await);
    Ok(())
}

#[tokio::test]
async fn who_names_unknown_keys_of_a_slow_url_holds_up_no_known_one() -> Result<()> {
    let first = Signer::new("first")?;
    let server = KeyServer::start(Answer::Document(jwks(&[&first]))).await?;
    let mut keyring = keyring(&server).await?;
    Arc::get_mut(&mut keyring).context("shared")?.pace.asked = Duration::ZERO;
    server.answer(Answer::Silence);
    let mut waiting = JoinSet::new();
    for _ in 0..WAITING_MAX {
        let keyring = Arc::clone(&keyring);
        waiting.spawn(async move { keyring.with(Some("x"), Algorithm::ES256).await.is_some() });
    }
    eventually("all places to be taken", SOON, async || {
        Ok((keyring.waiting.available_permits() == 0).then_some(()))
    })
    .await?;
    let one_more = timeout(AT_ONCE, keyring.with(Some("x"), Algorithm::ES256)).await;
    ensure!(one_more.context("it is kept waiting")?.is_none());
    let good = timeout(AT_ONCE, keyring.with(Some("first"), Algorithm::ES256)).await;
    ensure!(good.context("a known key is kept waiting")?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_url_is_believed_by_its_certificate_alone() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let stranger = Authority::new(&guard, "stranger")?;
    let first = jwks(&[&Signer::new("first")?]);
    let start = async |identity: Identity| {
        let answer = Answer::Document(first.clone());
        KeyServer::start_tls(answer, &identity).await
    };
    let server = start(authority.sign(&["127.0.0.1"])?).await?;
    let expired = start(authority.sign_expired(&["127.0.0.1"])?).await?;
    let read = async |url: String, trusted: &Authority| {
        let roots = Roots::File(trusted.certificate().to_owned());
        let read = Source::Url(url.parse()?, roots).read().await;
        read.map(drop).map_err(anyhow::Error::msg)
    };
    read(server.url(), &authority).await?;
    for (url, trusted, reason) in [
        (server.url(), &stranger, "UnknownIssuer"),
        (server.url_of("localhost"), &authority, "not valid for name"),
        (expired.url(), &authority, "certificate expired"),
    ] {
        let refused = read(url, trusted).await.err().context(reason)?.to_string();
        ensure!(refused.contains(reason), "no {reason:?} in {refused:?}");
    }
    ensure!(expired.asked() == 0, "it was asked all the same");
    Ok(())
}
