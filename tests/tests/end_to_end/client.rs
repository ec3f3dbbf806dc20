//! A client of both services that speaks gRPC or NATS, so that a claim is tried over each.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use async_nats::HeaderMap;
use harness::{Side, System, eventually};
use proto::customers::v1::{
    CreateCustomerRequest, CreateCustomerResponse, Customer, GetCustomerRequest,
    GetCustomerResponse, SetCreditLimitRequest, SetCreditLimitResponse,
};
use proto::money::v1::Money;
use proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, CreateOrderRequest, CreateOrderResponse,
    GetOrderRequest, GetOrderResponse, Order, OrderState,
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic_types::StatusExt;

/// How requests travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    Grpc,
    NatsProtobuf,
    NatsJson,
}

impl Transport {
    pub(crate) const ALL: [Self; 3] = [Self::Grpc, Self::NatsProtobuf, Self::NatsJson];

    fn content_type(self) -> &'static str {
        match self {
            Self::NatsJson => "application/json",
            Self::Grpc | Self::NatsProtobuf => "application/protobuf",
        }
    }
}

/// What a service says instead of an answer.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{code} ({http:?}): {message}")]
pub(crate) struct Refusal {
    /// gRPC's name of the status: `INVALID_ARGUMENT`.
    pub(crate) code: String,
    /// `Nats-Service-Error-Code`; over gRPC none.
    pub(crate) http: Option<String>,
    pub(crate) message: String,
    /// The fields that the details of a gRPC status name.
    pub(crate) fields: Vec<String>,
}

/// An operation that failed: refused by the service, or not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no answer: {0:#}")]
    NoAnswer(#[from] anyhow::Error),
}

impl Failure {
    /// The service's refusal.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::NoAnswer(error) => panic!("the service did not answer: {error:#}"),
        }
    }
}

/// What both services serve, over NATS under their names.
const LETTERS: &str = "dead_letters.v1.DeadLetterService";

/// A client; clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) transport: Transport,
    orders: Channel,
    customers: Channel,
    pub(crate) nats: async_nats::Client,
    traceparent: Option<String>,
    authorization: Option<String>,
}

impl Client {
    pub(crate) async fn new(system: &System, transport: Transport) -> Result<Self> {
        Ok(Self {
            transport,
            orders: system.channel(Side::Orders.service())?,
            customers: system.channel(Side::Customers.service())?,
            nats: system.nats().client().await?,
            traceparent: None,
            authorization: system.issuer().map(|issuer| bearer(&issuer.operator())),
        })
    }

    /// The same client with another token than an operator's, or none.
    pub(crate) fn with_token(mut self, token: Option<&str>) -> Self {
        self.authorization = token.map(bearer);
        self
    }

    /// The same client with this header.
    pub(crate) fn with_authorization(mut self, value: &str) -> Self {
        self.authorization = Some(value.to_owned());
        self
    }

    /// The same client, whose requests belong to a trace.
    pub(crate) fn traced(mut self, traceparent: &str) -> Self {
        self.traceparent = Some(traceparent.to_owned());
        self
    }

    /// Calls an operation by its NATS subject, such as `orders.v1.CreateOrder`.
    pub(crate) async fn call<Q, A>(&self, operation: &str, request: &Q) -> Result<A, Failure>
    where
        Q: prost::Message + Serialize + Clone + 'static,
        A: prost::Message + DeserializeOwned + Default + 'static,
    {
        let body = match self.transport {
            Transport::Grpc => return self.call_grpc(operation, request.clone()).await,
            Transport::NatsProtobuf => request.encode_to_vec(),
            Transport::NatsJson => serde_json::to_vec(request).context("no JSON")?,
        };
        let content_type = self.transport.content_type();
        let answer = self.call_nats(operation, content_type, body).await?;
        let read = match self.transport {
            Transport::NatsJson => serde_json::from_slice(&answer).map_err(anyhow::Error::from),
            _ => A::decode(&*answer).map_err(anyhow::Error::from),
        };
        Ok(read.with_context(|| format!("the answer of {operation} cannot be read"))?)
    }

