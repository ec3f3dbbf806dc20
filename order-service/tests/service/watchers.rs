//! Many who watch, and what wakes them: events in a stream, as a relay publishes them.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream::Stream};
use deadpool_postgres::Pool;
use harness::{Nats, eventually};
use mailbox::envelope;
use proto::orders::v1::{Order, OrderState, WatchOrderRequest};
use tokio::time::timeout;
use uuid::Uuid;

use crate::reactions::reserved;
use crate::replica::{Replica, SOON, WATCHERS, client};
use crate::support::{apply, database, database_in, money, pending, postgres};

/// A NATS with an empty stream of orders' events.
async fn stream() -> (Nats, Stream) {
    let nats = Nats::start().await.unwrap();
    let context = jetstream::new(nats.client().await.unwrap());
    let config = jetstream::stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["events.orders.>".to_owned()],
        ..Default::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    (nats, stream)
}

/// As another replica does it, whose relay then publishes the event.
async fn approve(pool: &Pool, order: &Order, nats: &Nats) {
    apply(pool, vec![reserved(order)]).await.unwrap();
    publish(&nats.client().await.unwrap(), [order]).await;
}

async fn publish(client: &async_nats::Client, orders: impl IntoIterator<Item = &Order>) {
    let context = jetstream::new(client.clone());
    for order in orders {
        let mut headers = HeaderMap::new();
        headers.insert(envelope::AGGREGATE_ID, order.order_id.as_str());
        let subject = "events.orders.v1.OrderApproved";
        let sent = context.publish_with_headers(subject, headers, "".into());
        sent.await.unwrap().await.unwrap();
    }
}

async fn consumers(stream: &Stream) -> usize {
    let mut stream = stream.clone();
    stream.info().await.unwrap().state.consumer_count
}

