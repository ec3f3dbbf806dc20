//! The operations that clients call. One set of methods serves gRPC and NATS requests alike.

use std::time::Duration;

use chassis::auth::Caller;
use chassis::{failure, invalid, precondition};
use deadpool_postgres::{Client, Pool};
use mailbox::outbox;
use mailbox::requests::Key;
use proto::customers::v1::customer_service_server::CustomerService;
use proto::customers::v1::{
    CreateCustomerRequest, CreateCustomerResponse, GetCustomerRequest, GetCustomerResponse,
    ListCustomersRequest, ListCustomersResponse, ListReservationsRequest, ListReservationsResponse,
    SetCreditLimitRequest, SetCreditLimitResponse,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::domain::{Account, Customer, CustomerId, LimitChange, LimitRefusal};
use crate::{once, store, wire};

mod doors;

pub use doors::{grpc, nats};

/// The aggregate type of this service's events.
pub const AGGREGATE: &str = "customer";

/// The NATS service for this service's dead letters, and what its subjects begin with.
pub const DEAD_LETTERS: (&str, &str) = (
    "customer-service-dead-letters",
    "dead_letters.v1.customer-service",
);

/// The Customer Service's operations on its database.
#[derive(Debug)]
pub struct Customers {
    pool: Pool,
    kept: Duration,
}

impl Customers {
    /// Answers to requests with an id are kept for `kept`.
    pub fn new(pool: Pool, kept: Duration) -> Self {
        Self { pool, kept }
    }

    /// Stores a new customer together with its event, or neither (I1).
    async fn admit(
        &self,
        customer: &Customer,
        request: Option<&Key>,
    ) -> Result<CreateCustomerResponse, Status> {
        let created = wire::customer_created(customer);
        let event = outbox::Event::new(AGGREGATE, customer.customer_id.into(), &created);
        let mut connection = failure::connection(&self.pool).await?;
        let outcome = insert(&mut connection, customer, event, request).await;
        connection.release();
        outcome
    }

    /// Stores a customer's new limit together with its event, or neither (I1).
    async fn limit(
        &self,
        asked: &wire::SetCreditLimit,
        request: Option<&Key>,
    ) -> Result<SetCreditLimitResponse, Status> {
        let mut connection = failure::connection(&self.pool).await?;
        let outcome = set_limit(&mut connection, asked, request).await;
        connection.release();
        outcome
    }
}

async fn set_limit(
    client: &mut Client,
    asked: &wire::SetCreditLimit,
    request: Option<&Key>,
) -> Result<SetCreditLimitResponse, Status> {
    let tx = client.transaction().await.map_err(failure::status)?;
    let found = store::lock(&tx, asked.customer_id).await.map_err(refused)?;
    let mut customer = found.ok_or_else(|| not_found(asked.customer_id))?;
    if let Some(first) = once::answered(&tx, request).await? {
        return Ok(first);
    }
    let changed = customer.account.set_limit(asked.credit_limit);
    let changed = changed.map_err(|why| unfit(asked, &why))?;
    let answer = SetCreditLimitResponse {
        customer: Some(wire::customer(&customer)),
    };
    let recorded = once::record(&tx, request, &answer).await;
    if !recorded? {
        tx.rollback().await.map_err(failure::status)?;
        return once::in_its_stead(client, request).await;
    }
    if let LimitChange::From(previous) = changed {
        let message = wire::credit_limit_changed(&customer, previous);
        let events = [outbox::Event::new(
            AGGREGATE,
            asked.customer_id.into(),
            &message,
        )];
        let (written, appended) = tokio::join!(
            store::set_limit(&tx, &customer),
            outbox::append(&tx, &events)
        );
        written.map_err(refused)?;
        appended.map_err(failure::status)?;
    }
    tx.commit().await.map_err(failure::commit_status)?;
    Ok(answer)
}

async fn insert(
    client: &mut Client,
    customer: &Customer,
    event: outbox::Event,
    request: Option<&Key>,
) -> Result<CreateCustomerResponse, Status> {
    let answer = CreateCustomerResponse {
        customer: Some(wire::customer(customer)),
    };
    let tx = client.transaction().await.map_err(failure::status)?;
    // Sent together: one round trip for all. The first error counts, because what follows it fails
    // only for being in the same transaction.
    let events = [event];
    let (recorded, inserted, appended) = tokio::join!(
        once::record(&tx, request, &answer),
        store::insert(&tx, customer),
        outbox::append(&tx, &events)
    );
    if !recorded? {
        tx.rollback().await.map_err(failure::status)?;
        return once::in_its_stead(client, request).await;
    }
    inserted.map_err(refused)?;
    appended.map_err(failure::status)?;
    tx.commit().await.map_err(failure::commit_status)?;
    metrics::counter!("customers_created_total").increment(1);
    Ok(answer)
}

#[tonic::async_trait]
impl CustomerService for Customers {
    async fn create_customer(
        &self,
        request: Request<CreateCustomerRequest>,
    ) -> Result<Response<CreateCustomerResponse>, Status> {
        let mut message = request.into_inner();
        let id = std::mem::take(&mut message.request_id);
        let request = once::request(&id, "customers.v1.CreateCustomer", &message, self.kept)?;
        let asked = wire::CreateCustomer::try_from(message).map_err(invalid)?;
        let customer = Customer {
            customer_id: Uuid::now_v7().into(),
            name: asked.name,
            account: Account::open(asked.credit_limit),
            create_time: store::now(),
        };
        let answer = self.admit(&customer, request.as_ref()).await?;
        Ok(Response::new(answer))
    }

    async fn set_credit_limit(
        &self,
        request: Request<SetCreditLimitRequest>,
    ) -> Result<Response<SetCreditLimitResponse>, Status> {
        let mut message = request.into_inner();
        let id = std::mem::take(&mut message.request_id);
        let request = once::request(&id, "customers.v1.SetCreditLimit", &message, self.kept)?;
        let asked = wire::SetCreditLimit::try_from(message).map_err(invalid)?;
        let answer = self.limit(&asked, request.as_ref()).await?;
        Ok(Response::new(answer))
    }

    async fn get_customer(
        &self,
        request: Request<GetCustomerRequest>,
    ) -> Result<Response<GetCustomerResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = wire::GetCustomer::try_from(request.into_inner()).map_err(invalid)?;
        caller.check(asked.customer_id)?;
        let connection = failure::connection(&self.pool).await?;
        let found = store::get(&connection, asked.customer_id).await;
        connection.release();
        let customer = found
            .map_err(refused)?
            .ok_or_else(|| not_found(asked.customer_id))?;
        Ok(Response::new(GetCustomerResponse {
            customer: Some(wire::customer(&customer)),
        }))
    }

    async fn list_customers(
        &self,
        request: Request<ListCustomersRequest>,
    ) -> Result<Response<ListCustomersResponse>, Status> {
        let asked = wire::ListCustomers::try_from(request.into_inner()).map_err(invalid)?;
        let connection = failure::connection(&self.pool).await?;
        let found = store::list(&connection, asked.after, asked.page_size + 1).await;
        connection.release();
        let (customers, more) = one_page(found.map_err(refused)?, asked.page_size);
        let last = customers.last().filter(|_| more);
        let next_page_token = last.map(|last| asked.token_after(last.customer_id));
        Ok(Response::new(ListCustomersResponse {
            customers: customers.iter().map(wire::customer).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }

    async fn list_reservations(
        &self,
        request: Request<ListReservationsRequest>,
    ) -> Result<Response<ListReservationsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = wire::ListReservations::try_from(request.into_inner()).map_err(invalid)?;
        caller.check(asked.customer_id)?;
        let connection = failure::connection(&self.pool).await?;
        let limit = asked.page_size + 1;
        let found =
            store::list_reservations(&connection, asked.customer_id, asked.after, limit).await;
        connection.release();
        let (listed, more) = one_page(found.map_err(refused)?, asked.page_size);
        let last = listed.last().filter(|_| more);
        let next_page_token = last.map(|last| asked.token_after(last.order_id));
        Ok(Response::new(ListReservationsResponse {
            reservations: listed.iter().map(wire::reservation).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }
}

/// Of what was read for a page, one more than it holds, what is on it; and whether there is a next page.
fn one_page<T>(mut rows: Vec<T>, page_size: usize) -> (Vec<T>, bool) {
    let more = rows.len() > page_size;
    rows.truncate(page_size);
    (rows, more)
}

fn invalid(invalid: wire::Invalid) -> Status {
    invalid::argument(invalid.field, invalid.why)
}

fn not_found(customer_id: CustomerId) -> Status {
    let customer_id = Uuid::from(customer_id);
    Status::not_found(format!("there is no customer {customer_id}"))
}

/// A limit that is right by itself, but not for the customer as it stands.
fn unfit(asked: &wire::SetCreditLimit, why: &LimitRefusal) -> Status {
    let wanted = asked.credit_limit;
    let subject = format!("customers/{}", Uuid::from(asked.customer_id));
    match why {
        LimitRefusal::OtherCurrency { account } => precondition::failed(
            "CURRENCY",
            &subject,
            &format!(
                "credit_limit.currency: must be {}, in which the customer was created",
                account.code()
            ),
        ),
        LimitRefusal::BelowReserved { reserved, short_by } => precondition::failed(
            "RESERVED",
            &subject,
            &format!(
                "credit_limit.minor_units: {reserved} minor units of {} are reserved, {short_by} more than {}",
                wanted.currency().code(),
                wanted.minor_units()
            ),
        ),
    }
}

fn refused(error: store::Error) -> Status {
    match error {
        store::Error::InvalidName(why) => invalid::argument("name", why),
        store::Error::NegativeLimit(why) => invalid::argument("credit_limit.minor_units", why),
        store::Error::MalformedCurrency(why) => invalid::argument("credit_limit.currency", why),
        store::Error::Postgres(error) => failure::status(error),
        unreadable @ store::Error::Unreadable { .. } => failure::internal(&unreadable.to_string()),
    }
}
