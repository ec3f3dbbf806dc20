//! One endpoint's loop: take a request, handle it beside the others, reply; refuse it where there are too many.
//!
//! Danger: a request tells no deadline. What waited in the subscription would be carried out when its caller has
//! long given up, and under too many requests no caller would get an answer: so none waits there.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::{
    Client, HeaderMap, HeaderValue,
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
use crate::{admission::Admission, auth::Guard, request, trace};

/// Requests that one endpoint handles at once (I12), but for those that have given up their place. More are
/// refused with `UNAVAILABLE`, as over gRPC.
const IN_FLIGHT_MAX: usize = 1024;
/// What a handler may take. A NATS request tells no deadline of its own.
const DEADLINE: Duration = Duration::from_secs(30);

/// What sending a reply, or ending a subscription, may take. Both only hand a command to the client,
/// which takes none while its buffer is full: NATS has been away for long.
const HAND_OVER: Duration = Duration::from_secs(5);
/// Room for a reply's headers, which count as payload: the `Content-Type` and the frame around it.
const HEADERS_BYTES: usize = 64;

/// Where a request's token is.
const AUTHORIZATION: &str = "Authorization";

/// Of an error's text, in its header.
const ERROR_CHARS_MAX: usize = 1024;

/// What an endpoint serves, and until when.
#[derive(Clone)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// What it is called in the table of who may call what.
    pub(super) rule: Arc<str>,
    pub(super) guard: Guard,
    pub(super) handler: Handler,
    pub(super) client: Client,
    /// Cancelled when no new requests are to be taken.
    pub(super) token: CancellationToken,
    /// Cancelled when those that were taken have had their time.
    pub(super) cut: CancellationToken,
}

/// Until the token is cancelled; then what the subscription holds is still handled.
pub(super) async fn serve(mut endpoint: Endpoint, operation: Operation) -> anyhow::Result<()> {
    let (method, token) = (operation.method, operation.token.clone());
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut handling = JoinSet::new();
    let mut stopped = false;
    loop {
        let next = tokio::select! {
            biased;
            () = token.cancelled(), if !stopped => None,
            request = endpoint.next() => Some(request),
        };
        let Some(request) = next else {
            match timeout(HAND_OVER, endpoint.stop()).await {
                Ok(ended) => ended.with_context(|| format!("cannot stop {method}"))?,
                Err(_) => break,
            }
            stopped = true;
            continue;
        };
        let Some(request) = request else {
            break;
        };
        while handling.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            refuse(&request, method).await;
            continue;
        };
        let operation = operation.clone();
        handling.spawn(async move {
            let admission = Admission::new(DEADLINE, Some(place));
            handle(&request, &operation, admission).await;
        });
    }
    while handling.join_next().await.is_some() {}
    if !token.is_cancelled() {
        bail!("the subscription of {method} ended: the NATS client was closed");
    }
    Ok(())
}

/// Refuses a request for which there is no place.
async fn refuse(message: &Request, method: &'static str) {
    let mut request = request::Request::started("nats", method);
    let status = Status::unavailable(format!(
        "{IN_FLIGHT_MAX} requests are in progress already; try again later"
    ));
    log(&status);
    let refusal = Err(error(&status, request::http_status(status.code())));
    reply(message, refusal, HeaderMap::new(), method).await;
    request.finish(status.code());
}

async fn handle(message: &Request, operation: &Operation, admission: Admission) {
    let method = operation.method;
    let headers = message.message.headers.as_ref();
    let span = tracing::info_span!("nats", otel.name = method, otel.kind = "server", method);
    trace::continue_from_nats(&span, headers);
    let mut request = request::Request::started("nats", method);

    let codec = Codec::of(headers);
    let result = match &codec {
        Ok(codec) => call(*codec, message, operation, admission.clone(), &span)
            .await
            .and_then(|reply| fitting(reply, operation.client.max_payload())),
        Err(unknown) => Err(Status::invalid_argument(format!(
            "content-type: {unknown:?} is not one of {CONTENT_TYPES}"
        ))),
    };
    let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
    if let Err(status) = &result {
        span.in_scope(|| log(status));
    }
    let mut headers = HeaderMap::new();
    let answer = match (codec, result) {
        (Ok(codec), Ok(reply)) => {
            headers.insert(CONTENT_TYPE, codec.content_type());
            Ok(reply)
        }
        (Ok(_), Err(status)) => Err(error(&status, request::http_status(code))),
        (Err(_), Err(status)) => Err(error(&status, UNSUPPORTED_MEDIA_TYPE)),
        (Err(_), Ok(_)) => unreachable!("without a codec nothing was called"),
    };
    reply(message, answer, headers, method)
        .instrument(span)
        .await;
    request.finish(code);
}

/// Who published to the subject without asking for a reply gets none.
async fn reply(
    message: &Request,
    answer: Result<Bytes, Error>,
    headers: HeaderMap,
    method: &'static str,
) {
    if message.message.reply.is_none() {
        return;
    }
    let sending = message.respond_with_headers(answer, headers);
    match timeout(HAND_OVER, sending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(method, %error, "a reply was not sent"),
        Err(_) => tracing::warn!(method, waited = ?HAND_OVER, "a reply was not sent"),
    }
}

/// The reply, if NATS carries it: one that is too large would not be sent at all.
fn fitting(reply: Bytes, max_payload: usize) -> Result<Bytes, Status> {
    let max = max_payload.saturating_sub(HEADERS_BYTES);
    if reply.len() <= max {
        return Ok(reply);
    }
    Err(Status::resource_exhausted(format!(
        "the reply has {} bytes, and NATS carries {max} here: ask for less, by a smaller page_size if \
         it is a list",
        reply.len()
    )))
}

const UNSUPPORTED_MEDIA_TYPE: usize = 415;

async fn call(
    codec: Codec,
    message: &Request,
    operation: &Operation,
    admission: Admission,
    span: &Span,
) -> Result<Bytes, Status> {
    let handler = &operation.handler;
    let mut headers = message.message.headers.clone().unwrap_or_default();
    let payload = message.message.payload.clone();
    // The handler runs within the closure too, so that a panic before its first await is caught.
    // Who calls is asked before the payload is read.
    let handled = AssertUnwindSafe(async {
        let given = authorization(&mut headers);
        let given = given.iter().map(HeaderValue::as_str).map(str::as_bytes);
        let caller = operation.guard.admit(&operation.rule, given.collect());
        let caller = (admission, caller.await?);
        handler(codec, payload, headers, caller).await
    })
    .catch_unwind();
    let in_time = timeout(DEADLINE, handled).instrument(span.clone());
    match operation.cut.run_until_cancelled(in_time).await {
        Some(Ok(Ok(result))) => result,
        Some(Ok(Err(_panic))) => Err(Status::internal("the server failed")),
        Some(Err(_)) => Err(Status::deadline_exceeded("the deadline passed")),
        None => Err(Status::unavailable(
            "the service is ending: whether the request was carried out is not known",
        )),
    }
}

/// Takes these headers away, so that nothing behind sees the token. NATS tells capital letters apart in names,
/// and HTTP does not.
fn authorization(headers: &mut HeaderMap) -> Vec<HeaderValue> {
    let mut given = Vec::new();
    let mut others = HeaderMap::new();
    for (name, values) in headers.iter() {
        if AsRef::<str>::as_ref(name).eq_ignore_ascii_case(AUTHORIZATION) {
            given.extend(values.iter().cloned());
            continue;
        }
        for value in values {
            others.append(name.clone(), value.clone());
        }
    }
    *headers = others;
    given
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
