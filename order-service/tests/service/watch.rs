//! Who watches an order hears of its outcome, and then no more.

use std::time::{Duration, Instant};

use harness::eventually;
use proto::orders::v1::{CancellationReason, OrderState};
use tokio::time::timeout;
use tonic::Code;
use uuid::Uuid;

use crate::reactions::{exceeded, reserved};
use crate::replica::{Replica, SOON, WATCHERS};
use crate::support::{apply, cancel, database, pending};

#[tokio::test]
async fn a_watch_tells_how_the_order_stands_then_its_outcome_and_ends() {
    let replica = Replica::start(WATCHERS).await;
    for (answer, outcome) in [
        (reserved as fn(&_) -> _, OrderState::Approved),
        (exceeded, OrderState::Cancelled),
    ] {
        let order = pending(&replica.pool).await;
        let mut watching = replica.watch(&order.order_id).await.unwrap();
        assert_eq!(watching.told().await, order);
        apply(&replica.pool, vec![answer(&order)]).await.unwrap();
        replica.hub.signal(id(&order.order_id).into());
        let told = watching.told().await;
        assert_eq!(told.state(), outcome);
        assert!(watching.next().await.is_none());
    }
}

#[tokio::test]
async fn a_watch_of_an_order_with_its_outcome_tells_it_and_ends() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    apply(&replica.pool, vec![reserved(&order)]).await.unwrap();
    let mut watching = replica.watch(&order.order_id).await.unwrap();
    assert_eq!(watching.told().await.state(), OrderState::Approved);
    assert!(watching.next().await.is_none());

    // Approved was an outcome; what a client does to it later is told to who asks later.
    cancel(&replica.orders, &order.order_id).await.unwrap();
    let mut watching = replica.watch(&order.order_id).await.unwrap();
    let told = watching.told().await;
    assert_eq!(told.cancellation_reason(), CancellationReason::ByCustomer);
    assert!(watching.next().await.is_none());
}

#[tokio::test]
async fn all_who_watch_one_order_are_told() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    let mut watching = Vec::new();
    for _ in 0..10 {
        watching.push(replica.watch(&order.order_id).await.unwrap());
    }
    // One of them leaves; it is not the order's last.
    watching.pop();
    apply(&replica.pool, vec![reserved(&order)]).await.unwrap();
    replica.hub.signal(id(&order.order_id).into());
    for mut one in watching {
        assert_eq!(one.told().await.state(), OrderState::Pending);
        assert_eq!(one.told().await.state(), OrderState::Approved);
        assert!(one.next().await.is_none());
    }
}

#[tokio::test]
async fn nobody_watches_an_order_that_is_not_there() {
    let replica = Replica::start(WATCHERS).await;
    let nobody = Uuid::now_v7().to_string();
    for (order_id, code) in [
        (nobody.as_str(), Code::NotFound),
        ("x", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let refused = replica.watch(order_id).await.err().unwrap();
        assert_eq!(refused.code(), code, "{refused}");
    }
    assert_eq!(replica.hub.watchers(), 0);
}

#[tokio::test]
async fn a_watcher_is_registered_before_it_looks() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    let mut client = replica.pool.get().await.unwrap();
    let tx = client.transaction().await.unwrap();
    let all = "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE";
    tx.batch_execute(all).await.unwrap();
    let looks_at_last = async {
        eventually("it to be registered", SOON, async || {
            Ok((replica.hub.watchers() == 1).then_some(()))
        })
        .await
        .unwrap();
        tx.rollback().await.unwrap();
    };
    let (watching, ()) = tokio::join!(replica.watch(&order.order_id), looks_at_last);
    assert_eq!(watching.unwrap().told().await, order);
}

#[tokio::test]
async fn without_any_signal_the_clock_finds_the_outcome() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    let mut watching = replica.watch(&order.order_id).await.unwrap();
    watching.told().await;
    // Not the look that follows the registration.
    tokio::time::sleep(Duration::from_millis(300)).await;
    apply(&replica.pool, vec![reserved(&order)]).await.unwrap();
    assert_eq!(watching.told().await.state(), OrderState::Approved);
}

