//! Who may call what: tokens that are no good, and tokens of another customer, over gRPC and NATS alike.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Issuer, Signer, System, eventually};
use proto::customers::v1::{
    CreateCustomerRequest, CreateCustomerResponse, GetCustomerRequest, GetCustomerResponse,
    ListCustomersRequest, ListCustomersResponse, ListReservationsRequest, ListReservationsResponse,
    SetCreditLimitRequest, SetCreditLimitResponse,
};
use proto::orders::v1::order_service_client::OrderServiceClient;
use proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, CreateOrderRequest, CreateOrderResponse,
    ListOrdersRequest, ListOrdersResponse, WatchOrderRequest,
};
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use crate::client::{Client, Failure, Transport, euros};
use crate::shared::on_system_with_tokens;

mod algorithms;
mod bad;
mod url;

/// A file of keys is looked at every two seconds.
const TAKEN_UP: Duration = Duration::from_secs(30);

fn issuer(system: &System) -> &Issuer {
    system.issuer().expect("its services ask for tokens")
}

async fn with(system: &System, transport: Transport, token: &str) -> Client {
    let client = Client::new(system, transport).await.expect("a client");
    client.with_token(Some(token))
}

/// What `GetOrder` of an order that is not there is answered: NOT_FOUND to who may ask.
async fn asked(client: &Client) -> (String, String) {
    let nowhere = Uuid::now_v7().to_string();
    let refusal = client
        .get_order(&nowhere)
        .await
        .expect_err("there is none")
        .refusal();
    (refusal.code, refusal.message)
}

#[test]
fn who_shows_no_good_token_is_not_known() {
    on_system_with_tokens(async |system| {
        for transport in Transport::ALL {
            let client = Client::new(system, transport).await.unwrap();
            let (code, message) = asked(&client.clone().with_token(None)).await;
            assert_eq!(code, "UNAUTHENTICATED", "{message}");
            assert!(
                message.starts_with("no token: send the header"),
                "{message}"
            );
            for (what, token, words) in bad::tokens(issuer(system)) {
                let (code, message) = asked(&client.clone().with_token(Some(&token))).await;
                assert_eq!(
                    code, "UNAUTHENTICATED",
                    "{what} over {transport:?}: {message}"
                );
                assert!(
                    message.contains(words),
                    "{what} over {transport:?}: {message}"
                );
                assert!(!message.contains("s3cr3t"), "{message}");
            }
            let other = client.with_authorization(&format!("Basic {}", issuer(system).operator()));
            assert_eq!(asked(&other).await.0, "UNAUTHENTICATED");
            let good = with(system, transport, &issuer(system).operator()).await;
            assert_eq!(asked(&good).await.0, "NOT_FOUND");
        }
    });
}

/// A customer with an order, and another customer's client.
struct Pair {
    operator: Client,
    ada: (String, Client),
    grace: (String, Client),
    order: String,
}

impl Pair {
    async fn on(system: &System, transport: Transport) -> Self {
        let operator = with(system, transport, &issuer(system).operator()).await;
        let mut both = Vec::new();
        for name in ["Ada", "Grace"] {
            let id = operator
                .create_customer(name, euros(10_000))
                .await
                .expect("it is done")
                .customer_id;
            let client = with(system, transport, &issuer(system).customer(&id)).await;
            both.push((id, client));
        }
        let (grace, ada) = (both.pop().expect("two"), both.pop().expect("two"));
        let order = ada
            .1
            .create_order(&ada.0, euros(100))
            .await
            .expect("it is done")
            .order_id;
        Self {
            operator,
            ada,
            grace,
            order,
        }
    }
}

fn code<A: std::fmt::Debug>(outcome: Result<A, Failure>) -> String {
    outcome.expect_err("it is refused").refusal().code
}

