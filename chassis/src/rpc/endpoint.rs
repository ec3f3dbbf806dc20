//! One endpoint's loop: take a request, handle it beside the others, reply.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::{
    HeaderMap,
    service::{Request, endpoint::Endpoint, error::Error},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{Instrument as _, Span};

use super::{
    Handler,
    codec::{CONTENT_TYPE, CONTENT_TYPES, Codec},
};
use crate::{request, trace};

/// Requests that one endpoint handles at once (I12); the next wait in its subscription.
const IN_FLIGHT_MAX: usize = 256;
/// What a handler may take. A NATS request tells no deadline of its own.
const DEADLINE: Duration = Duration::from_secs(30);

/// Of an error's text, in its header.
const ERROR_CHARS_MAX: usize = 1024;

/// Until the token is cancelled; then what the subscription holds is still handled.
pub(super) async fn serve(
    mut endpoint: Endpoint,
    method: &'static str,
    handler: Handler,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut handling = JoinSet::new();
    let mut stopped = false;
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let request = tokio::select! {
            biased;
            () = token.cancelled(), if !stopped => {
                endpoint.stop().await.with_context(|| format!("cannot stop {method}"))?;
                stopped = true;
                continue;
            }
            request = endpoint.next() => request,
        };
        let Some(request) = request else {
            break;
        };
        while handling.try_join_next().is_some() {}
        let handler = Arc::clone(&handler);
        handling.spawn(async move {
            handle(&request, method, &handler).await;
            drop(place);
        });
    }
    while handling.join_next().await.is_some() {}
    if !token.is_cancelled() {
        bail!("the subscription of {method} ended: the NATS client was closed");
    }
    Ok(())
}

async fn handle(message: &Request, method: &'static str, handler: &Handler) {
    let headers = message.message.headers.as_ref();
    let span = tracing::info_span!("nats", otel.name = method, otel.kind = "server", method);
    trace::continue_from_nats(&span, headers);
    let mut request = request::Request::started("nats", method);

    let codec = Codec::of(headers);
    let result = match &codec {
        Ok(codec) => call(*codec, message, handler, &span).await,
        Err(unknown) => Err(Status::invalid_argument(format!(
            "content-type: {unknown:?} is not one of {CONTENT_TYPES}"
        ))),
    };
    let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
    request.finish(code);
    let _entered = span.enter();
    if let Err(status) = &result {
        log(status);
    }
    drop(_entered);
    let mut headers = HeaderMap::new();
    let reply = match (codec, result) {
        (Ok(codec), Ok(reply)) => {
            headers.insert(CONTENT_TYPE, codec.content_type());
            Ok(reply)
        }
        (Ok(_), Err(status)) => Err(error(&status, request::http_status(code))),
        (Err(_), Err(status)) => Err(error(&status, UNSUPPORTED_MEDIA_TYPE)),
        (Err(_), Ok(_)) => unreachable!("without a codec nothing was called"),
    };
    // Who published to the subject without asking for a reply gets none.
    if message.message.reply.is_some()
        && let Err(error) = message
            .respond_with_headers(reply, headers)
            .instrument(span)
            .await
    {
        tracing::warn!(method, %error, "a reply was not sent");
    }
}

const UNSUPPORTED_MEDIA_TYPE: usize = 415;

async fn call(
    codec: Codec,
    message: &Request,
    handler: &Handler,
    span: &Span,
) -> Result<Bytes, Status> {
    let headers = message.message.headers.clone().unwrap_or_default();
    let payload = message.message.payload.clone();
    // The handler runs within the closure too, so that a panic before its first await is caught.
    let handled = AssertUnwindSafe(async { handler(codec, payload, headers).await }).catch_unwind();
    match timeout(DEADLINE, handled).instrument(span.clone()).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err(Status::internal("the server failed")),
        Err(_) => Err(Status::deadline_exceeded("the deadline passed")),
    }
}

fn log(status: &Status) {
    let code = request::name(status.code());
    if request::is_our_fault(status.code()) {
        tracing::error!(code, message = status.message(), "request failed");
    } else {
        tracing::debug!(code, message = status.message(), "request refused");
    }
}

/// `{CODE}: {message}` on one line, because a header can hold no more and async-nats panics on
/// it; and not for ever, because a reason may quote what the caller sent.
fn error(status: &Status, http_status: usize) -> Error {
    let text = format!("{}: {}", request::name(status.code()), status.message());
    Error {
        status: text
            .chars()
            .take(ERROR_CHARS_MAX)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        code: http_status,
    }
}
