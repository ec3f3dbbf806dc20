//! Requests over NATS, in protobuf.

use std::time::Duration;

use anyhow::Result;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind};
use chassis::config::Secret;
use prost::Message;
use tonic::{Code, Status};

use super::code;
use crate::cli::Connection;

/// A connection that restores itself.
#[derive(Debug)]
pub(crate) struct Nats {
    client: Client,
    authorization: Option<Secret>,
}

impl Nats {
    pub(super) async fn connect(connection: &Connection, within: Duration) -> Result<Self> {
        let client = chassis::nats::connect_within(&connection.nats, "loadgen", within).await?;
        let authorization = connection.caller.authorization()?;
        Ok(Self {
            client,
            authorization,
        })
    }

    pub(super) async fn ask<Q, A>(
        &self,
        subject: &'static str,
        request: &Q,
        within: Duration,
    ) -> Result<A, Status>
    where
        Q: Message,
        A: Message + Default,
    {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/protobuf");
        if let Some(header) = &self.authorization {
            headers.insert("Authorization", header.expose());
        }
        let request = Request::new()
            .headers(headers)
            .payload(request.encode_to_vec().into())
            .timeout(Some(within));
        let reply = match self.client.send_request(subject, request).await {
            Ok(reply) => reply,
            Err(error) => {
                return Err(match error.kind() {
                    RequestErrorKind::NoResponders => Status::unavailable("nobody serves it"),
                    RequestErrorKind::TimedOut => Status::deadline_exceeded("no answer in time"),
                    _ => Status::unknown(error.to_string()),
                });
            }
        };
        let header = |name| reply.headers.as_ref().and_then(|all| all.get(name));
        if let Some(refusal) = header("Nats-Service-Error") {
            return Err(refused(refusal.as_str()));
        }
        A::decode(reply.payload).map_err(|error| Status::internal(error.to_string()))
    }
}

/// `INVALID_ARGUMENT: name: is required`, as the services write it.
fn refused(text: &str) -> Status {
    let (name, message) = text.split_once(": ").unwrap_or((text, ""));
    match code(name) {
        Some(code) => Status::new(code, message),
        None => Status::new(Code::Unknown, text),
    }
}
