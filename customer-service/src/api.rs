//! The operations that clients call. One set of methods serves gRPC and NATS requests alike.

use std::sync::Arc;
use std::time::Duration;

use chassis::grpc::MESSAGE_SIZE_MAX;
use chassis::{failure, invalid, precondition, rpc};
use deadpool_postgres::{Client, Pool};
use mailbox::outbox;
use mailbox::requests::Key;
use proto::customers::v1::customer_service_server::{CustomerService, CustomerServiceServer};
use proto::customers::v1::{
    CreateCustomerRequest, CreateCustomerResponse, GetCustomerRequest, GetCustomerResponse,
    ListCustomersRequest, ListCustomersResponse, SetCreditLimitRequest, SetCreditLimitResponse,
};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::domain::{Account, Customer, CustomerId, LimitChange, LimitRefusal};
use crate::{once, store, wire};

/// The aggregate type of this service's events.
pub const AGGREGATE: &str = "customer";

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
    async fn admit(&self, customer: &Customer) -> Result<(), Status> {
        let created = wire::customer_created(customer);
        let event = outbox::Event::new(AGGREGATE, customer.customer_id.into(), &created);
        let mut connection = failure::connection(&self.pool).await?;
        let outcome = insert(&mut connection, customer, event).await;
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
    if !recorded.map_err(failure::status)? {
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
) -> Result<(), Status> {
    let tx = client.transaction().await.map_err(failure::status)?;
    // Sent together: one round trip for both. The first one's error counts, because the second
    // fails only for being in the same transaction.
    let events = [event];
    let (inserted, appended) =
        tokio::join!(store::insert(&tx, customer), outbox::append(&tx, &events));
    inserted.map_err(refused)?;
    appended.map_err(failure::status)?;
    tx.commit().await.map_err(failure::commit_status)
}

#[tonic::async_trait]
impl CustomerService for Customers {
    async fn create_customer(
        &self,
        request: Request<CreateCustomerRequest>,
    ) -> Result<Response<CreateCustomerResponse>, Status> {
        let asked = wire::CreateCustomer::try_from(request.into_inner()).map_err(invalid)?;
        let customer = Customer {
            customer_id: Uuid::now_v7().into(),
            name: asked.name,
            account: Account::open(asked.credit_limit),
            create_time: store::now(),
        };
        self.admit(&customer).await?;
        metrics::counter!("customers_created_total").increment(1);
        Ok(Response::new(CreateCustomerResponse {
            customer: Some(wire::customer(&customer)),
        }))
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
        let asked = wire::GetCustomer::try_from(request.into_inner()).map_err(invalid)?;
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
        // One more than the page holds tells whether there is a next page.
        let found = store::list(&connection, asked.after, asked.page_size + 1).await;
        connection.release();
        let mut customers = found.map_err(refused)?;
        let is_last = customers.len() <= asked.page_size;
        customers.truncate(asked.page_size);
        let next_page_token = match customers.last() {
            Some(last) if !is_last => asked.token_after(last.customer_id),
            _ => String::new(),
        };
        Ok(Response::new(ListCustomersResponse {
            customers: customers.iter().map(wire::customer).collect(),
            next_page_token,
        }))
    }
}

/// The operations over gRPC.
pub fn grpc(customers: &Arc<Customers>) -> Routes {
    let server = CustomerServiceServer::from_arc(Arc::clone(customers))
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(MESSAGE_SIZE_MAX);
    Routes::new(server)
}

/// The same operations over NATS requests.
pub fn nats(customers: &Arc<Customers>) -> rpc::Api {
    let [create, set_limit, get, list] = [(); 4].map(|()| Arc::clone(customers));
    rpc::Api::new(
        "customer-service",
        env!("CARGO_PKG_VERSION"),
        "Keeps customers and the credit that their orders reserve",
        "customers.v1",
    )
    .operation("CreateCustomer", move |request| {
        let customers = Arc::clone(&create);
        async move { customers.create_customer(request).await }
    })
    .operation("SetCreditLimit", move |request| {
        let customers = Arc::clone(&set_limit);
        async move { customers.set_credit_limit(request).await }
    })
    .operation("GetCustomer", move |request| {
        let customers = Arc::clone(&get);
        async move { customers.get_customer(request).await }
    })
    .operation("ListCustomers", move |request| {
        let customers = Arc::clone(&list);
        async move { customers.list_customers(request).await }
    })
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
                "credit_limit.minor_units: {reserved} {} are reserved, {short_by} more than {}",
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
