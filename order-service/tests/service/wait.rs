//! An answer that waits for the outcome, and for no longer than it was asked to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::auth::Caller;
use harness::eventually;
use order_service::api::Orders;
use proto::orders::v1::order_service_server::{OrderService, OrderServiceServer};
use proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, CreateOrderRequest, CreateOrderResponse,
    GetOrderRequest, GetOrderResponse, ListOrdersRequest, ListOrdersResponse, Order, OrderState,
    WatchOrderRequest,
};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::reactions::reserved;
use crate::replica::{Replica, SOON, WATCHERS};
use crate::support::{apply, cancel, count, money, pending};

fn seconds(seconds: i64) -> Option<proto::Duration> {
    Some(proto::Duration { seconds, nanos: 0 })
}

fn millis(millis: i32) -> Option<proto::Duration> {
    let nanos = millis * 1_000_000;
    Some(proto::Duration { seconds: 0, nanos })
}

fn request(wait: Option<proto::Duration>) -> CreateOrderRequest {
    CreateOrderRequest {
        customer_id: Uuid::now_v7().to_string(),
        total: money(100, "USD"),
        request_id: String::new(),
        wait,
    }
}

async fn create(replica: &Replica, request: CreateOrderRequest) -> Result<Order, Status> {
    let created = replica
        .orders
        .create_order(Caller::Operator.asks(request))
        .await?;
    Ok(created.into_inner().order.unwrap())
}

async fn get(
    replica: &Replica,
    order_id: &str,
    wait: Option<proto::Duration>,
) -> Result<Order, Status> {
    let order_id = order_id.to_owned();
    let request = Caller::Operator.asks(GetOrderRequest { order_id, wait });
    let GetOrderResponse { order } = replica.orders.get_order(request).await?.into_inner();
    Ok(order.unwrap())
}

/// Approves the only order that is pending, as another replica would.
async fn approve(replica: &Replica) {
    let order_id = eventually("an order", SOON, async || {
        let client = replica.pool.get().await?;
        let sql = "SELECT order_id FROM orders WHERE state = 'pending'";
        let row = client.query_opt(sql, &[]).await?;
        Ok(row.map(|row| row.get::<_, Uuid>(0)))
    });
    let order_id = order_id.await.unwrap();
    let order = Order {
        order_id: order_id.to_string(),
        customer_id: order_id.to_string(),
        total: money(100, "USD"),
        ..Order::default()
    };
    apply(&replica.pool, vec![reserved(&order)]).await.unwrap();
    replica.hub.signal(order_id.into());
}

#[tokio::test]
async fn a_create_that_waits_is_answered_with_the_outcome() {
    let replica = Replica::start(WATCHERS).await;
    let begun = Instant::now();
    let (created, ()) = tokio::join!(create(&replica, request(seconds(20))), approve(&replica));
    let created = created.unwrap();
    assert_eq!(created.state(), OrderState::Approved);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(
        created,
        get(&replica, &created.order_id, None).await.unwrap()
    );
    assert_eq!(replica.hub.watchers(), 0);
}

#[tokio::test]
async fn a_wait_that_is_over_is_no_error() {
    let replica = Replica::start(WATCHERS).await;
    let begun = Instant::now();
    let created = create(&replica, request(millis(300))).await.unwrap();
    assert_eq!(created.state(), OrderState::Pending);
    let found = get(&replica, &created.order_id, millis(300)).await.unwrap();
    assert_eq!(found, created);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(600), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(replica.hub.watchers(), 0);
}

/// The service, which notes how long it takes for an answer. It goes on when its caller has gone, and past the
/// call's deadline: so that is none of the caller's clock, and of what else the machine does.
struct Noted {
    orders: Arc<Orders>,
    took: mpsc::UnboundedSender<(OrderState, Duration)>,
}

#[tonic::async_trait]
impl OrderService for Noted {
    async fn create_order(
        &self,
        request: Request<CreateOrderRequest>,
    ) -> Result<Response<CreateOrderResponse>, Status> {
        let (orders, took, begun) = (self.orders.clone(), self.took.clone(), Instant::now());
        let answered = tokio::spawn(async move {
            let answer = orders.create_order(request).await?;
            let state = answer.get_ref().order.as_ref().unwrap().state();
            took.send((state, begun.elapsed())).unwrap();
            Ok(answer)
        });
        answered.await.unwrap()
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        self.orders.cancel_order(request).await
    }

    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        self.orders.get_order(request).await
    }

    type WatchOrderStream = <Orders as OrderService>::WatchOrderStream;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        self.orders.watch_order(request).await
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        self.orders.list_orders(request).await
    }
}

