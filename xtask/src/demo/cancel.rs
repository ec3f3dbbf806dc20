//! A client changes its mind about an approved order, and the credit goes back.

use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use prost::Name;
use proto::customers::v1::CreditReleased;
use proto::orders::v1::{CancelOrderRequest, OrderState};

use super::show::span;
use super::stage::Stage;
use super::story::{in_words, left};
use super::trail::Trail;

/// Cancels Ada's order and shows what follows from it.
pub(super) async fn tell(
    stage: &Stage,
    trail: &mut Trail,
    ada_id: &str,
    order_id: &str,
) -> Result<()> {
    let show = stage.show;
    show.step("e", "An approved order is cancelled");
    show.row("asked", "order-service, by gRPC: cancel Ada's first order");
    let asked = SystemTime::now();
    let request = CancelOrderRequest {
        request_id: String::new(),
        order_id: order_id.to_owned(),
    };
    let answer = stage.system.orders()?.cancel_order(request).await?;
    let order = answer.into_inner().order;
    let order = order.context("order-service has answered without an order")?;
    let since = |at: SystemTime| span(at.duration_since(asked).unwrap_or_default());
    show.row(
        "answered",
        &format!(
            "order {order_id} is cancelled, after {}",
            since(SystemTime::now())
        ),
    );
    let events = trail.follow(order_id, &[CreditReleased::NAME]).await?;
    trail.show(show, &events, since);
    let told = in_words(order.state(), Some(order.cancellation_reason()));
    ensure!(
        order.state() == OrderState::Cancelled,
        "order {order_id} was to be cancelled, and is {told}"
    );
    let left = left(stage, "Ada", ada_id).await?;
    show.good("outcome", &format!("{told}{left}"));
    let body = format!(r#"'{{"orderId":"{order_id}"}}'"#);
    let commands = [format!(
        "cargo -q xtask request orders.v1.CancelOrder {body}"
    )];
    show.commands("by hand", &commands);
    Ok(())
}
