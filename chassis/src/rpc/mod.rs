//! The same handlers as gRPC's over the NATS service API, so that `$SRV.PING`, `$SRV.INFO` and
//! `$SRV.STATS` answer. Protobuf or JSON by `Content-Type`; the reply is in the same type.

pub mod client;
mod codec;
mod endpoint;

use std::{collections::HashMap, fmt, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use async_nats::{Client, service::ServiceExt as _};
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status};

use self::codec::Codec;
use crate::{
    admission::Admission,
    auth::{Caller, Guard},
};

/// What requests in hand may take after the token. With [`FLUSH`] it is less than the process has by
/// default, so that its end answers them instead of cutting them off.
const DRAIN: Duration = Duration::from_secs(15);
/// What sending the last replies may take: while NATS is away they cannot be sent, and the other tasks
/// need the time.
const FLUSH: Duration = Duration::from_secs(3);

/// Takes a request's bytes and gives the reply's, in the same encoding.
type Handler =
    Arc<dyn Fn(Codec, Bytes, async_nats::HeaderMap, (Admission, Caller)) -> Handled + Send + Sync>;
type Handled = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

/// A NATS service and its operations: `{group}.{operation}` is the subject.
pub struct Api {
    name: &'static str,
    version: &'static str,
    description: String,
    group: &'static str,
    service: &'static str,
    operations: Vec<Operation>,
}

struct Operation {
    name: &'static str,
    metadata: HashMap<String, String>,
    handler: Handler,
}

impl Api {
    /// `name` may hold letters, digits, `-` and `_`; `version` is a semantic version; `group` is
    /// the prefix of the subjects, such as `orders.v1`; `service` is what gRPC calls the same
    /// operations' service, `orders.v1.OrderService`: who may call them is known by that name.
    pub fn new(
        name: &'static str,
        version: &'static str,
        description: &str,
        (group, service): (&'static str, &'static str),
    ) -> Self {
        Self {
            name,
            version,
            description: description.to_owned(),
            group,
            service,
            operations: Vec::new(),
        }
    }

    /// Adds an operation. Its `Request` has the message's headers, `traceparent` for one, as
    /// metadata, where they are valid there.
    pub fn operation<Req, Resp, F, Fut>(mut self, name: &'static str, handler: F) -> Self
    where
        Req: prost::Message + prost::Name + Default + DeserializeOwned,
        Resp: prost::Message + prost::Name + Serialize,
        F: Fn(Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Resp>, Status>> + Send,
    {
        let handler = Arc::new(handler);
        let call = move |codec: Codec,
                         payload: Bytes,
                         headers: async_nats::HeaderMap,
                         (admission, caller): (Admission, Caller)| {
            let handler = Arc::clone(&handler);
            async move {
                let mut request = Request::new(codec.decode::<Req>(payload)?);
                *request.metadata_mut() = codec::metadata(&headers);
                request.extensions_mut().insert(admission);
                request.extensions_mut().insert(caller);
                let response = handler(request).await?;
                codec.encode(&response.into_inner())
            }
            .boxed()
        };
        self.operations.push(Operation {
            name,
            metadata: HashMap::from([
                ("request".to_owned(), Req::full_name()),
                ("response".to_owned(), Resp::full_name()),
                ("content-types".to_owned(), codec::CONTENT_TYPES.to_owned()),
            ]),
            handler: Arc::new(call),
        });
        self
    }

    /// Serves until the token is cancelled, then finishes what was taken and flushes the replies, each
    /// within a bounded time. Who may call what goes by `guard`.
    pub async fn serve(
        self,
        client: Client,
        guard: Guard,
        token: CancellationToken,
    ) -> anyhow::Result<()> {
        let rule = |operation: &Operation| format!("{}/{}", self.service, operation.name);
        let rules: Vec<_> = self.operations.iter().map(rule).collect();
        guard.knows(rules.iter().map(String::as_str))?;
        let failed = |error: async_nats::Error| anyhow!("NATS service {}: {error}", self.name);
        let service = client
            .service_builder()
            .description(&self.description)
            .start(self.name, self.version)
            .await
            .map_err(failed)?;
        let group = service.group(self.group);
        let mut endpoints = JoinSet::new();
        let cut = CancellationToken::new();
        let _drain = AbortOnDropHandle::new(tokio::spawn({
            let (token, cut) = (token.clone(), cut.clone());
            async move {
                token.cancelled().await;
                sleep(DRAIN).await;
                cut.cancel();
            }
        }));
        for (operation, rule) in self.operations.into_iter().zip(rules) {
            let endpoint = group
                .endpoint_builder()
                .name(operation.name)
                .metadata(operation.metadata)
                .add(operation.name)
                .await
                .map_err(failed)?;
            let method = format!("{}.{}", self.group, operation.name).leak();
            let operation = endpoint::Operation {
                method,
                rule: rule.into(),
                guard: guard.clone(),
                handler: operation.handler,
                client: client.clone(),
                token: token.clone(),
                cut: cut.clone(),
            };
            endpoints.spawn(endpoint::serve(endpoint, operation));
        }
        tracing::info!(service = self.name, subjects = %format!("{}.*", self.group), "serving over NATS");
        while let Some(ended) = endpoints.join_next().await {
            ended.context("a NATS endpoint")??;
        }
        service
            .stop()
            .await
            .map_err(|error| anyhow!("NATS service {}: {error}", self.name))?;
        match timeout(FLUSH, client.flush()).await {
            Ok(flushed) => flushed.context("cannot flush the last replies to NATS"),
            Err(_) => {
                tracing::warn!(waited = ?FLUSH, "NATS does not take the last replies");
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: Vec<_> = self.operations.iter().map(|one| one.name).collect();
        f.debug_struct("Api")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("group", &self.group)
            .field("operations", &operations)
            .finish_non_exhaustive()
    }
}
