//! What every gRPC request gets: a span that continues the caller's trace, a place among the
//! bounded number in progress, a deadline, a handler whose panic is an answer, and metrics.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use futures_util::FutureExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{Code, Status};
use tracing::{Instrument as _, Span};

use super::{descriptors::Descriptors, observed_body::ObservedBody, prompt_body::PromptBody};
use crate::{admission::Admission, auth::Guard, invalid, request, trace};

/// Requests in progress at once, open server streams included (I12), but for those that have given up
/// their place. More are refused with `UNAVAILABLE`, which clients retry elsewhere or later.
const IN_FLIGHT_MAX: usize = 1024;
/// What a handler may take before it answers, whatever its caller allows.
const DEADLINE_MAX: Duration = Duration::from_secs(30);
/// We answer this much before the caller's deadline: tonic has a timer for it too, whose answer
/// (`CANCELLED`) is not what the specification asks for.
const DEADLINE_MARGIN: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(super) struct Observer {
    methods: Arc<HashMap<String, &'static str>>,
    in_flight: Arc<Semaphore>,
    guard: Guard,
}

impl Observer {
    pub(super) fn new(known: &Descriptors, guard: Guard) -> Self {
        Self {
            methods: Arc::new(known.methods()),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            guard,
        }
    }

    /// `Err` when there are too many already. Health and reflection are served regardless: an
    /// orchestrator must not take a busy process for a dead one.
    fn admit(&self, path: &str) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if is_of_grpc(path) {
            return Ok(None);
        }
        match self.in_flight.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => Err(Status::unavailable(format!(
                "{IN_FLIGHT_MAX} requests are in progress already; try again later"
            ))),
        }
    }
}

/// Health and reflection.
fn is_of_grpc(path: &str) -> bool {
    path.starts_with("/grpc.")
}

/// An axum middleware around all routes.
pub(super) async fn observe(
    State(observer): State<Observer>,
    mut call: Request,
    next: Next,
) -> Response {
    let path = call.uri().path();
    let method = observer.methods.get(path).copied().unwrap_or("unknown");
    let span = tracing::info_span!("grpc", otel.name = method, otel.kind = "server", method);
    trace::continue_from_http(&span, call.headers());

    let request = request::Request::started("grpc", method);
    let permit = match observer.admit(path) {
        Ok(permit) => permit,
        Err(refusal) => return answered(refusal.into_http(), request, None, span),
    };
    let deadline = deadline(call.headers());
    let admission = Admission::new(deadline, permit);
    call.extensions_mut().insert(admission.clone());
    let handled = AssertUnwindSafe(handle(&observer.guard, call, next)).catch_unwind();
    let response = match timeout(deadline, handled).instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => Status::internal("the server failed").into_http(),
        Err(_) => Status::deadline_exceeded("the deadline passed").into_http(),
    };
    answered(response, request, Some(admission), span)
}

/// Lets in who may call. Nothing behind it sees the token.
async fn handle(guard: &Guard, mut call: Request, next: Next) -> Response {
    let given = call.headers().get_all(AUTHORIZATION).iter();
    let given = given.map(|value| value.as_bytes()).collect();
    let path = call.uri().path();
    if !is_of_grpc(path) {
        match guard.admit(path.trim_start_matches('/'), given).await {
            Ok(caller) => call.extensions_mut().insert(caller),
            Err(refusal) => return refusal.into_http(),
        };
        // Of ours, none takes a stream of requests.
        call = call.map(|body| Body::new(PromptBody::new(body)));
    }
    call.headers_mut().remove(AUTHORIZATION);
    next.run(call).await
}

/// A refusal is finished with its headers, a success with its trailers.
fn answered(
    response: Response,
    mut request: request::Request,
    admission: Option<Admission>,
    span: Span,
) -> Response {
    if let Some(status) = Status::from_header_map(response.headers()) {
        let unreadable = unreadable(&status);
        span.in_scope(|| finish(&mut request, unreadable.as_ref().unwrap_or(&status)));
        return unreadable.map_or(response, Status::into_http);
    }
    response.map(|body| Body::new(ObservedBody::new(body, request, admission, span)))
}

/// What prost begins with when bytes are not the message that they should be.
const UNREADABLE: &str = "failed to decode Protobuf message: ";

/// tonic answers `INTERNAL` to bytes that are not the request's message. But it is the caller's
/// mistake, which must not look like ours in logs and alerts, and NATS requests get this refusal.
fn unreadable(status: &Status) -> Option<Status> {
    let is_unreadable = status.code() == Code::Internal && status.message().starts_with(UNREADABLE);
    is_unreadable.then(|| invalid::argument("body", status.message()))
}

pub(super) fn finish(request: &mut request::Request, status: &Status) {
    request.finish(status.code());
    let code = request::name(status.code());
    if request::is_our_fault(status.code()) {
        tracing::error!(code, message = status.message(), "request failed");
    } else if status.code() != Code::Ok {
        tracing::debug!(code, message = status.message(), "request refused");
    }
}

fn deadline(headers: &HeaderMap) -> Duration {
    let asked = headers
        .get("grpc-timeout")
        .and_then(|value| parse_timeout(value.to_str().ok()?));
    match asked {
        Some(asked) => asked
            .saturating_sub(DEADLINE_MARGIN.min(asked / 2))
            .min(DEADLINE_MAX),
        None => DEADLINE_MAX,
    }
}

/// At most eight digits and a unit, after gRPC over HTTP/2.
fn parse_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_says() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            parse_timeout("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(parse_timeout("3S"), Some(Duration::from_secs(3)));
        for malformed in ["", "m", "3", "3x", "-3S", "+3S", "123456789S", "3 S", "3é"] {
            assert_eq!(parse_timeout(malformed), None, "{malformed:?}");
        }
    }
}
