//! Keys that a service has from a URL: waited for at its start, followed when they change, and kept while
//! nobody answers.

use anyhow::{Result, ensure};
use harness::{Answer, KeyServer, Process, Signer, System, eventually, jwks};
use tonic::Code;

use super::{TAKEN_UP, asked, issuer, with};
use crate::client::Transport;

async fn says(process: &Process, text: &str) -> Result<()> {
    eventually(text, TAKEN_UP, async || {
        Ok(process.log().text().contains(text).then_some(()))
    })
    .await
}

async fn failures(process: &Process) -> Result<f64> {
    let counted = process.metric("auth_keys_failures_total").await?;
    Ok(counted.unwrap_or(0.0))
}

#[tokio::test]
async fn keys_of_a_url_are_waited_for_followed_and_kept() -> Result<()> {
    let [old, new, never] = ["old", "new", "never"].map(Signer::new);
    let (old, new, never) = (old?, new?, never?);
    let mut keys = KeyServer::start(Answer::Document(jwks(&[&old]))).await?;
    let system = System::builder()
        .tokens()
        .env("order-service", "AUTH_JWKS", &keys.url())
        .start()
        .await?;
    let orders = system.process("order-service");
    let token = |signer: &Signer| signer.sign(&issuer(&system).token("operator", "x").by(signer));
    let known = async |signer: &Signer| {
        let client = with(&system, Transport::Grpc, &token(signer)).await;
        asked(&client).await.0 == "NOT_FOUND"
    };
    ensure!(known(&old).await && !known(&new).await);
    says(orders, "AUTH_JWKS is asked for without TLS").await?;

    // A token of a key that nobody has heard of is reason enough to ask again.
    keys.answer(Answer::Document(jwks(&[&new])));
    eventually("the new key to be taken", TAKEN_UP, async || {
        Ok(known(&new).await.then_some(()))
    })
    .await?;
    ensure!(!known(&old).await, "the old key is no longer published");

    // Nobody answers: told, counted, and nothing else changes.
    keys.stop().await;
    let before = failures(orders).await?;
    eventually("a failure to be counted", TAKEN_UP, async || {
        ensure!(!known(&never).await);
        Ok((failures(orders).await? > before).then_some(()))
    })
    .await?;
    says(orders, "AUTH_JWKS cannot be used; its keys as they were").await?;
    ensure!(known(&new).await);

    // Nor at the start: the process lives, is not ready, and answers nobody before it knows whom.
    orders.kill().await?;
    orders.start_again()?;
    says(orders, "the keys of AUTH_JWKS cannot be had; trying again").await?;
    says(orders, "onnection refused").await?;
    let mut client = system.orders()?;
    let refused = client.get_order(proto::orders::v1::GetOrderRequest::default());
    let refused = refused.await.expect_err("it has no keys yet");
    ensure!(refused.code() == Code::Unavailable, "{refused}");
    let (ready, _) = harness::http::get(orders.admin_port(), "/readyz").await?;
    ensure!(ready == 503, "{ready}");
    ensure!(failures(orders).await? > 0.0);
    keys.answer(Answer::Status(500, String::new()));
    keys.start_again().await?;
    says(orders, "it answers 500").await?;
    keys.answer(Answer::Document(jwks(&[&new])));
    orders.wait_ready().await?;
    ensure!(known(&new).await && !known(&old).await);
    for part in token(&new).split('.') {
        ensure!(!orders.log().text().contains(part), "a token is logged");
    }
    Ok(())
}
