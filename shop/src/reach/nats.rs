//! Requests over NATS.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use chassis::config::Secret;
use prost::Message;

use super::{Missed, process};
use crate::cli::Connection;
use crate::failure::{Failure, code};

const PROTOBUF: &str = "application/protobuf";
/// What our own deadline leaves of a try for the client's to be told by name.
const MARGIN: Duration = Duration::from_millis(50);

/// A connection that restores itself.
#[derive(Debug)]
pub(super) struct Nats {
    client: Client,
    url: String,
    authorization: Option<Secret>,
}

impl Nats {
    pub(super) async fn connect(settings: &Connection) -> Result<Self, Failure> {
        let authorization = settings.token.authorization()?;
        let url = settings.nats.url.to_string();
        let client =
            chassis::nats::connect_within(&settings.nats, "shop", settings.timeout).await?;
        Ok(Self {
            client,
            url,
            authorization,
        })
    }

    pub(super) async fn ask<Q, A>(
        &self,
        subject: &'static str,
        request: &Q,
        within: Duration,
    ) -> Result<A, Missed>
    where
        Q: Message,
        A: Message + Default,
    {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", PROTOBUF);
        if let Some(header) = &self.authorization {
            headers.insert("Authorization", header.expose());
        }
        let request = Request::new()
            .headers(headers)
            .payload(request.encode_to_vec().into())
            .timeout(Some(within.saturating_sub(MARGIN)));
        let reply = match self.client.send_request(subject, request).await {
            Ok(reply) => reply,
            Err(error) => {
                let (why, heard) = match error.kind() {
                    RequestErrorKind::NoResponders => ("nobody serves it there", false),
                    RequestErrorKind::TimedOut => ("an answer takes too long", true),
                    _ => return Err(Missed::Unreadable(anyhow!(error).context(subject))),
                };
                return Err(Missed::Unanswered {
                    why: self.unanswered(subject, why),
                    heard,
                });
            }
        };
        let header = |name| reply.headers.as_ref().and_then(|all| all.get(name));
        if let Some(refusal) = header("Nats-Service-Error") {
            return Err(refused(refusal.as_str()));
        }
        A::decode(reply.payload)
            .with_context(|| format!("the answer of {subject} is not one in protobuf"))
            .map_err(Missed::Unreadable)
    }

    /// In words: what is not answered, where, and what says where.
    pub(super) fn unanswered(&self, subject: &str, why: &str) -> String {
        let process = process(subject);
        format!(
            "{process} does not answer {subject} at NATS {}: {why}. Is it running, and connected to that \
             NATS? --nats or NATS_URL says which",
            self.url
        )
    }
}

/// `INVALID_ARGUMENT: name: is required`, as the services write it.
fn refused(text: &str) -> Missed {
    match text
        .split_once(": ")
        .map(|(name, message)| (code(name), message))
    {
        Some((Some(code), message)) => Missed::Refused {
            code,
            message: message.to_owned(),
        },
        _ => Missed::Unreadable(anyhow!("refused: {text}")),
    }
}
