//! Where there is no room for a new order, a repeat of a request that was granted is answered all the same: it asks
//! for nothing, and answers are lost just when there is no room.
//!
//! Danger: whoever is refused has to cost next to nothing, or the refusals take what is left for the others. So a
//! request without an id costs no look, and of those with one few are looked up at once (I12); who comes beside them
//! is refused as if it were new, and may come again.

use chassis::failure;
use deadpool_postgres::Pool;
use mailbox::requests::Key;
use proto::orders::v1::CreateOrderResponse;
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::domain::Order;
use crate::once;

/// A small part of the pool (`DATABASE_POOL_SIZE`), and some thousand looks a second.
const LOOKS_AT_ONCE: usize = 2;

/// Who was granted what.
#[derive(Debug)]
pub(super) struct Repeats {
    pool: Pool,
    looks: Semaphore,
}

impl Repeats {
    pub(super) fn new(pool: Pool) -> Self {
        let looks = Semaphore::new(LOOKS_AT_ONCE);
        Self { pool, looks }
    }

    /// What the request was answered when it was granted before. `no_room` where it was not, and where that cannot be
    /// told at once. `INVALID_ARGUMENT` where another request had its id.
    pub(super) async fn answer(
        &self,
        request: Option<&Key>,
        no_room: Status,
    ) -> Result<CreateOrderResponse, Status> {
        let Some(request) = request else {
            return Err(no_room);
        };
        let Ok(_look) = self.looks.try_acquire() else {
            return Err(no_room);
        };
        match self.first_answer(request).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(no_room),
            Err(status) if status.code() == Code::Unavailable => Err(no_room),
            Err(status) => Err(status),
        }
    }

    async fn first_answer(&self, request: &Key) -> Result<Option<CreateOrderResponse>, Status> {
        let connection = failure::connection(&self.pool).await?;
        let found = once::answered(&***connection, request).await;
        connection.release();
        found
    }
}

/// Whether the answer is of this order, and not of the one that an earlier try placed.
pub(super) fn is_of(order: &Order, answer: &CreateOrderResponse) -> bool {
    let order_id = Uuid::from(order.order_id).to_string();
    let answered = answer.order.as_ref();
    answered.is_some_and(|answered| answered.order_id == order_id)
}
