//! One group of orders, and its transaction.

use std::collections::HashSet;

use chassis::failure;
use deadpool_postgres::{Client, Pool};
use mailbox::{outbox, requests};
use prost::Message as _;
use proto::orders::v1::CreateOrderResponse;
use tonic::{Code, Status};
use uuid::Uuid;

use super::Waiting;
use crate::api::refused;
use crate::{once, store, wire};

/// Places all of `group`, and answers each. When nobody waits for an answer any more, the connection is freed of
/// what runs on it.
pub(super) async fn place(pool: Pool, group: Vec<Waiting>) {
    metrics::histogram!(super::TOGETHER).record(group.len() as f64);
    let left: Vec<_> = group.iter().map(|waiting| waiting.left.clone()).collect();
    let all_left = async {
        for left in left {
            left.cancelled().await;
        }
    };
    tokio::select! {
        biased;
        () = within(&pool, group) => {}
        () = all_left => {}
    }
}

async fn within(pool: &Pool, group: Vec<Waiting>) {
    // Not refused because others wait: it stands for many, who have waited already.
    let mut connection = match failure::own_connection(pool).await {
        Ok(connection) => connection,
        Err(status) => return answer_all(group, &status),
    };
    let mut groups = vec![group];
    while let Some(mut group) = groups.pop() {
        match write(&mut connection, &group).await {
            Ok(Outcome::Placed(answers)) => {
                metrics::counter!("orders_created_total").increment(group.len() as u64);
                for (waiting, answer) in group.into_iter().zip(answers) {
                    waiting.answer(Ok(answer));
                }
            }
            Ok(Outcome::Repeats(first)) => {
                let is_first = |waiting: &mut Waiting| {
                    let request = waiting.request.as_ref();
                    request.is_none_or(|request| first.contains(&request.id()))
                };
                let others = group.extract_if(.., is_first).collect::<Vec<_>>();
                for repeat in group {
                    let request = repeat.request.as_ref();
                    let answer = once::in_its_stead(&mut connection, request).await;
                    repeat.answer(answer);
                }
                if !others.is_empty() {
                    groups.push(others);
                }
            }
            // One of them cannot be placed, and nobody knows which: each by itself.
            Err(status) if group.len() > 1 && status.code() != Code::Unavailable => {
                groups.extend(group.into_iter().rev().map(|waiting| vec![waiting]));
            }
            Err(status) => answer_all(group, &status),
        }
    }
    connection.release();
}

fn answer_all(group: Vec<Waiting>, status: &Status) {
    for waiting in group {
        waiting.answer(Err(status.clone()));
    }
}

enum Outcome {
    /// Committed, with an answer for each.
    Placed(Vec<CreateOrderResponse>),
    /// Rolled back: of the requests these alone were not granted before.
    Repeats(HashSet<Uuid>),
}

/// One transaction: three statements, whatever the count.
async fn write(client: &mut Client, group: &[Waiting]) -> Result<Outcome, Status> {
    let answer = |waiting: &Waiting| CreateOrderResponse {
        order: Some(wire::order(&waiting.order)),
    };
    let answers: Vec<_> = group.iter().map(answer).collect();
    let requests: Vec<_> = group
        .iter()
        .zip(&answers)
        .filter_map(|(waiting, answer)| Some((waiting.request.as_ref()?, answer.encode_to_vec())))
        .collect();
    let orders = group.iter().map(|waiting| &waiting.order);
    let events: Vec<_> = group.iter().map(|waiting| &waiting.event).collect();
    let tx = client.transaction().await.map_err(failure::status)?;
    // Sent together: one round trip for all. The first error counts, because what follows it fails
    // only for being in the same transaction.
    let (recorded, inserted, appended) = tokio::join!(
        requests::record_all(&tx, &requests),
        store::insert(&tx, orders),
        outbox::append(&tx, events)
    );
    let recorded = recorded.map_err(once::unrecorded)?;
    if recorded.len() < requests.len() {
        tx.rollback().await.map_err(failure::status)?;
        return Ok(Outcome::Repeats(recorded));
    }
    inserted.map_err(refused)?;
    appended.map_err(failure::status)?;
    tx.commit().await.map_err(failure::commit_status)?;
    Ok(Outcome::Placed(answers))
}
