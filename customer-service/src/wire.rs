//! Between protobuf and the domain. Protobuf stops here: what comes in is checked field by field,
//! and what is wrong is told with the field's name.

use std::time::{SystemTime, UNIX_EPOCH};

use chassis::page;
use iso_currency::Currency as Iso4217;
use proto::{customers::v1 as customers, money::v1 as money};
use uuid::Uuid;

use crate::domain::{
    CreditLimit, Currency, Customer, CustomerId, InvalidName, MalformedCurrency, Name,
    NegativeLimit, NonPositiveAmount, OrderId, RefusalKind, ReservationState,
};
use crate::store::Listed;

mod events;

pub use events::{
    EVENTS, ORDER_CANCELLED, ORDER_CREATED, Unreadable, credit_limit_changed,
    credit_limit_exceeded, credit_released, credit_reserved, currency_mismatch, customer_created,
    customer_not_found, event,
};

mod letters;

pub use letters::json;

/// The lists' names, which their page tokens are bound to.
const CUSTOMERS: &str = "customers.v1.Customer";
const RESERVATIONS: &str = "customers.v1.Reservation";

/// A field that cannot be taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Invalid {
    /// The field's path in its message, such as `credit_limit.currency`.
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
    #[error(transparent)]
    Currency(#[from] MalformedCurrency),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Limit(#[from] NegativeLimit),
    #[error(transparent)]
    Amount(#[from] NonPositiveAmount),
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

/// A checked `CreateCustomerRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateCustomer {
    pub name: Name,
    pub credit_limit: CreditLimit,
}

/// A checked `SetCreditLimitRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetCreditLimit {
    pub customer_id: CustomerId,
    pub credit_limit: CreditLimit,
}

/// A checked `GetCustomerRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetCustomer {
    pub customer_id: CustomerId,
}

/// A checked `ListCustomersRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCustomers {
    /// Customers on the page at most; more than 0.
    pub page_size: usize,
    /// The last customer of the page before.
    pub after: Option<CustomerId>,
}

/// A checked `ListReservationsRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListReservations {
    pub customer_id: CustomerId,
    /// Reservations on the page at most; more than 0.
    pub page_size: usize,
    /// The order of the last reservation of the page before.
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

impl TryFrom<customers::CreateCustomerRequest> for CreateCustomer {
    type Error = Invalid;

    fn try_from(request: customers::CreateCustomerRequest) -> Result<Self, Invalid> {
        if request.name.is_empty() {
            return Err(Why::Missing.at("name"));
        }
        let name = Name::new(request.name).map_err(|why| Why::from(why).at("name"))?;
        let credit_limit = limit(request.credit_limit, is_in_use)?;
        Ok(Self { name, credit_limit })
    }
}

impl TryFrom<customers::SetCreditLimitRequest> for SetCreditLimit {
    type Error = Invalid;

    fn try_from(request: customers::SetCreditLimitRequest) -> Result<Self, Invalid> {
        Ok(Self {
            customer_id: uuid("customer_id", &request.customer_id)?.into(),
            // A currency that was withdrawn since the customer was created is still the customer's.
            credit_limit: limit(request.credit_limit, |_| true)?,
        })
    }
}

/// A limit in a currency of ISO 4217 that is `fit`. An account in a currency that no order can be in
/// would be of no use, and could not be mended.
fn limit(given: Option<money::Money>, fit: fn(Iso4217) -> bool) -> Result<CreditLimit, Invalid> {
    let limit = given.ok_or(Why::Missing.at("credit_limit"))?;
    if limit.currency.is_empty() {
        return Err(Why::Missing.at("credit_limit.currency"));
    }
    let currency = Iso4217::from_code(&limit.currency)
        .filter(|known| fit(*known))
        .and_then(|known| Currency::new(known.code()).ok())
        .ok_or(Why::UnknownCurrency.at("credit_limit.currency"))?;
    CreditLimit::new(limit.minor_units, currency)
        .map_err(|why| Why::from(why).at("credit_limit.minor_units"))
}

