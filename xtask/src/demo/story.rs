//! A customer, and four orders that end in four ways; the first of them in a fifth, later.

use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use harness::Side;
use proto::customers::v1::{CreateCustomerRequest, Customer, GetCustomerRequest};
use proto::money::v1::Money;
use proto::orders::v1::order_service_client::OrderServiceClient;
use proto::orders::v1::{
    CancellationReason, CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse,
    Order, OrderState, WatchOrderRequest,
};
use uuid::Uuid;

use super::cancel;
use super::show::{euros, span};
use super::stage::Stage;
use super::trail::{SETTLED, Trail, reason};
use crate::request;

/// Ada's credit limit, in cents; the orders below use it up to the last one.
pub(super) const ADA_LIMIT: i64 = 20_000;
/// What is reserved of it when the first order has been cancelled.
pub(super) const ADA_RESERVED: i64 = 8_000;

/// How long a NATS request waits for an order's outcome: less than its client waits for an answer.
const WAIT: proto::Duration = proto::Duration {
    seconds: 8,
    nanos: 0,
};

/// An order of the story.
struct Ask<'a> {
    mark: &'a str,
    title: &'a str,
    door: Door,
    customer: &'a str,
    customer_id: &'a str,
    /// What a person puts for the customer, within single quotes: the variable, or the unknown one.
    by_hand: &'a str,
    cents: i64,
    /// Why it is to be cancelled; none is to be approved.
    refusal: Option<CancellationReason>,
}

/// The two ways to ask.
#[derive(Clone, Copy)]
enum Door {
    Grpc,
    Nats,
}

/// Gives Ada's id.
pub(super) async fn tell(stage: &Stage) -> Result<String> {
    let ada = customer(stage, "Ada", ADA_LIMIT).await?;
    stage.hand.customer_is(&ada.customer_id)?;
    let mut trail = Trail::new(&stage.nats);
    let covered = Ask {
        mark: "a",
        title: "An order that the credit covers",
        door: Door::Grpc,
        customer: "Ada",
        customer_id: &ada.customer_id,
        by_hand: "'$CUSTOMER'",
        cents: 12_000,
        refusal: None,
    };
    let first = order(stage, &mut trail, &covered).await?;
    let too_much = Ask {
        mark: "b",
        title: "An order beyond the credit limit",
        door: Door::Nats,
        cents: 10_000,
        refusal: Some(CancellationReason::CreditLimitExceeded),
        ..covered
    };
    order(stage, &mut trail, &too_much).await?;
    let exact = Ask {
        mark: "c",
        title: "An order that fits the limit exactly",
        cents: 8_000,
        ..covered
    };
    order(stage, &mut trail, &exact).await?;
    let nobody = Uuid::now_v7().to_string();
    let unknown = Ask {
        mark: "d",
        title: "An order of an unknown customer",
        door: Door::Nats,
        customer: "somebody",
        customer_id: &nobody,
        by_hand: &nobody,
        cents: 5_000,
        refusal: Some(CancellationReason::UnknownCustomer),
    };
    order(stage, &mut trail, &unknown).await?;
    cancel::tell(stage, &mut trail, &ada.customer_id, &first).await?;
    Ok(ada.customer_id)
}

/// Makes a customer and shows it.
pub(super) async fn customer(stage: &Stage, name: &str, limit: i64) -> Result<Customer> {
    let show = stage.show;
    show.step("", &format!("A customer, {name}"));
    show.row(
        "asked",
        &format!(
            "customer-service, by gRPC: {name} may order on credit up to {}",
            euros(limit)
        ),
    );
    let begun = Instant::now();
    let request = CreateCustomerRequest {
        request_id: String::new(),
        name: name.to_owned(),
        credit_limit: Some(money(limit)),
    };
    let body = serde_json::to_string(&request)?;
    let response = stage.system.customers()?.create_customer(request).await;
    let customer = response
        .context("customer-service has refused the customer")?
        .into_inner()
        .customer;
    let customer = customer.context("customer-service has answered without a customer")?;
    show.row(
        "answered",
        &format!(
            "customer {}, after {}",
            customer.customer_id,
            span(begun.elapsed())
        ),
    );
    show.commands("by hand", &stage.hand.customer(&body));
    Ok(customer)
}

