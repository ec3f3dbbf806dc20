//! An order that nobody answers in time is cancelled by the clock, and what is reserved for it later is
//! released.

use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use harness::Side;
use prost::Name;
use proto::customers::v1::CreditReleased;
use proto::orders::v1::order_service_client::OrderServiceClient;
use proto::orders::v1::{CancellationReason, CreateOrderRequest, OrderState};

use super::show::{euros, span};
use super::stage::Stage;
use super::story::{in_words, left, money, watched};
use super::trail::Trail;

const ORDER_CENTS: i64 = 5_000;
/// The deadline of orders that are placed at the second replica, in seconds; at the first it is the default.
pub(super) const DEADLINE: &str = "2";

pub(super) async fn tell(stage: &mut Stage, ada_id: &str) -> Result<()> {
    let show = stage.show;
    show.step("f", "An order that nobody answers in time");
    let silent = Side::Customers.service();
    stage.system.process(silent).terminate().await?;
    show.row("stopped", silent);
    let replica = stage.system.add_replica(Side::Orders).await?;
    show.row(
        "started",
        &format!("{replica}, a replica whose orders may be pending for {DEADLINE} s"),
    );
    show.row(
        "asked",
        &format!("{replica}, by gRPC: {} for Ada", euros(ORDER_CENTS)),
    );
    let stage = &*stage;
    let asked = SystemTime::now();
    let since = |at: SystemTime| span(at.duration_since(asked).unwrap_or_default());
    let mut orders = OrderServiceClient::new(stage.system.channel(&replica)?);
    let request = CreateOrderRequest {
        customer_id: ada_id.to_owned(),
        total: Some(money(ORDER_CENTS)),
        ..CreateOrderRequest::default()
    };
    let placed = orders.create_order(request).await?.into_inner().order;
    let order_id = placed.context("an answer without an order")?.order_id;
    show.row(
        "answered",
        &format!(
            "order {order_id} is pending, after {}",
            since(SystemTime::now())
        ),
    );
    let last = watched(stage, &replica, &order_id).await?;
    let last = last.context("the watch ended without an order")?;
    let told = in_words(last.state(), Some(last.cancellation_reason()));
    show.row(
        "watched",
        &format!("{told}, after {}", since(SystemTime::now())),
    );
    ensure!(
        last.state() == OrderState::Cancelled
            && last.cancellation_reason() == CancellationReason::TimedOut,
        "order {order_id} was to time out, and is {told}"
    );

    let begun = Instant::now();
    let process = stage.system.process(silent);
    process.start_again()?;
    process.wait_ready().await?;
    show.row(
        "started",
        &format!(
            "{silent} again; it is ready after {}",
            span(begun.elapsed())
        ),
    );
    let mut trail = Trail::new(&stage.nats);
    let events = trail.follow(&order_id, &[CreditReleased::NAME]).await?;
    trail.show(show, &events, since);
    let left = left(stage, "Ada", ada_id).await?;
    show.good("outcome", &format!("{told}{left}"));
    stage.system.process(&replica).terminate().await?;
    Ok(())
}
