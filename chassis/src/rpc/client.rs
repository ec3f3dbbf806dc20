//! The other end of requests over NATS: how one is put, in protobuf, and how a refusal is read.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Request};
use tonic::{Code, Status};

use crate::{code, config::Secret};

/// A request that is given up after `within`; `authorization` is the whole value of the header.
pub fn request(
    message: &impl prost::Message,
    authorization: Option<&Secret>,
    within: Duration,
) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/protobuf");
    if let Some(value) = authorization {
        headers.insert("Authorization", value.expose());
    }
    Request::new()
        .headers(headers)
        .payload(message.encode_to_vec().into())
        .timeout(Some(within))
}

/// The service's refusal, if the reply is one: `INVALID_ARGUMENT: name: is required`, as our services write it.
/// What names no code, as another's may, is `UNKNOWN` with the whole text.
pub fn refusal(reply: &Message) -> Option<Status> {
    let headers = reply.headers.as_ref()?;
    let text = headers.get("Nats-Service-Error")?.as_str();
    let told = text.split_once(": ");
    let told = told.and_then(|(name, message)| Some((code::named(name)?, message)));
    let (code, message) = told.unwrap_or((Code::Unknown, text));
    Some(Status::new(code, message))
}