impl TryFrom<customers::GetCustomerRequest> for GetCustomer {
    type Error = Invalid;

    fn try_from(request: customers::GetCustomerRequest) -> Result<Self, Invalid> {
        Ok(Self {
            customer_id: uuid("customer_id", &request.customer_id)?.into(),
        })
    }
}

impl TryFrom<customers::ListCustomersRequest> for ListCustomers {
    type Error = Invalid;

    fn try_from(request: customers::ListCustomersRequest) -> Result<Self, Invalid> {
        let page_size =
            page::size(request.page_size).map_err(|why| Why::from(why).at("page_size"))?;
        let after = page::after(CUSTOMERS, &[], &request.page_token)
            .map_err(|why| Why::from(why).at("page_token"))?
            .map(CustomerId);
        Ok(Self { page_size, after })
    }
}

impl ListCustomers {
    /// The token of the page that begins after `last`.
    pub fn token_after(&self, last: CustomerId) -> String {
        page::token(CUSTOMERS, &[], last.0)
    }
}

impl TryFrom<customers::ListReservationsRequest> for ListReservations {
    type Error = Invalid;

    fn try_from(request: customers::ListReservationsRequest) -> Result<Self, Invalid> {
        let customer_id = CustomerId::from(uuid("customer_id", &request.customer_id)?);
        let page_size =
            page::size(request.page_size).map_err(|why| Why::from(why).at("page_size"))?;
        let after = page::after(RESERVATIONS, &customer_id.0, &request.page_token)
            .map_err(|why| Why::from(why).at("page_token"))?
            .map(OrderId);
        Ok(Self {
            customer_id,
            page_size,
            after,
        })
    }
}

impl ListReservations {
    /// The token of the page that begins after `last`.
    pub fn token_after(&self, last: OrderId) -> String {
        page::token(RESERVATIONS, &self.customer_id.0, last.0)
    }
}

/// A reservation as clients see it.
pub fn reservation(listed: &Listed) -> customers::Reservation {
    let amount = listed.reservation.amount;
    let state = match listed.reservation.state {
        ReservationState::Active => customers::ReservationState::Active,
        ReservationState::Refused => customers::ReservationState::Refused,
        ReservationState::Released => customers::ReservationState::Released,
    };
    let refusal_reason = match listed.refusal {
        None => customers::RefusalReason::Unspecified,
        Some(RefusalKind::CreditLimitExceeded) => customers::RefusalReason::CreditLimitExceeded,
        Some(RefusalKind::CustomerNotFound) => customers::RefusalReason::CustomerNotFound,
        Some(RefusalKind::CurrencyMismatch) => customers::RefusalReason::CurrencyMismatch,
    };
    customers::Reservation {
        order_id: Uuid::from(listed.order_id).to_string(),
        amount: Some(money(amount.minor_units(), amount.currency())),
        state: state.into(),
        refusal_reason: refusal_reason.into(),
        create_time: Some(timestamp(listed.create_time)),
        release_time: listed.release_time.map(timestamp),
    }
}

/// A customer as clients see them.
pub fn customer(customer: &Customer) -> customers::Customer {
    let account = &customer.account;
    let in_its_currency = |minor_units| Some(money(minor_units, account.limit().currency()));
    customers::Customer {
        customer_id: Uuid::from(customer.customer_id).to_string(),
        name: customer.name.as_str().to_owned(),
        credit_limit: in_its_currency(account.limit().minor_units()),
        reserved: in_its_currency(account.reserved()),
        available: in_its_currency(account.available()),
        create_time: Some(timestamp(customer.create_time)),
    }
}

fn money(minor_units: i64, currency: Currency) -> money::Money {
    money::Money {
        minor_units,
        currency: currency.code().to_owned(),
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
