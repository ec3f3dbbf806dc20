//! Orders that come at once are placed together, and none depends on another.

use std::task::Poll;
use std::time::{Duration, Instant};

use chassis::auth::Caller;
use deadpool_postgres::Pool;
use futures_util::future::join_all;
use futures_util::poll;
use harness::eventually;
use mailbox::coalescing::STEP_EVERY;
use mailbox::requests;
use order_service::api::Orders;
use proto::orders::v1::order_service_server::OrderService as _;
use proto::orders::v1::{CreateOrderRequest, Order};
use tokio_postgres::Client;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::once::drawn;
use crate::support::{KEPT, PATIENCE, count, database_in, money, postgres};

/// A total that the table of these tests refuses.
const UNWANTED: i64 = 666;

/// So many groups are at work while others wait.
const GROUPS: usize = 2;

async fn create(orders: &Orders, request_id: &str, total: i64) -> Result<Order, Status> {
    let request = CreateOrderRequest {
        wait: None,
        customer_id: Uuid::nil().to_string().replace('0', "1"),
        total: money(total, "USD"),
        request_id: request_id.to_owned(),
    };
    let created = orders.create_order(Caller::Operator.asks(request)).await?;
    Ok(created.into_inner().order.unwrap())
}

/// A service, and a session of the same database beside it.
async fn service() -> (Orders, Client, Pool) {
    let pool = database_in(postgres().await, 4).await;
    let own = pool.get().await.unwrap();
    let name = own.query_one("SELECT current_database()", &[]).await;
    let unwanted =
        format!("ALTER TABLE orders ADD CHECK (total_minor_units <> {UNWANTED}) NOT VALID");
    own.batch_execute(&unwanted).await.unwrap();
    drop(own);
    let name: String = name.unwrap().get(0);
    let beside = postgres().await.connect(&name).await.unwrap();
    let orders = Orders::new(pool.clone(), PATIENCE, KEPT);
    (orders, beside, pool)
}

/// Until so many of the service's sessions wait for the table.
async fn blocked(beside: &Client, sessions: usize) {
    let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass";
    let all_wait = async || {
        let waiting: i64 = beside.query_one(sql, &[]).await?.get(0);
        Ok((usize::try_from(waiting)? == sessions).then_some(()))
    };
    eventually("the groups wait", Duration::from_secs(10), all_wait)
        .await
        .unwrap();
}

/// Lets `asked` come while the table is held, all before any of them is placed, and returns their answers.
async fn at_once(
    orders: &Orders,
    beside: &Client,
    asked: &[(&str, i64)],
) -> Vec<Result<Order, Status>> {
    beside
        .batch_execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut first = Vec::new();
    for group in 1..=GROUPS {
        let mut one = Box::pin(create(orders, "", 1));
        assert!(poll!(&mut one).is_pending());
        blocked(beside, group).await;
        first.push(one);
    }
    let creates = asked.iter().map(|(id, total)| create(orders, id, *total));
    let mut answers = Box::pin(join_all(creates));
    assert!(poll!(&mut answers).is_pending());
    beside.batch_execute("COMMIT").await.unwrap();
    for one in join_all(first).await {
        one.unwrap();
    }
    answers.await
}

#[tokio::test]
async fn what_waits_commits_together() {
    let (orders, beside, _) = service().await;
    for answer in at_once(&orders, &beside, &[("", 1); 50]).await {
        answer.unwrap();
    }
    for table in ["orders", "outbox"] {
        assert_eq!(count(&beside, table).await, 52, "{table}");
        let sql = format!("SELECT count(DISTINCT xmin::text) FROM {table}");
        let transactions: i64 = beside.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(transactions, 3, "{table}");
    }
}

#[tokio::test]
async fn a_group_of_several_holds_up_the_next_for_a_moment() {
    let (orders, beside, _) = service().await;
    let begin = Instant::now();
    // As many as come at once, always: groups that followed each other at once would be of one or a few.
    let callers = (0..8).map(async |_| {
        for _ in 0..50 {
            create(&orders, "", 1).await.unwrap();
        }
    });
    join_all(callers).await;
    let elapsed = begin.elapsed();
    assert_eq!(count(&beside, "orders").await, 400);
    let sql = "SELECT count(*) FROM \
               (SELECT FROM orders GROUP BY xmin::text HAVING count(*) > 1) AS several";
    let several: i64 = beside.query_one(sql, &[]).await.unwrap().get(0);
    assert!(several > 1, "never two at once: this machine shows nothing");
    let held_up = STEP_EVERY * u32::try_from(several - 1).unwrap();
    assert!(held_up <= elapsed, "{several} in {elapsed:?}");
}

