//! Where there is no room for a new order, a repeat of a request that was granted is answered all the same: it asks
//! for nothing, and answers are lost just when there is no room.
//!
//! Danger: whoever is refused has to cost next to nothing, or the refusals take what is left for the others. So a
//! request without an id costs no look, and those with one are looked up together: by one statement at a time, and a
//! hundred a second at most, however many there are. Who gathers meanwhile is bounded in number and time (I12), and
//! beyond that refused as if it were new.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::failure;
use deadpool_postgres::Pool;
use mailbox::requests::{self, Found, Key};
use proto::orders::v1::CreateOrderResponse;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tonic::Status;
use uuid::Uuid;

use crate::domain::Order;
use crate::once;

/// In one statement.
const LOOK_MAX: usize = 256;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A look reads a few pages. Where it takes so long the database has enough to do.
const LOOK_TIME: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Waiting {
    request: Key,
    found: oneshot::Sender<Found>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    is_looked: bool,
}

/// Who was granted what. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Repeats {
    pool: Pool,
    queue: Arc<Mutex<Queue>>,
}

impl Repeats {
    pub(super) fn new(pool: Pool) -> Self {
        let queue = Arc::default();
        Self { pool, queue }
    }

    /// What the request was answered when it was granted before. `no_room` where it was not, and where that cannot be
    /// told soon. `INVALID_ARGUMENT` where another request had its id.
    pub(super) async fn answer(
        &self,
        request: Option<&Key>,
        no_room: Status,
    ) -> Result<CreateOrderResponse, Status> {
        let Some(found) = request.and_then(|request| self.join(request)) else {
            return Err(no_room);
        };
        let Ok(found) = found.await else {
            return Err(no_room);
        };
        once::answered(found)?.ok_or(no_room)
    }

    /// None where too many wait already.
    fn join(&self, request: &Key) -> Option<oneshot::Receiver<Found>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.len() >= LOOK_MAX {
            return None;
        }
        let (found, told) = oneshot::channel();
        let request = request.clone();
        queue.waiting.push(Waiting { request, found });
        if !std::mem::replace(&mut queue.is_looked, true) {
            tokio::spawn(self.clone().work());
        }
        Some(told)
    }

    /// Looks for those who wait, until nobody does.
    async fn work(self) {
        while let Some(group) = self.next() {
            // On a task of its own: a panic there ends that look alone.
            drop(tokio::spawn(timeout(LOOK_TIME, look(self.pool.clone(), group))).await);
            sleep(PAUSE).await;
        }
    }

    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = std::mem::take(&mut queue.waiting);
        group.retain(|waiting| !waiting.found.is_closed());
        queue.is_looked = !group.is_empty();
        queue.is_looked.then_some(group)
    }
}

/// Tells each what is known of its request; nobody anything where the database does not answer.
async fn look(pool: Pool, group: Vec<Waiting>) {
    let Ok(connection) = failure::connection(&pool).await else {
        return;
    };
    let keys: Vec<Key> = group.iter().map(|one| one.request.clone()).collect();
    let found = requests::find_all(&connection, &keys).await;
    connection.release();
    match found.map_err(failure::status) {
        Ok(found) => {
            for (waiting, found) in group.into_iter().zip(found) {
                // Whoever has left needs none.
                drop(waiting.found.send(found));
            }
        }
        // It is in the log.
        Err(_) => drop(group),
    }
}

/// Whether the answer is of this order, and not of the one that an earlier try placed.
pub(super) fn is_of(order: &Order, answer: &CreateOrderResponse) -> bool {
    let order_id = Uuid::from(order.order_id).to_string();
    let answered = answer.order.as_ref();
    answered.is_some_and(|answered| answered.order_id == order_id)
}