#[test]
fn a_customer_sees_and_changes_its_own_orders_alone() {
    on_system_with_tokens(async |system| {
        for transport in Transport::ALL {
            let Pair {
                operator,
                ada,
                grace,
                order,
            } = Pair::on(system, transport).await;
            // Another's order is refused in the words for one that is not there.
            let nowhere = Uuid::now_v7().to_string();
            let missing = grace.1.get_order(&nowhere).await.unwrap_err().refusal();
            let hidden = grace.1.get_order(&order).await.unwrap_err().refusal();
            assert_eq!(
                (hidden.code, hidden.http),
                (missing.code.clone(), missing.http)
            );
            assert_eq!(hidden.message, missing.message.replace(&nowhere, &order));
            assert_eq!(missing.code, "NOT_FOUND");
            assert_eq!(code(grace.1.cancel_order(&order).await), "NOT_FOUND");
            // An order in another's name.
            assert_eq!(
                code(grace.1.create_order(&ada.0, euros(1)).await),
                "PERMISSION_DENIED"
            );
            // A list is of one's own, asked for or not.
            let listed =
                async |client: &Client, customer_id: &str| -> Result<ListOrdersResponse, Failure> {
                    let customer_id = customer_id.to_owned();
                    let request = ListOrdersRequest {
                        customer_id,
                        ..Default::default()
                    };
                    client.call("orders.v1.ListOrders", &request).await
                };
            assert_eq!(listed(&grace.1, "").await.unwrap().orders, []);
            assert_eq!(code(listed(&grace.1, &ada.0).await), "PERMISSION_DENIED");
            for own in [ada.0.as_str(), ""] {
                let orders = listed(&ada.1, own).await.unwrap().orders;
                assert_eq!(orders.len(), 1, "{transport:?}");
                assert_eq!(orders[0].order_id, order);
            }
            assert_eq!(listed(&operator, &ada.0).await.unwrap().orders.len(), 1);
            // Its own goes on as ever.
            ada.1.settled_order(&order).await.unwrap();
            ada.1.cancel_order(&order).await.unwrap();
            operator.get_order(&order).await.unwrap();
        }
    });
}

#[test]
fn a_customer_cannot_watch_anothers_order() {
    on_system_with_tokens(async |system| {
        let Pair { ada, order, .. } = Pair::on(system, Transport::Grpc).await;
        let watch = async |customer: &str| {
            let mut client = OrderServiceClient::new(system.channel("order-service").unwrap());
            let mut request = tonic::Request::new(WatchOrderRequest {
                order_id: order.clone(),
            });
            let token = format!("Bearer {}", issuer(system).customer(customer));
            request
                .metadata_mut()
                .insert("authorization", token.parse().unwrap());
            client.watch_order(request).await.map(drop)
        };
        watch(&ada.0).await.expect("one's own order can be watched");
        let refused = watch(&Uuid::now_v7().to_string()).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    });
}

#[test]
fn an_id_of_a_request_does_not_lead_to_anothers_answer() {
    on_system_with_tokens(async |system| {
        let Pair {
            ada, grace, order, ..
        } = Pair::on(system, Transport::Grpc).await;
        let request_id = Uuid::now_v7().to_string();
        let create = CreateOrderRequest {
            request_id: request_id.clone(),
            customer_id: ada.0.clone(),
            total: Some(euros(1)),
            wait: None,
        };
        let created: Result<CreateOrderResponse, _> =
            ada.1.call("orders.v1.CreateOrder", &create).await;
        created.unwrap();
        let stolen: Result<CreateOrderResponse, _> =
            grace.1.call("orders.v1.CreateOrder", &create).await;
        assert_eq!(code(stolen), "PERMISSION_DENIED");
        let request_id = Uuid::now_v7().to_string();
        let cancel = CancelOrderRequest {
            order_id: order,
            request_id,
        };
        let cancelled: Result<CancelOrderResponse, _> =
            ada.1.call("orders.v1.CancelOrder", &cancel).await;
        cancelled.unwrap();
        let stolen: Result<CancelOrderResponse, _> =
            grace.1.call("orders.v1.CancelOrder", &cancel).await;
        assert_eq!(code(stolen), "NOT_FOUND");
    });
}