#[tokio::test]
async fn a_request_that_comes_several_times_at_once_takes_effect_once() {
    let (orders, beside, _) = service().await;
    let (id, other) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let asked = [
        (&*id, 5),
        (&*other, 1),
        (&*id, 5),
        ("", 1),
        (&*id, 5),
        (&*id, 6),
    ];
    let answers = at_once(&orders, &beside, &asked).await;
    let first = answers[0].as_ref().unwrap();
    for repeat in [2, 4] {
        assert_eq!(answers[repeat].as_ref().unwrap(), first);
    }
    for different in [1, 3] {
        assert_ne!(
            answers[different].as_ref().unwrap().order_id,
            first.order_id
        );
    }
    let refused = answers[5].as_ref().unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(count(&beside, "orders").await, 2 + 3);
    assert_eq!(count(&beside, "outbox").await, 2 + 3);
}

#[tokio::test]
async fn a_repeat_among_new_requests_costs_them_nothing() {
    let (orders, beside, _) = service().await;
    let id = Uuid::now_v7().to_string();
    let first = create(&orders, &id, 5).await.unwrap();
    let new = Uuid::now_v7().to_string();
    let answers = at_once(&orders, &beside, &[("", 1), (&id, 5), (&new, 2)]).await;
    assert_eq!(answers[1].as_ref().unwrap(), &first);
    assert_eq!(answers[2].as_ref().unwrap().total, money(2, "USD"));
    assert!(answers[0].is_ok());
    assert_eq!(count(&beside, "orders").await, 1 + 2 + 2);
}

#[tokio::test]
async fn one_that_cannot_be_placed_takes_no_other_with_it() {
    let (orders, beside, _) = service().await;
    let answers = at_once(&orders, &beside, &[("", 1), ("", UNWANTED), ("", 2)]).await;
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(Status::code))
        .collect();
    assert_eq!(codes, [None, Some(Code::Internal), None]);
    assert_eq!(count(&beside, "orders").await, 2 + 2);
    assert_eq!(count(&beside, "outbox").await, 2 + 2);
}

/// Only the database knows that its day is forgotten.
#[tokio::test]
async fn one_whose_id_is_forgotten_takes_no_other_with_it() {
    let (orders, beside, pool) = service().await;
    let two_days = Duration::from_secs(2 * 86_400);
    requests::maintain_once(&pool, two_days).await.unwrap();
    let (forgotten, new) = (drawn(-5 * 86_400), Uuid::now_v7().to_string());
    let answers = at_once(&orders, &beside, &[("", 1), (&forgotten, 1), (&new, 2)]).await;
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(Status::code))
        .collect();
    assert_eq!(codes, [None, Some(Code::InvalidArgument), None]);
    assert_eq!(count(&beside, "orders").await, 2 + 2);
    assert_eq!(count(&beside, "outbox").await, 2 + 2);
}

#[tokio::test]
async fn who_comes_behind_one_that_has_waited_too_long_is_refused_at_once() {
    let (orders, beside, _) = service().await;
    let id = Uuid::now_v7().to_string();
    let first = create(&orders, &id, 5).await.unwrap();
    beside
        .batch_execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut placed = Vec::new();
    for group in 1..=GROUPS {
        let mut one = Box::pin(create(&orders, "", 1));
        assert!(poll!(&mut one).is_pending());
        blocked(&beside, group).await;
        placed.push(one);
    }
    // From here on they queue up, one each time that it is looked.
    let refused = async || {
        let mut one = Box::pin(create(&orders, "", 1));
        let answer = poll!(&mut one);
        if let Poll::Ready(answer) = answer {
            return Ok(Some(answer.unwrap_err()));
        }
        placed.push(one);
        Ok(None)
    };
    let refused = eventually("one to be refused", Duration::from_secs(10), refused).await;
    let refused = refused.unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("nothing was done"), "{refused}");
    assert!(placed.len() > GROUPS, "some may wait");
    // But for who asks for nothing new.
    assert_eq!(create(&orders, &id, 5).await.unwrap(), first);

    beside.batch_execute("COMMIT").await.unwrap();
    let expected = 1 + i64::try_from(placed.len()).unwrap();
    for answer in join_all(placed).await {
        answer.unwrap();
    }
    assert_eq!(count(&beside, "orders").await, expected);
    // The queue has gone on, and whoever comes is welcome.
    create(&orders, "", 1).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_leaves_takes_nothing_from_the_others() {
    let (orders, beside, _) = service().await;
    beside
        .batch_execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut leaves = Box::pin(create(&orders, "", 1));
    let mut stays = Box::pin(create(&orders, "", 2));
    // Both wait before the group that they are in is begun.
    assert!(poll!(&mut leaves).is_pending());
    assert!(poll!(&mut stays).is_pending());
    blocked(&beside, 1).await;
    drop(leaves);
    beside.batch_execute("COMMIT").await.unwrap();
    assert_eq!(stays.await.unwrap().total, money(2, "USD"));
    let transactions = "SELECT count(DISTINCT xmin::text) FROM orders";
    let transactions: i64 = beside.query_one(transactions, &[]).await.unwrap().get(0);
    assert_eq!(transactions, 1, "they were in one group");
}
