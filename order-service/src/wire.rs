//! Between protobuf and the domain. Protobuf stops here: what comes in is checked field by field,
//! and what is wrong is told with the field's name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chassis::page;
use iso_currency::Currency as Iso4217;
use proto::{money::v1 as money, orders::v1 as orders};
use uuid::Uuid;

use crate::domain::{Currency, CustomerId, NonPositiveTotal, Order, OrderId, Reason, State, Total};

mod events;

pub use events::{
    ANSWERS, CREDIT_LIMIT_EXCEEDED, CREDIT_RESERVED, CURRENCY_MISMATCH, CUSTOMER_NOT_FOUND,
    Unreadable, answer, order_approved, order_cancelled, order_created,
};

mod letters;

pub use letters::json;

/// An answer waits for an outcome at most so long: less than a request may take at all, over gRPC or NATS.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// The list's name, which its page tokens are bound to.
const LIST: &str = "orders.v1.Order";

/// A field that cannot be taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Invalid {
    /// The field's path in its message, such as `total.minor_units`.
    pub field: &'static str,
    pub why: Why,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("is required")]
    Missing,
    #[error("must be a UUID, such as 0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17")]
    NotUuid,
    #[error("must be the code of a currency in use of ISO 4217, such as USD")]
    UnknownCurrency,
    #[error("must be a duration of zero or more")]
    NotDuration,
    #[error(transparent)]
    Total(#[from] NonPositiveTotal),
    #[error(transparent)]
    PageSize(#[from] page::NegativeSize),
    #[error(transparent)]
    PageToken(#[from] page::BadToken),
}

impl Why {
    fn at(self, field: &'static str) -> Invalid {
        Invalid { field, why: self }
    }
}

/// A checked `CreateOrderRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateOrder {
    pub customer_id: CustomerId,
    pub total: Total,
}

/// A checked `CancelOrderRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelOrder {
    pub order_id: OrderId,
}

/// A checked `GetOrderRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetOrder {
    pub order_id: OrderId,
}

/// A checked `WatchOrderRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOrder {
    pub order_id: OrderId,
}

/// A checked `ListOrdersRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListOrders {
    /// Only this customer's orders.
    pub customer_id: Option<CustomerId>,
    /// Orders on the page at most; more than 0.
    pub page_size: usize,
    /// The last order of the page before.
    pub after: Option<OrderId>,
}

impl From<Uuid> for OrderId {
    fn from(id: Uuid) -> Self {
        Self(id.into_bytes())
    }
}

impl From<OrderId> for Uuid {
    fn from(id: OrderId) -> Self {
        Self::from_bytes(id.0)
    }
}

impl From<Uuid> for CustomerId {
    fn from(id: Uuid) -> Self {
        Self(id.into_bytes())
    }
}

impl From<CustomerId> for Uuid {
    fn from(id: CustomerId) -> Self {
        Self::from_bytes(id.0)
    }
}

impl TryFrom<orders::CreateOrderRequest> for CreateOrder {
    type Error = Invalid;

    fn try_from(request: orders::CreateOrderRequest) -> Result<Self, Invalid> {
        let customer_id = uuid("customer_id", &request.customer_id)?.into();
        let money = request.total.ok_or(Why::Missing.at("total"))?;
        // No customer's limit can be in a currency that is not in use.
        if money.currency.is_empty() {
            return Err(Why::Missing.at("total.currency"));
        }
        let currency = Iso4217::from_code(&money.currency)
            .filter(|known| is_in_use(*known))
            .and_then(|known| Currency::new(known.code()).ok())
            .ok_or(Why::UnknownCurrency.at("total.currency"))?;
        let total = Total::new(money.minor_units, currency)
            .map_err(|why| Why::from(why).at("total.minor_units"))?;
        Ok(Self { customer_id, total })
    }
}

impl TryFrom<orders::CancelOrderRequest> for CancelOrder {
    type Error = Invalid;

    fn try_from(request: orders::CancelOrderRequest) -> Result<Self, Invalid> {
        Ok(Self {
            order_id: uuid("order_id", &request.order_id)?.into(),
        })
    }
}

impl TryFrom<orders::GetOrderRequest> for GetOrder {
    type Error = Invalid;

    fn try_from(request: orders::GetOrderRequest) -> Result<Self, Invalid> {
        Ok(Self {
            order_id: uuid("order_id", &request.order_id)?.into(),
        })
    }
}

