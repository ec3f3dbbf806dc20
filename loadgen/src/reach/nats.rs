//! Requests over NATS, in protobuf.

use std::time::Duration;

use anyhow::Result;
use async_nats::{Client, RequestErrorKind};
use chassis::config::Secret;
use chassis::rpc::client::{refusal, request as put};
use prost::Message;
use tonic::Status;

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
        let request = put(request, self.authorization.as_ref(), within);
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
        if let Some(refusal) = refusal(&reply) {
            return Err(refusal);
        }
        A::decode(reply.payload).map_err(|error| Status::internal(error.to_string()))
    }
}
