//! `cargo xtask request`: one request to a service over NATS, in JSON, for whoever has no NATS
//! client at hand. The demo asks in the same way.

use anyhow::{Context, Result, anyhow, bail};
use async_nats::{Client, HeaderMap};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Such as `orders.v1.CreateOrder`
    subject: String,
    /// The request's message in JSON
    #[arg(default_value = "{}")]
    body: String,
    /// The NATS to ask through
    #[arg(long, env = "NATS_URL", default_value = "nats://127.0.0.1:4222")]
    nats_url: String,
    /// Prints only this field of the reply, such as `order.orderId`
    #[arg(long, value_name = "FIELD")]
    take: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let reply = tokio::runtime::Runtime::new()
        .context("cannot start the async runtime")?
        .block_on(async {
            let connected = async_nats::connect(&arguments.nats_url).await;
            let client =
                connected.context("cannot reach NATS; is NATS_URL that of a running one?")?;
            json(&client, &arguments.subject, arguments.body.clone()).await
        })?;
    match &arguments.take {
        None => println!("{reply:#}"),
        Some(field) => println!("{}", taken(&reply, field)?),
    }
    Ok(())
}

/// Asks in JSON. A service's refusal is an error with the service's own words.
pub(crate) async fn json(client: &Client, subject: &str, body: String) -> Result<Value> {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/json");
    let reply = client
        .request_with_headers(subject.to_owned(), headers, body.into())
        .await
        .with_context(|| format!("nobody has answered on {subject}"))?;
    let header = |name| reply.headers.as_ref().and_then(|headers| headers.get(name));
    if let Some(refusal) = header("Nats-Service-Error") {
        bail!("refused: {refusal}");
    }
    serde_json::from_slice(&reply.payload).context("the reply is not JSON")
}

/// A field by its dotted path, as bare text.
fn taken(reply: &Value, field: &str) -> Result<String> {
    let found = field
        .split('.')
        .try_fold(reply, |value, name| value.get(name));
    match found {
        None => Err(anyhow!("the reply has no field {field}: {reply}")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Ok(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_taken_by_its_path() {
        let reply = serde_json::json!({"order": {"orderId": "1", "total": {"minorUnits": 5}}});
        assert_eq!(taken(&reply, "order.orderId").unwrap(), "1");
        assert_eq!(taken(&reply, "order.total.minorUnits").unwrap(), "5");
        assert!(taken(&reply, "order.name").is_err());
    }
}