/// Places an order, shows what becomes of it, and gives its id.
async fn order(stage: &Stage, trail: &mut Trail, ask: &Ask<'_>) -> Result<String> {
    let show = stage.show;
    show.step(ask.mark, ask.title);
    let door = match ask.door {
        Door::Grpc => "by gRPC",
        Door::Nats => "by a NATS request",
    };
    show.row(
        "asked",
        &format!(
            "order-service, {door}: {} for {}",
            euros(ask.cents),
            ask.customer
        ),
    );
    let asked = SystemTime::now();
    let placed = place(stage, ask).await?;
    let since = |at: SystemTime| span(at.duration_since(asked).unwrap_or_default());
    let id = &placed.order_id;
    show.row(
        "answered",
        &format!("order {id} is pending, after {}", since(SystemTime::now())),
    );
    let outcome = outcome(stage, ask, id).await?;
    let told = in_words(outcome.state(), refusal(&outcome));
    let how = match ask.door {
        Door::Grpc => "watched",
        Door::Nats => "waited",
    };
    show.row(how, &format!("{told}, after {}", since(SystemTime::now())));
    let events = trail.follow(id, &SETTLED).await?;
    trail.show(show, &events, since);
    as_told(stage, ask, &outcome)
        .await
        .with_context(|| format!("step {}", ask.mark))?;
    let mut commands = stage.hand.order(ask.by_hand, ask.cents, ask.mark == "a");
    if ask.mark == "a" {
        commands.extend(stage.hand.wait(id));
    }
    commands.push(stage.hand.look(ask.by_hand));
    show.commands("by hand", &commands);
    Ok(placed.order_id)
}

async fn place(stage: &Stage, ask: &Ask<'_>) -> Result<Order> {
    let request = CreateOrderRequest {
        wait: None,
        request_id: String::new(),
        customer_id: ask.customer_id.to_owned(),
        total: Some(money(ask.cents)),
    };
    let response = match ask.door {
        Door::Grpc => stage
            .system
            .orders()?
            .create_order(request)
            .await?
            .into_inner(),
        Door::Nats => {
            let body = serde_json::to_string(&request)?;
            let reply = request::json(&stage.nats, "orders.v1.CreateOrder", body).await?;
            serde_json::from_value::<CreateOrderResponse>(reply)?
        }
    };
    response
        .order
        .context("order-service has answered without an order")
}

/// Waits for what the order comes to, in the way that the door has for it.
async fn outcome(stage: &Stage, ask: &Ask<'_>, order_id: &str) -> Result<Order> {
    let last = match ask.door {
        Door::Grpc => watched(stage, Side::Orders.service(), order_id).await?,
        Door::Nats => {
            let request = GetOrderRequest {
                order_id: order_id.to_owned(),
                wait: Some(WAIT),
            };
            let body = serde_json::to_string(&request)?;
            let reply = request::json(&stage.nats, "orders.v1.GetOrder", body).await?;
            serde_json::from_value::<GetOrderResponse>(reply)?.order
        }
    };
    last.context("order-service has answered without an order")
}

/// The last that is told of an order.
pub(super) async fn watched(stage: &Stage, replica: &str, order_id: &str) -> Result<Option<Order>> {
    let mut orders = OrderServiceClient::new(stage.system.channel(replica)?);
    let order_id = order_id.to_owned();
    let told = orders.watch_order(WatchOrderRequest { order_id }).await?;
    let mut told = told.into_inner();
    let mut last = None;
    while let Some(next) = told.message().await? {
        last = next.order;
    }
    Ok(last)
}

fn refusal(order: &Order) -> Option<CancellationReason> {
    Some(order.cancellation_reason()).filter(|reason| *reason != CancellationReason::Unspecified)
}

/// Shows what the order came to, and fails when the story goes otherwise.
async fn as_told(stage: &Stage, ask: &Ask<'_>, order: &Order) -> Result<()> {
    let order_id = &order.order_id;
    let told = in_words(order.state(), refusal(order));
    let expected = match ask.refusal {
        None => in_words(OrderState::Approved, None),
        some => in_words(OrderState::Cancelled, some),
    };
    if told != expected {
        stage.show.bad("outcome", &told);
    }
    ensure!(
        told == expected,
        "order {order_id} was to be {expected}, and is {told}"
    );
    let left = match ask.refusal {
        Some(CancellationReason::UnknownCustomer) => String::new(),
        _ => left(stage, ask.customer, ask.customer_id).await?,
    };
    stage.show.good("outcome", &format!("{told}{left}"));
    Ok(())
}

pub(super) fn in_words(state: OrderState, refusal: Option<CancellationReason>) -> String {
    let state = state
        .as_str_name()
        .trim_start_matches("ORDER_STATE_")
        .to_lowercase();
    match refusal {
        None => state,
        Some(why) => format!("{state}: {}", reason(why)),
    }
}

/// What the customer has left.
pub(super) async fn left(stage: &Stage, name: &str, customer_id: &str) -> Result<String> {
    let request = GetCustomerRequest {
        customer_id: customer_id.to_owned(),
    };
    let found = stage
        .system
        .customers()?
        .get_customer(request)
        .await?
        .into_inner()
        .customer;
    let found = found.context("customer-service has answered without a customer")?;
    let units = |money: Option<Money>| euros(money.map_or(0, |money| money.minor_units));
    Ok(format!(
        "; {name} has {} of {} left",
        units(found.available),
        units(found.credit_limit)
    ))
}

/// Euros, from cents.
pub(super) fn money(cents: i64) -> Money {
    Money {
        minor_units: cents,
        currency: "EUR".to_owned(),
    }
}