/// How long before it is a unit test's to say (`api/waits.rs`).
#[tokio::test]
async fn a_wait_ends_before_the_calls_own_deadline() {
    let replica = Replica::start(WATCHERS).await;
    let (took, mut answers) = mpsc::unbounded_channel();
    let noted = Noted {
        orders: replica.orders.clone(),
        took,
    };
    let routes = Routes::new(OrderServiceServer::new(noted));
    let mut client = crate::replica::client(replica.serve_routes(routes).await).await;
    let mut hurried = Caller::Operator.asks(request(seconds(20)));
    hurried.set_timeout(Duration::from_millis(400));
    if let Err(late) = client.create_order(hurried).await {
        let codes = [Code::DeadlineExceeded, Code::Cancelled];
        assert!(codes.contains(&late.code()), "{late}");
    }
    let (state, took) = answers.recv().await.unwrap();
    assert_eq!(state, OrderState::Pending);
    // Not cut by the deadline it would have waited for all of 20 s.
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn a_get_waits_for_an_outcome_and_not_for_one_that_is_there() {
    let replica = Replica::start(WATCHERS).await;
    let order = pending(&replica.pool).await;
    let (found, ()) = tokio::join!(
        get(&replica, &order.order_id, seconds(20)),
        approve(&replica)
    );
    let found = found.unwrap();
    assert_eq!(found.state(), OrderState::Approved);
    let begun = Instant::now();
    let again = get(&replica, &order.order_id, seconds(20)).await.unwrap();
    assert_eq!(again, found);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let nobody = Uuid::now_v7().to_string();
    let refused = get(&replica, &nobody, seconds(20)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn a_wait_is_zero_or_more_and_is_cut_at_its_most() {
    let replica = Replica::start(WATCHERS).await;
    let malformed = [
        seconds(-1),
        millis(-1),
        Some(proto::Duration {
            seconds: 1,
            nanos: 1_000_000_000,
        }),
    ];
    for wait in malformed {
        let refused = create(&replica, request(wait)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with("wait: "), "{refused}");
    }
    let client = replica.pool.get().await.unwrap();
    assert_eq!(count(&client, "orders").await, 0);
    let longest = order_service::wire::wait(seconds(i64::MAX)).unwrap();
    assert_eq!(longest, Duration::from_secs(20));
    create(&replica, request(seconds(0))).await.unwrap();
}

#[tokio::test]
async fn a_retry_waits_for_the_first_ones_order_whatever_time_it_allows() {
    let replica = Replica::start(WATCHERS).await;
    let mut asked = request(millis(100));
    asked.request_id = Uuid::now_v7().to_string();
    let first = create(&replica, asked.clone()).await.unwrap();
    assert_eq!(first.state(), OrderState::Pending);

    asked.wait = seconds(20);
    let (retried, ()) = tokio::join!(create(&replica, asked.clone()), approve(&replica));
    let retried = retried.unwrap();
    assert_eq!(retried.order_id, first.order_id);
    assert_eq!(retried.state(), OrderState::Approved);

    // As it stands by then with a wait, and the first answer without.
    cancel(&replica.orders, &first.order_id).await.unwrap();
    let retried = create(&replica, asked.clone()).await.unwrap();
    assert_eq!(retried.state(), OrderState::Cancelled);
    asked.wait = None;
    assert_eq!(create(&replica, asked).await.unwrap(), first);
    let client = replica.pool.get().await.unwrap();
    assert_eq!(count(&client, "orders").await, 1);
}

#[tokio::test]
async fn a_create_that_cannot_wait_is_refused_before_anything_is_done() {
    let replica = Replica::start(1).await;
    let order = pending(&replica.pool).await;
    let _watching = replica.watch(&order.order_id).await.unwrap();
    let refused = create(&replica, request(seconds(1))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let client = replica.pool.get().await.unwrap();
    assert_eq!(count(&client, "orders").await, 1);
    create(&replica, request(None)).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_service_answers_those_who_wait() {
    let replica = Replica::start(WATCHERS).await;
    let ends = async {
        eventually("somebody to wait", SOON, async || {
            Ok((replica.hub.watchers() == 1).then_some(()))
        })
        .await
        .unwrap();
        replica.token.cancel();
    };
    let begun = Instant::now();
    let (created, ()) = tokio::join!(create(&replica, request(seconds(20))), ends);
    assert_eq!(created.unwrap().state(), OrderState::Pending);
    assert!(begun.elapsed() < Duration::from_secs(10));
    // It was placed all the same: who asks elsewhere finds it.
    let elsewhere = Replica::on(replica.pool.clone(), WATCHERS);
    approve(&elsewhere).await;
}