async fn await_consumer(stream: &Stream) {
    eventually("a consumer", SOON, async || {
        Ok((consumers(stream).await == 1).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_another_replica_did_wakes_who_watches_here() {
    let (nats, stream) = stream().await;
    let replica = Replica::without_clock(database().await, WATCHERS);
    replica.listen(&nats).await;
    // While nobody watches, nothing is consumed.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(consumers(&stream).await, 0);
    let (first, second) = (pending(&replica.pool).await, pending(&replica.pool).await);
    let mut watching = replica.watch(&first.order_id).await.unwrap();
    assert_eq!(watching.told().await, first);
    await_consumer(&stream).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    approve(&replica.pool, &second, &nats).await;
    approve(&replica.pool, &first, &nats).await;
    assert_eq!(watching.told().await.state(), OrderState::Approved);
    assert!(watching.next().await.is_none());
}

#[tokio::test]
async fn what_happened_while_there_was_no_consumer_is_looked_for() {
    let (nats, stream) = stream().await;
    let replica = Replica::without_clock(database().await, WATCHERS);
    replica.listen(&nats).await;
    let order = pending(&replica.pool).await;
    let mut watching = replica.watch(&order.order_id).await.unwrap();
    watching.told().await;
    await_consumer(&stream).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Somebody deletes it, and the event comes before there is another one.
    let name = eventually("its name", SOON, async || {
        use tonic::codegen::tokio_stream::StreamExt as _;
        let mut names = stream.consumer_names();
        Ok(names.next().await.transpose()?)
    });
    stream.delete_consumer(&name.await.unwrap()).await.unwrap();
    approve(&replica.pool, &order, &nats).await;
    assert_eq!(watching.told().await.state(), OrderState::Approved);
}

#[tokio::test]
async fn what_happened_while_nats_was_away_is_looked_for() {
    let (nats, stream) = stream().await;
    let replica = Replica::without_clock(database().await, WATCHERS);
    replica.listen(&nats).await;
    let orders = [pending(&replica.pool).await, pending(&replica.pool).await];
    let mut watching = Vec::new();
    for order in &orders {
        let mut one = replica.watch(&order.order_id).await.unwrap();
        one.told().await;
        watching.push(one);
    }
    await_consumer(&stream).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    nats.kill().await.unwrap();
    apply(&replica.pool, vec![reserved(&orders[0])])
        .await
        .unwrap();
    nats.start_again().await.unwrap();
    assert_eq!(watching[0].told().await.state(), OrderState::Approved);
    // And the new consumer works.
    await_consumer(&stream).await;
    approve(&replica.pool, &orders[1], &nats).await;
    assert_eq!(watching[1].told().await.state(), OrderState::Approved);
}

/// So many pending orders.
async fn many(pool: &Pool, count: usize) -> Vec<Order> {
    let customer_id = Uuid::now_v7();
    let ids: Vec<Uuid> = (0..count).map(|_| Uuid::now_v7()).collect();
    let client = pool.get().await.unwrap();
    let insert = "INSERT INTO orders (order_id, customer_id, total_minor_units, currency, state, \
                                      create_time, update_time, deadline) \
                  SELECT id, $2, 100, 'USD', 'pending', now(), now(), now() + interval '1 hour' \
                  FROM unnest($1::uuid[]) AS id";
    client.execute(insert, &[&ids, &customer_id]).await.unwrap();
    let order = |id: Uuid| Order {
        order_id: id.to_string(),
        customer_id: customer_id.to_string(),
        total: money(100, "USD"),
        ..Order::default()
    };
    ids.into_iter().map(order).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_watch_at_one_replica_without_a_connection_and_all_see_the_end() {
    const WATCH: usize = 2_000;
    const CONNECTIONS: usize = 4;
    /// A connection takes 256 streams.
    const EACH: usize = 250;
    let (nats, stream) = stream().await;
    let pool = database_in(postgres().await, CONNECTIONS).await;
    let replica = Replica::without_clock(pool.clone(), WATCH);
    replica.listen(&nats).await;
    let orders = many(&pool, WATCH).await;
    let address = replica.serve().await;
    let mut watching = Vec::new();
    for part in orders.chunks(EACH) {
        let mut client = client(address).await;
        for order in part {
            let order_id = order.order_id.clone();
            let begun = client.watch_order(WatchOrderRequest { order_id }).await;
            let mut begun = begun.unwrap().into_inner();
            let told = begun.message().await.unwrap().unwrap().order.unwrap();
            assert_eq!(told.state(), OrderState::Pending);
            watching.push(begun);
        }
    }
    assert_eq!(replica.hub.watchers(), WATCH);
    await_consumer(&stream).await;

    // All of the replica's connections are to be had, and those who watch do not miss them.
    let mut taken = Vec::new();
    for _ in 0..CONNECTIONS {
        taken.push(timeout(SOON, pool.get()).await.unwrap().unwrap());
    }
    let others = &taken[0];
    let in_use = "SELECT count(*) FROM pg_stat_activity \
                  WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
    let in_use: i64 = others.query_one(in_use, &[]).await.unwrap().get(0);
    assert_eq!(in_use, 0);
    drop(taken);

    let begun = Instant::now();
    let readers: Vec<_> = watching
        .into_iter()
        .map(|mut one| {
            tokio::spawn(async move {
                let told = one.message().await.unwrap().unwrap().order.unwrap();
                assert_eq!(told.state(), OrderState::Approved);
                assert!(one.message().await.unwrap().is_none());
                told.order_id
            })
        })
        .collect();
    let client = nats.client().await.unwrap();
    for part in orders.chunks(256) {
        let answers = part.iter().map(reserved).collect();
        apply(&pool, answers).await.unwrap();
        publish(&client, part).await;
    }
    for (reader, order) in readers.into_iter().zip(&orders) {
        let told = timeout(SOON, reader).await.unwrap().unwrap();
        assert_eq!(told, order.order_id);
    }
    println!("all were told within {:?}", begun.elapsed());
    assert_eq!(replica.hub.watchers(), 0);
}