#[tokio::test]
async fn an_order_that_cannot_be_read_keeps_no_watcher_waiting() {
    let replica = Replica::without_clock(database().await, WATCHERS);
    let (strange, order) = (pending(&replica.pool).await, pending(&replica.pool).await);
    let mut at_strange = replica.watch(&strange.order_id).await.unwrap();
    let mut watching = replica.watch(&order.order_id).await.unwrap();
    at_strange.told().await;
    watching.told().await;
    // As a newer version does it in a rolling upgrade.
    let newer = replica.pool.get().await.unwrap();
    let newer_schema = "ALTER TABLE orders DROP CONSTRAINT orders_reason_known";
    newer.batch_execute(newer_schema).await.unwrap();
    let cancel_as = async |reason: &str| {
        let strangely = "UPDATE orders SET state = 'cancelled', cancellation_reason = $2 \
                         WHERE order_id = $1";
        newer
            .execute(strangely, &[&id(&strange.order_id), &reason])
            .await
            .unwrap();
    };
    cancel_as("theft").await;
    apply(&replica.pool, vec![reserved(&order)]).await.unwrap();
    replica.hub.signal(id(&strange.order_id).into());
    replica.hub.signal(id(&order.order_id).into());
    assert_eq!(watching.told().await.state(), OrderState::Approved);
    assert!(watching.next().await.is_none());

    // Who watches it is sent to a replica that can read it.
    let sent = at_strange.next().await.unwrap().unwrap_err();
    assert_eq!(sent.code(), Code::Unavailable, "{sent}");
    assert!(sent.message().contains("cannot read the order"), "{sent}");
    assert!(at_strange.next().await.is_none());
    let refused = replica.watch(&strange.order_id).await.map(drop);
    assert_eq!(refused.unwrap_err().code(), Code::Internal);
    // As soon as it can be read again, it can be watched again.
    cancel_as("by_customer").await;
    let told = replica.watch(&strange.order_id).await.unwrap().told().await;
    assert_eq!(told.cancellation_reason(), CancellationReason::ByCustomer);
}

#[tokio::test]
async fn an_event_that_is_faster_than_its_transaction_is_not_in_vain() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    let mut watching = replica.watch(&order.order_id).await.unwrap();
    watching.told().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let signalled = Instant::now();
    replica.hub.signal(id(&order.order_id).into());
    tokio::time::sleep(Duration::from_millis(50)).await;
    apply(&replica.pool, vec![reserved(&order)]).await.unwrap();
    assert_eq!(watching.told().await.state(), OrderState::Approved);
    // By looks that came soon after each other, and not by the clock's, 4 s apart at least.
    let took = signalled.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn one_watcher_too_many_is_told_what_to_do() {
    let replica = Replica::start(3).await;
    let order = pending(&replica.pool).await;
    let mut watching = Vec::new();
    for _ in 0..3 {
        watching.push(replica.watch(&order.order_id).await.unwrap());
    }
    let refused = replica.watch(&order.order_id).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    for part in ["3 clients watch", "try again later", "WATCHERS_MAX"] {
        assert!(refused.message().contains(part), "{refused}");
    }
    // Who goes away leaves a place to the next.
    watching.pop();
    watching.push(replica.watch(&order.order_id).await.unwrap());
    watching.clear();
    assert_eq!(replica.hub.watchers(), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_place() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    let mut client = crate::replica::client(replica.serve().await).await;
    let request = proto::orders::v1::WatchOrderRequest {
        order_id: order.order_id,
    };
    let mut watching = client.watch_order(request).await.unwrap().into_inner();
    watching.message().await.unwrap().unwrap();
    assert_eq!(replica.hub.watchers(), 1);
    drop(watching);
    eventually("its place to be free", SOON, async || {
        Ok((replica.hub.watchers() == 0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_end_of_the_service_sends_watchers_elsewhere_at_once() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    let mut client = crate::replica::client(replica.serve().await).await;
    let request = proto::orders::v1::WatchOrderRequest {
        order_id: order.order_id,
    };
    let mut watching = client.watch_order(request).await.unwrap().into_inner();
    watching.message().await.unwrap().unwrap();
    let ending = Instant::now();
    replica.token.cancel();
    let ended = timeout(SOON, watching.message()).await.unwrap();
    let ended = ended.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    assert!(ended.message().contains("watch again"), "{ended}");
    // Not cut when the time to drain is over.
    assert!(ending.elapsed() < Duration::from_secs(5));
}

pub(crate) fn id(order_id: &str) -> Uuid {
    Uuid::try_parse(order_id).unwrap()
}
