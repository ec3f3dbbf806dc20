//! Requests with an id take effect once: from the field `request_id` to the first answer.

use std::time::Duration;

use chassis::{failure, invalid};
use deadpool_postgres::Client;
use mailbox::requests::{self, Found, Key};
use prost::Message;
use tokio_postgres::Transaction;
use tonic::Status;
use uuid::Uuid;

use crate::store;

const FIELD: &str = "request_id";

/// The request of an id, none where there is no id; `body` is the message without it.
pub fn request<M: Message>(
    id: &str,
    operation: &'static str,
    body: &M,
    kept: Duration,
) -> Result<Option<Key>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = Uuid::try_parse(id).ok().filter(|_| id.len() == 36);
    let id = id.ok_or_else(|| invalid::argument(FIELD, requests::Unusable::NotV7))?;
    Key::new(id, operation, body, store::now(), kept)
        .map(Some)
        .map_err(|why| invalid::argument(FIELD, why))
}

/// The first answer, if there was one.
pub fn answered<M: Message + Default>(found: Found) -> Result<Option<M>, Status> {
    match found {
        Found::Nothing => Ok(None),
        Found::Answer(bytes) => {
            let answer = M::decode(bytes.as_slice());
            let answer = answer.map_err(|error| failure::internal(&failure::chain(&error)))?;
            metrics::counter!("requests_repeated_total").increment(1);
            Ok(Some(answer))
        }
        Found::Other => Err(invalid::argument(
            FIELD,
            "was used for another request before; draw a new one for each",
        )),
    }
}

/// Records the answer. False when another transaction was first: roll back, and see [`in_its_stead`].
pub async fn record(
    tx: &Transaction<'_>,
    request: Option<&Key>,
    answer: &impl Message,
) -> Result<bool, Status> {
    match request {
        None => Ok(true),
        Some(request) => requests::record(tx, request, answer)
            .await
            .map_err(unrecorded),
    }
}

/// The status for an answer that could not be recorded.
pub fn unrecorded(error: tokio_postgres::Error) -> Status {
    match requests::Unusable::of(&error) {
        Some(why) => invalid::argument(FIELD, why),
        None => failure::status(error),
    }
}

/// What the transaction that was first has answered.
pub async fn in_its_stead<M: Message + Default>(
    client: &mut Client,
    request: Option<&Key>,
) -> Result<M, Status> {
    let tx = client.transaction().await.map_err(failure::status)?;
    let found = match request {
        Some(request) => requests::find(&tx, request).await,
        None => Ok(Found::Nothing),
    };
    let answer = answered(found.map_err(failure::status)?)?;
    answer.ok_or_else(|| Status::unavailable("the request was being executed: try again"))
}
