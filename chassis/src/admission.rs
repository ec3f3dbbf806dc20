//! What a request in progress may take: until when it has to be answered, and its place among those that
//! are handled at once. A handler finds it on its request, over gRPC and NATS alike.
//!
//! Danger: whoever gives the place up is counted no more. What it waits for needs a bound of its own (I12).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;
use tonic::Request;

/// For a request that came by no server of this chassis, as in a test.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);

/// Clones share the place; it is free when it was given up, or when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Admission {
    answer_by: Instant,
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Admission {
    pub(crate) fn new(deadline: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            answer_by: Instant::now() + deadline,
            place: Arc::new(Mutex::new(place)),
        }
    }

    /// The request's admission.
    pub fn of<T>(request: &Request<T>) -> Self {
        let found = request.extensions().get::<Self>().cloned();
        found.unwrap_or_else(|| Self::new(DEADLINE_DEFAULT, None))
    }

    /// When the server answers in the handler's stead, because the caller waits no longer, or nobody may.
    pub fn answer_by(&self) -> Instant {
        self.answer_by
    }

    /// Lets another request in. For one that is going to wait for long, and needs nothing meanwhile.
    pub fn give_up_place(&self) {
        let place = self.place.lock();
        drop(place.unwrap_or_else(PoisonError::into_inner).take());
    }
}
