//! Every string field of every request, with a text in it.

use std::collections::BTreeSet;

use prost::Message;
use proto::customers::v1::{
    CreateCustomerRequest, CreateCustomerResponse, GetCustomerRequest, GetCustomerResponse,
    ListCustomersRequest, ListCustomersResponse, ListReservationsRequest, ListReservationsResponse,
    SetCreditLimitRequest, SetCreditLimitResponse,
};
use proto::dead_letters::v1::{
    ListDeadLettersRequest, ListDeadLettersResponse, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
};
use proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, CreateOrderRequest, CreateOrderResponse,
    GetOrderRequest, GetOrderResponse, ListOrdersRequest, ListOrdersResponse,
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::client::{Client, Failure, euros, money};

/// The contract, with each field of each message on a line.
const CONTRACT: &str = include_str!("../../../../../proto/contract.txt");

/// The operation, the field that the text was in, and what came of it.
pub(super) type Tried = (&'static str, &'static str, Result<(), Failure>);

/// A client, a customer who is there, and the text.
struct Attempt<'a> {
    client: &'a Client,
    customer_id: String,
    text: &'a str,
    tried: Vec<Tried>,
}

impl Attempt<'_> {
    async fn call<A>(
        &mut self,
        operation: &'static str,
        field: &'static str,
        request: impl Message + Serialize + Clone + 'static,
    ) where
        A: Message + DeserializeOwned + Default + 'static,
    {
        let answer = self.client.call::<_, A>(operation, &request).await;
        self.tried.push((operation, field, answer.map(drop)));
    }

    async fn orders(&mut self) {
        let text = || self.text.to_owned();
        let good = CreateOrderRequest {
            customer_id: self.customer_id.clone(),
            total: Some(euros(1)),
            ..Default::default()
        };
        let (customer_id, total) = (text(), Some(money(1, self.text)));
        let create = "orders.v1.CreateOrder";
        let [mut by_customer, mut by_total, mut by_id] = [(); 3].map(|()| good.clone());
        (by_customer.customer_id, by_total.total, by_id.request_id) = (customer_id, total, text());
        let cancel = CancelOrderRequest {
            order_id: text(),
            request_id: String::new(),
        };
        let cancel_by_id = CancelOrderRequest {
            order_id: Uuid::now_v7().to_string(),
            request_id: text(),
        };
        let get = GetOrderRequest {
            order_id: text(),
            wait: None,
        };
        let list = ListOrdersRequest {
            customer_id: text(),
            ..Default::default()
        };
        let page = ListOrdersRequest {
            page_token: text(),
            ..Default::default()
        };
        self.call::<CreateOrderResponse>(create, "customer_id", by_customer)
            .await;
        self.call::<CreateOrderResponse>(create, "total.currency", by_total)
            .await;
        self.call::<CreateOrderResponse>(create, "request_id", by_id)
            .await;
        let operation = "orders.v1.CancelOrder";
        self.call::<CancelOrderResponse>(operation, "order_id", cancel)
            .await;
        self.call::<CancelOrderResponse>(operation, "request_id", cancel_by_id)
            .await;
        self.call::<GetOrderResponse>("orders.v1.GetOrder", "order_id", get)
            .await;
        let operation = "orders.v1.ListOrders";
        self.call::<ListOrdersResponse>(operation, "customer_id", list)
            .await;
        self.call::<ListOrdersResponse>(operation, "page_token", page)
            .await;
    }

    async fn customers(&mut self) {
        let text = || self.text.to_owned();
        let create = CreateCustomerRequest {
            name: "Ada".to_owned(),
            credit_limit: Some(euros(1)),
            request_id: text(),
        };
        let create_in = CreateCustomerRequest {
            credit_limit: Some(money(1, self.text)),
            request_id: String::new(),
            ..create.clone()
        };
        let set = SetCreditLimitRequest {
            customer_id: self.customer_id.clone(),
            credit_limit: Some(euros(1)),
            request_id: text(),
        };
        let [mut set_of, mut set_in] = [(); 2].map(|()| set.clone());
        (set_of.customer_id, set_of.request_id) = (text(), String::new());
        (set_in.credit_limit, set_in.request_id) = (Some(money(1, self.text)), String::new());
        let get = GetCustomerRequest {
            customer_id: text(),
        };
        let list = ListCustomersRequest {
            page_size: 1,
            page_token: text(),
        };
        let of = ListReservationsRequest {
            customer_id: text(),
            ..Default::default()
        };
        let page_of = ListReservationsRequest {
            customer_id: self.customer_id.clone(),
            page_size: 1,
            page_token: text(),
        };
        let operation = "customers.v1.CreateCustomer";
        self.call::<CreateCustomerResponse>(operation, "request_id", create)
            .await;
        self.call::<CreateCustomerResponse>(operation, "credit_limit.currency", create_in)
            .await;
        let operation = "customers.v1.SetCreditLimit";
        self.call::<SetCreditLimitResponse>(operation, "request_id", set)
            .await;
        self.call::<SetCreditLimitResponse>(operation, "customer_id", set_of)
            .await;
        self.call::<SetCreditLimitResponse>(operation, "credit_limit.currency", set_in)
            .await;
        self.call::<GetCustomerResponse>("customers.v1.GetCustomer", "customer_id", get)
            .await;
        self.call::<ListCustomersResponse>("customers.v1.ListCustomers", "page_token", list)
            .await;
        let operation = "customers.v1.ListReservations";
        self.call::<ListReservationsResponse>(operation, "customer_id", of)
            .await;
        self.call::<ListReservationsResponse>(operation, "page_token", page_of)
            .await;
    }

    async fn letters(&mut self, [list, redrive]: [&'static str; 2]) {
        let page_token = self.text.to_owned();
        let asked = ListDeadLettersRequest {
            page_size: 1,
            page_token: page_token.clone(),
        };
        let all = RedriveDeadLettersRequest {
            all: true,
            page_token,
            ..Default::default()
        };
        self.call::<ListDeadLettersResponse>(list, "page_token", asked)
            .await;
        self.call::<RedriveDeadLettersResponse>(redrive, "page_token", all)
            .await;
    }
}

/// What every text is tried in, and must be refused there.
pub(super) async fn tried(client: &Client, customer_id: &str, text: &str) -> Vec<Tried> {
    let mut attempt = Attempt {
        client,
        customer_id: customer_id.to_owned(),
        text,
        tried: Vec::new(),
    };
    attempt.orders().await;
    attempt.customers().await;
    for operations in [
        [
            "dead_letters.v1.order-service.ListDeadLetters",
            "dead_letters.v1.order-service.RedriveDeadLetters",
        ],
        [
            "dead_letters.v1.customer-service.ListDeadLetters",
            "dead_letters.v1.customer-service.RedriveDeadLetters",
        ],
    ] {
        attempt.letters(operations).await;
    }
    attempt.tried
}

/// `CreateOrder customer_id` of each string field of each request, and of each sum of money in one.
pub(super) fn in_the_contract() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for line in CONTRACT.lines().filter(|line| line.starts_with("field ")) {
        let words: Vec<_> = line.split(' ').collect();
        let message = words[1].rsplit('.').next().unwrap_or_default();
        let Some(operation) = message.strip_suffix("Request") else {
            continue;
        };
        match words[4] {
            "string" => fields.insert(format!("{operation} {}", words[5])),
            "money.v1.Money" => fields.insert(format!("{operation} {}.currency", words[5])),
            _ => continue,
        };
    }
    fields
}
