//! A response's body that finishes its request: the status of a success, and of a stream that
//! fails half-way, stands in the trailers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tracing::Span;

use super::observe::finish;
use crate::{admission::Admission, request::Request};

/// Dropped before its trailers, it counts the request as cancelled.
pub(super) struct ObservedBody {
    body: Body,
    request: Request,
    /// Held as long as the stream is open, so that open streams are bounded.
    _admission: Option<Admission>,
    span: Span,
}

impl ObservedBody {
    pub(super) fn new(
        body: Body,
        request: Request,
        admission: Option<Admission>,
        span: Span,
    ) -> Self {
        Self {
            body,
            request,
            _admission: admission,
            span,
        }
    }
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let trailers = match &frame {
            Some(Ok(frame)) => frame.trailers_ref(),
            _ => None,
        };
        if let Some(status) = trailers.and_then(Status::from_header_map) {
            finish(&mut this.request, &status);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
