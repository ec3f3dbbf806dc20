//! Requests over NATS.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_nats::{Client, RequestErrorKind};
use chassis::config::Secret;
use chassis::rpc::client::{refusal, request as put};
use prost::Message;
use tonic::{Code, Status};

use super::{Missed, process};
use crate::cli::Connection;
use crate::failure::Failure;

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
        let within = within.saturating_sub(MARGIN);
        let request = put(request, self.authorization.as_ref(), within);
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
        if let Some(refusal) = refusal(&reply) {
            return Err(refused(&refusal));
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

/// Another service than ours, perhaps, has refused in words of its own.
fn refused(refusal: &Status) -> Missed {
    let (code, message) = (refusal.code(), refusal.message().to_owned());
    match code {
        Code::Unknown => Missed::Unreadable(anyhow!("refused: {message}")),
        _ => Missed::Refused { code, message },
    }
}
