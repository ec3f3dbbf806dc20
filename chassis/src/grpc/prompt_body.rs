//! A request's body that has to be there soon. Its request has a place already: who sends slowly would keep
//! others out for next to nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// From the headers to the last byte; a message is small (`MESSAGE_SIZE_MAX`), and its sender has it.
const BODY_MAX: Duration = Duration::from_secs(5);

pub(super) struct PromptBody {
    body: Body,
    until: Pin<Box<Sleep>>,
}

impl PromptBody {
    pub(super) fn new(body: Body) -> Self {
        let until = Box::pin(sleep(BODY_MAX));
        Self { body, until }
    }
}

impl HttpBody for PromptBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        this.until.as_mut().poll(context).map(|()| {
            let within = BODY_MAX.as_secs();
            let why = format!("the request was not sent within {within} s: it holds a place");
            Some(Err(axum::Error::new(Status::deadline_exceeded(why))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