impl TryFrom<orders::WatchOrderRequest> for WatchOrder {
    type Error = Invalid;

    fn try_from(request: orders::WatchOrderRequest) -> Result<Self, Invalid> {
        Ok(Self {
            order_id: uuid("order_id", &request.order_id)?.into(),
        })
    }
}

/// The field `wait`, up to [`WAIT_MAX`].
pub fn wait(given: Option<proto::Duration>) -> Result<Duration, Invalid> {
    let Some(given) = given else {
        return Ok(Duration::ZERO);
    };
    let seconds = u64::try_from(given.seconds);
    let nanos = u32::try_from(given.nanos);
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) => {
            Ok(Duration::new(seconds, nanos).min(WAIT_MAX))
        }
        _ => Err(Why::NotDuration.at("wait")),
    }
}

impl TryFrom<orders::ListOrdersRequest> for ListOrders {
    type Error = Invalid;

    fn try_from(request: orders::ListOrdersRequest) -> Result<Self, Invalid> {
        let customer_id = match request.customer_id.as_str() {
            "" => None,
            id => Some(CustomerId::from(uuid("customer_id", id)?)),
        };
        let page_size =
            page::size(request.page_size).map_err(|why| Why::from(why).at("page_size"))?;
        let after = page::after(LIST, filter(&customer_id), &request.page_token)
            .map_err(|why| Why::from(why).at("page_token"))?
            .map(OrderId);
        Ok(Self {
            customer_id,
            page_size,
            after,
        })
    }
}

impl ListOrders {
    /// The token of the page that begins after `last`.
    pub fn token_after(&self, last: OrderId) -> String {
        page::token(LIST, filter(&self.customer_id), last.0)
    }
}

fn filter(customer_id: &Option<CustomerId>) -> &[u8] {
    customer_id.as_ref().map_or(&[], |id| &id.0)
}

/// The id of an order as clients see it.
pub fn order_id(order: &orders::Order) -> Result<OrderId, Invalid> {
    uuid("order_id", &order.order_id).map(OrderId::from)
}

/// An order as clients see it.
pub fn order(order: &Order) -> orders::Order {
    let (state, cancellation_reason) = match order.state {
        State::Pending => (
            orders::OrderState::Pending,
            orders::CancellationReason::Unspecified,
        ),
        State::Approved => (
            orders::OrderState::Approved,
            orders::CancellationReason::Unspecified,
        ),
        State::Cancelled(why) => (orders::OrderState::Cancelled, reason(why)),
    };
    orders::Order {
        order_id: Uuid::from(order.order_id).to_string(),
        customer_id: Uuid::from(order.customer_id).to_string(),
        total: Some(total(order.total)),
        state: state.into(),
        cancellation_reason: cancellation_reason.into(),
        create_time: Some(timestamp(order.create_time)),
        update_time: Some(timestamp(order.update_time)),
        deadline: Some(timestamp(order.deadline)),
    }
}

fn reason(reason: Reason) -> orders::CancellationReason {
    match reason {
        Reason::CreditLimitExceeded => orders::CancellationReason::CreditLimitExceeded,
        Reason::UnknownCustomer => orders::CancellationReason::UnknownCustomer,
        Reason::CurrencyMismatch => orders::CancellationReason::CurrencyMismatch,
        Reason::ByCustomer => orders::CancellationReason::ByCustomer,
        Reason::TimedOut => orders::CancellationReason::TimedOut,
    }
}

fn total(total: Total) -> money::Money {
    money::Money {
        minor_units: total.minor_units(),
        currency: total.currency().code().to_owned(),
    }
}

fn timestamp(time: SystemTime) -> proto::Timestamp {
    // Times here are drawn by this service: after 1970, and before i64 seconds run out.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    proto::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// Not withdrawn (HRK) and not special (gold, a test, none), which have no minor unit.
fn is_in_use(currency: Iso4217) -> bool {
    currency.is_superseded().is_none() && currency.subunit_fraction().is_some()
}

/// Takes the hyphenated form only, the one that is written everywhere else, in either case.
fn uuid(field: &'static str, text: &str) -> Result<Uuid, Invalid> {
    match text.len() {
        0 => Err(Why::Missing.at(field)),
        36 => Uuid::try_parse(text).map_err(|_| Why::NotUuid.at(field)),
        _ => Err(Why::NotUuid.at(field)),
    }
}

#[cfg(test)]
mod tests;