#[test]
fn a_customer_does_nothing_that_is_for_operators() {
    on_system_with_tokens(async |system| {
        for transport in Transport::ALL {
            let Pair {
                ada,
                grace,
                operator,
                ..
            } = Pair::on(system, transport).await;
            let customer = |id: &str| GetCustomerRequest {
                customer_id: id.to_owned(),
            };
            let of = |id: &str| ListReservationsRequest {
                customer_id: id.to_owned(),
                ..Default::default()
            };
            let create = CreateCustomerRequest {
                name: "Eve".to_owned(),
                credit_limit: Some(euros(1)),
                request_id: String::new(),
            };
            let limit = SetCreditLimitRequest {
                customer_id: ada.0.clone(),
                credit_limit: Some(euros(1_000_000)),
                request_id: String::new(),
            };
            let client = &ada.1;
            let created: Result<CreateCustomerResponse, _> =
                client.call("customers.v1.CreateCustomer", &create).await;
            assert_eq!(code(created), "PERMISSION_DENIED");
            let set: Result<SetCreditLimitResponse, _> =
                client.call("customers.v1.SetCreditLimit", &limit).await;
            assert_eq!(code(set), "PERMISSION_DENIED");
            let listed: Result<ListCustomersResponse, _> = client
                .call(
                    "customers.v1.ListCustomers",
                    &ListCustomersRequest::default(),
                )
                .await;
            assert_eq!(code(listed), "PERMISSION_DENIED");
            let get = "customers.v1.GetCustomer";
            let other: Result<GetCustomerResponse, _> = client.call(get, &customer(&grace.0)).await;
            assert_eq!(code(other), "PERMISSION_DENIED");
            let own: Result<GetCustomerResponse, _> = client.call(get, &customer(&ada.0)).await;
            own.unwrap();
            let list = "customers.v1.ListReservations";
            let other: Result<ListReservationsResponse, _> = client.call(list, &of(&grace.0)).await;
            assert_eq!(code(other), "PERMISSION_DENIED");
            let own: Result<ListReservationsResponse, _> = client.call(list, &of(&ada.0)).await;
            own.unwrap();
            let any: Result<ListReservationsResponse, _> = operator.call(list, &of(&ada.0)).await;
            any.unwrap();
            for service in ["order-service", "customer-service"] {
                let subject = format!("dead_letters.v1.{service}.ListDeadLetters");
                let listed = client
                    .call_nats(&subject, "application/json", b"{}".to_vec())
                    .await;
                assert_eq!(code(listed), "PERMISSION_DENIED", "{subject}");
                let listed = operator
                    .call_nats(&subject, "application/json", b"{}".to_vec())
                    .await;
                listed.unwrap();
            }
        }
    });
}

#[test]
fn a_scope_is_a_whole_word_and_a_customer_has_an_id() {
    on_system_with_tokens(async |system| {
        let id = Uuid::now_v7().to_string();
        for transport in [Transport::Grpc, Transport::NatsJson] {
            for (scope, subject, expected) in [
                ("", id.as_str(), "PERMISSION_DENIED"),
                ("operators", &id, "PERMISSION_DENIED"),
                ("Operator", &id, "PERMISSION_DENIED"),
                ("customer", "ada@example.com", "PERMISSION_DENIED"),
                ("openid operator", "ada@example.com", "NOT_FOUND"),
                ("openid customer", &id, "NOT_FOUND"),
            ] {
                let token = issuer(system).signed(&issuer(system).token(scope, subject));
                let found = asked(&with(system, transport, &token).await).await;
                assert_eq!(found.0, expected, "{scope:?} {subject}: {}", found.1);
            }
            let token = issuer(system)
                .token("customer", "ada@example.com")
                .claim("customer_id", json!(id));
            let found = asked(&with(system, transport, &issuer(system).signed(&token)).await).await;
            assert_eq!(found.0, "NOT_FOUND", "{}", found.1);
        }
    });
}

#[tokio::test]
async fn keys_are_replaced_without_a_restart() -> Result<()> {
    let system = System::builder().tokens().start().await?;
    let issuer = issuer(&system);
    let (old, new) = (issuer.operator(), Signer::new("second")?);
    let renewed = new.sign(&issuer.token("operator", "somebody").by(&new));
    let known = async |token: &str| -> Result<bool> {
        let mut known = Vec::new();
        for transport in [Transport::Grpc, Transport::NatsJson] {
            known.push(asked(&with(&system, transport, token).await).await.0 == "NOT_FOUND");
        }
        ensure!(known[0] == known[1], "gRPC and NATS disagree");
        Ok(known[0])
    };
    assert!(known(&old).await? && !known(&renewed).await?);
    issuer.publish(&[issuer.signer(), &new])?;
    eventually("the new key to be taken", TAKEN_UP, async || {
        Ok(known(&renewed).await?.then_some(()))
    })
    .await?;
    assert!(known(&old).await?, "the old key was still there");
    issuer.publish(&[&new])?;
    eventually("the old key to be refused", TAKEN_UP, async || {
        Ok((!known(&old).await?).then_some(()))
    })
    .await?;
    assert!(known(&renewed).await?);
    // Half a file changes nothing.
    issuer.publish_text(r#"{"keys":["#)?;
    let log = system.process("order-service").log();
    eventually("the log to say so", TAKEN_UP, async || {
        Ok(log
            .text()
            .contains("its keys as they were go on being used")
            .then_some(()))
    })
    .await?;
    assert!(known(&renewed).await?);
    // No token is in a log.
    for process in system.processes() {
        let text = process.log().text();
        for part in old.split('.').chain(renewed.split('.')) {
            assert!(!text.contains(part), "{} logs a token", process.name());
        }
    }
    Ok(())
}