    /// Over gRPC, whatever this client's transport.
    pub(crate) async fn call_grpc<Q, A>(&self, operation: &str, request: Q) -> Result<A, Failure>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let (service, channel) = match operation.rsplit_once('.').unwrap_or_default().0 {
            "orders.v1" => ("orders.v1.OrderService", &self.orders),
            "dead_letters.v1.order-service" => (LETTERS, &self.orders),
            "dead_letters.v1.customer-service" => (LETTERS, &self.customers),
            _ => ("customers.v1.CustomerService", &self.customers),
        };
        let method = operation.rsplit('.').next().unwrap_or_default();
        let path = PathAndQuery::try_from(format!("/{service}/{method}")).context("no path")?;
        let mut request = tonic::Request::new(request);
        if let Some(traceparent) = &self.traceparent {
            let value = MetadataValue::try_from(traceparent).context("no header")?;
            request.metadata_mut().insert("traceparent", value);
        }
        if let Some(authorization) = &self.authorization {
            let value = MetadataValue::try_from(authorization).context("no header")?;
            request.metadata_mut().insert("authorization", value);
        }
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.context("no connection")?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        match grpc.unary(request, path, codec).await {
            Ok(response) => Ok(response.into_inner()),
            // A connection that ended under the call, in the words of tonic and not of the service.
            Err(status)
                if status.code() == tonic::Code::Internal
                    && std::error::Error::source(&status).is_some() =>
            {
                Err(Failure::NoAnswer(anyhow!(status)))
            }
            Err(status) => Err(refused(&status).into()),
        }
    }

    /// Over NATS, whatever this client's transport, and whatever the bytes.
    pub(crate) async fn call_nats(
        &self,
        subject: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<bytes::Bytes, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", content_type);
        if let Some(traceparent) = &self.traceparent {
            headers.insert("traceparent", traceparent.as_str());
        }
        if let Some(authorization) = &self.authorization {
            headers.insert("Authorization", authorization.as_str());
        }
        let sent = self
            .nats
            .request_with_headers(subject.to_owned(), headers, body.into());
        let reply = sent.await.context("no reply")?;
        let header = |name: &str| {
            let value = reply.headers.as_ref().and_then(|all| all.get(name));
            value.map(|value| value.as_str().to_owned())
        };
        if let Some(error) = header("Nats-Service-Error") {
            let (code, message) = error.split_once(": ").unwrap_or((&error, ""));
            return Err(Failure::Refused(Refusal {
                code: code.to_owned(),
                http: header("Nats-Service-Error-Code"),
                message: message.to_owned(),
                fields: Vec::new(),
            }));
        }
        let answered = header("Content-Type");
        if answered.as_deref() != Some(content_type) {
            return Err(anyhow!("asked in {content_type}, answered in {answered:?}").into());
        }
        Ok(reply.payload)
    }

    pub(crate) async fn create_customer(
        &self,
        name: &str,
        credit_limit: Money,
    ) -> Result<Customer, Failure> {
        let request = CreateCustomerRequest {
            request_id: String::new(),
            name: name.to_owned(),
            credit_limit: Some(credit_limit),
        };
        let created: CreateCustomerResponse =
            self.call("customers.v1.CreateCustomer", &request).await?;
        Ok(created.customer.context("an answer without a customer")?)
    }

    pub(crate) async fn get_customer(&self, customer_id: &str) -> Result<Customer, Failure> {
        let customer_id = customer_id.to_owned();
        let request = GetCustomerRequest { customer_id };
        let found: GetCustomerResponse = self.call("customers.v1.GetCustomer", &request).await?;
        Ok(found.customer.context("an answer without a customer")?)
    }

    pub(crate) async fn create_order(
        &self,
        customer_id: &str,
        total: Money,
    ) -> Result<Order, Failure> {
        let request = CreateOrderRequest {
            wait: None,
            request_id: String::new(),
            customer_id: customer_id.to_owned(),
            total: Some(total),
        };
        let created: CreateOrderResponse = self.call("orders.v1.CreateOrder", &request).await?;
        Ok(created.order.context("an answer without an order")?)
    }

    pub(crate) async fn cancel_order(&self, order_id: &str) -> Result<Order, Failure> {
        let order_id = order_id.to_owned();
        let cancelled: CancelOrderResponse = self
            .call(
                "orders.v1.CancelOrder",
                &CancelOrderRequest {
                    order_id,
                    request_id: String::new(),
                },
            )
            .await?;
        Ok(cancelled.order.context("an answer without an order")?)
    }

    pub(crate) async fn set_credit_limit(
        &self,
        customer_id: &str,
        credit_limit: Money,
    ) -> Result<Customer, Failure> {
        let request = SetCreditLimitRequest {
            request_id: String::new(),
            customer_id: customer_id.to_owned(),
            credit_limit: Some(credit_limit),
        };
        let set: SetCreditLimitResponse =
            self.call("customers.v1.SetCreditLimit", &request).await?;
        Ok(set.customer.context("an answer without a customer")?)
    }

    pub(crate) async fn get_order(&self, order_id: &str) -> Result<Order, Failure> {
        let order_id = order_id.to_owned();
        let found: GetOrderResponse = self
            .call(
                "orders.v1.GetOrder",
                &GetOrderRequest {
                    order_id,
                    wait: None,
                },
            )
            .await?;
        Ok(found.order.context("an answer without an order")?)
    }

    /// Awaits that the order is approved or cancelled.
    pub(crate) async fn settled_order(&self, order_id: &str) -> Result<Order> {
        let what = format!("order {order_id} to be settled");
        eventually(&what, SETTLE_DEADLINE, async || {
            let order = self.get_order(order_id).await?;
            ensure!(order.state() != OrderState::Pending, "it is pending");
            Ok(Some(order))
        })
        .await
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A moment, on an idle system; the machine may be busy.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn money(minor_units: i64, currency: &str) -> Money {
    let currency = currency.to_owned();
    Money {
        minor_units,
        currency,
    }
}

pub(crate) fn euros(minor_units: i64) -> Money {
    money(minor_units, "EUR")
}

fn refused(status: &tonic::Status) -> Refusal {
    let details = status.get_details_bad_request();
    let violations = details.map_or_else(Vec::new, |bad| bad.field_violations);
    // tonic's names in CamelCase → those of google.rpc.Code.
    let mut code = String::new();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_ascii_uppercase() && !code.is_empty() {
            code.push('_');
        }
        code.push(letter.to_ascii_uppercase());
    }
    Refusal {
        code,
        http: None,
        message: status.message().to_owned(),
        fields: violations.into_iter().map(|one| one.field).collect(),
    }
}
