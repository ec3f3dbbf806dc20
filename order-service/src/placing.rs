//! New orders, placed together: those that wait when a connection is at hand commit in one transaction, each
//! with its event and the answer to its request (I1). An order that comes alone waits for no other.
//!
//! ```text
//! CreateOrder ─┐
//! CreateOrder ─┼─► waiting ─► group: BEGIN · requests · orders · outbox · COMMIT ─► each its answer
//! CreateOrder ─┘
//! ```
//!
//! A synced commit costs the same for one order and for fifty, and what commits together travels together:
//! the relay appends it as one batch, and the Customer Service answers it in one transaction. So a group that found
//! company holds up the next for a moment ([`Coalescing`]).
//!
//! A group belongs to none of its callers: one that leaves takes nothing from the others. How many wait is
//! bounded by how many requests are handled at once (I12).
//!
//! Danger: who waits longest is served next, and so who is about to leave. Were the wait as long as callers'
//! deadlines, each would be placed for nobody, and none for those who still wait. So it is bounded in time too: where
//! the first has waited for too long, nobody else joins.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use mailbox::coalescing::Coalescing;
use mailbox::outbox;
use mailbox::requests::Key;
use proto::orders::v1::CreateOrderResponse;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::domain::Order;

mod group;

/// While one group is being synced, the next is written. More of them would only be smaller.
const GROUPS_AT_ONCE: usize = 2;

/// One transaction's locks and memory are bounded; beyond this nothing is gained.
const GROUP_MAX: usize = 128;

/// Behind one that has waited for so long nobody queues up. Deadlines are longer, and at the rate at which orders are
/// placed on a machine that is not at its end all places in the queue are a shorter wait.
const WAIT_MAX: Duration = Duration::from_millis(500);

const TOGETHER: &str = "orders_placed_together";

const BUSY: &str = "too many orders wait to be placed: nothing was done; try again later";

const UNKNOWN_OUTCOME: &str =
    "placing the order was broken off: look whether it was placed before trying again";

/// An order to place.
#[derive(Debug)]
struct Waiting {
    order: Order,
    event: outbox::Event,
    request: Option<Key>,
    since: Instant,
    /// Cancelled when its caller waits no longer.
    left: CancellationToken,
    reply: oneshot::Sender<Result<CreateOrderResponse, Status>>,
}

impl Waiting {
    fn answer(self, answer: Result<CreateOrderResponse, Status>) {
        // Whoever has left needs none.
        drop(self.reply.send(answer));
    }
}

/// An order in the queue. Dropped, it is left out if it still waits.
#[derive(Debug)]
pub(crate) struct Queued {
    answer: oneshot::Receiver<Result<CreateOrderResponse, Status>>,
    _left: DropGuard,
}

impl Queued {
    /// The order as it was placed. When its request was granted before, the answer of then, and nothing is stored.
    pub(crate) async fn answer(self) -> Result<CreateOrderResponse, Status> {
        let broken_off = |_| Err(Status::unavailable(UNKNOWN_OUTCOME));
        self.answer.await.unwrap_or_else(broken_off)
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    groups: usize,
    pace: Coalescing,
}

/// What one who sees to the queue does next.
enum Next {
    Place(Vec<Waiting>),
    Rest(Coalescing),
    /// Nothing: one less is at work.
    End,
}

/// Where orders wait until they are placed. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct Placing {
    pool: Pool,
    queue: Arc<Mutex<Queue>>,
}

impl Placing {
    pub(crate) fn new(pool: Pool) -> Self {
        metrics::describe_histogram!(
            TOGETHER,
            metrics::Unit::Count,
            "Orders that were placed in one transaction"
        );
        let queue = Arc::default();
        Self { pool, queue }
    }

    /// Lets a new order wait to be stored together with its event, or neither (I1). `UNAVAILABLE` where the queue
    /// stands: nothing was done.
    pub(crate) fn queue(
        &self,
        order: &Order,
        event: outbox::Event,
        request: Option<&Key>,
    ) -> Result<Queued, Status> {
        let (reply, answer) = oneshot::channel();
        let left = CancellationToken::new();
        let waiting = Waiting {
            order: *order,
            event,
            request: request.cloned(),
            since: Instant::now(),
            left: left.clone(),
            reply,
        };
        let _left = left.drop_guard();
        if self.join(waiting)? {
            tokio::spawn(self.clone().work());
        }
        Ok(Queued { answer, _left })
    }

    /// Queues up. True when somebody has to see to the queue; `UNAVAILABLE` where it stands.
    fn join(&self, waiting: Waiting) -> Result<bool, Status> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let first = queue.waiting.front();
        if first.is_some_and(|first| first.since.elapsed() > WAIT_MAX) {
            return Err(Status::unavailable(BUSY));
        }
        queue.waiting.push_back(waiting);
        let is_short_of_hands = queue.groups < GROUPS_AT_ONCE;
        queue.groups += usize::from(is_short_of_hands);
        Ok(is_short_of_hands)
    }

    /// Places what waits, until nothing does.
    async fn work(self) {
        loop {
            match self.next() {
                // On a task of its own: a panic there ends that group alone.
                Next::Place(group) => {
                    drop(tokio::spawn(group::place(self.pool.clone(), group)).await);
                }
                Next::Rest(pace) => pace.rest().await,
                Next::End => return,
            }
        }
    }

    fn next(&self) -> Next {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.waiting.is_empty() && queue.pace.is_resting() {
            return Next::Rest(queue.pace);
        }
        let group = take(&mut queue.waiting);
        if group.is_empty() {
            queue.groups -= 1;
            return Next::End;
        }
        queue.pace.begin(group.len(), GROUP_MAX);
        Next::Place(group)
    }
}

/// Takes those whose callers are still there, each request once: its repeat comes with a later group, and finds
/// the answer.
fn take(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut group, mut requests, mut later) = (Vec::new(), HashSet::new(), Vec::new());
    while group.len() < GROUP_MAX
        && let Some(next) = waiting.pop_front()
    {
        let id = next.request.as_ref().map(Key::id);
        if next.left.is_cancelled() {
            continue;
        }
        if id.is_some_and(|id| !requests.insert(id)) {
            later.push(next);
        } else {
            group.push(next);
        }
    }
    for next in later.into_iter().rev() {
        waiting.push_front(next);
    }
    group
}
