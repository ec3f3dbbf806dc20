//! Every outcome of the saga, over gRPC and over NATS, and what else the services answer.

use std::time::Duration;

use futures_util::StreamExt;
use harness::{Side, System, eventually};
use proto::customers::v1::{CreditReserved, Customer, ListCustomersRequest, ListCustomersResponse};
use proto::orders::v1::{
    CancellationReason, ListOrdersRequest, ListOrdersResponse, Order, OrderApproved, OrderCreated,
    OrderState,
};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use uuid::Uuid;

use crate::client::{Client, Transport, euros, money};
use crate::events;
use crate::shared::on_shared_system;

const DEADLINE: Duration = Duration::from_secs(30);

/// Places an order and awaits what becomes of it.
async fn outcome(
    client: &Client,
    customer_id: &str,
    total: i64,
    currency: &str,
) -> (OrderState, CancellationReason) {
    let total = money(total, currency);
    let created = client.create_order(customer_id, total.clone()).await;
    let created = created.expect("an order is accepted");
    assert_eq!(created.state(), OrderState::Pending);
    let settled = client.settled_order(&created.order_id).await;
    let settled = settled.expect("an order is settled");
    assert_eq!(settled.customer_id, customer_id);
    assert_eq!(settled.total, Some(total));
    assert_eq!(settled.create_time, created.create_time);
    (settled.state(), settled.cancellation_reason())
}

const APPROVED: (OrderState, CancellationReason) =
    (OrderState::Approved, CancellationReason::Unspecified);

fn cancelled(reason: CancellationReason) -> (OrderState, CancellationReason) {
    (OrderState::Cancelled, reason)
}

async fn customer(system: &System, transport: Transport, limit: i64) -> (Client, Customer) {
    let client = Client::new(system, transport).await.expect("a client");
    let name = format!("{transport:?}");
    let customer = client.create_customer(&name, euros(limit)).await;
    (client, customer.expect("a customer is created"))
}

#[test]
fn an_order_within_the_limit_is_approved_and_reserves_its_total() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let (client, customer) = customer(system, transport, 1_000).await;
            assert_eq!(customer.available, Some(euros(1_000)));
            let ordered = outcome(&client, &customer.customer_id, 600, "EUR").await;
            assert_eq!(ordered, APPROVED, "{transport:?}");
            let found = client.get_customer(&customer.customer_id).await.unwrap();
            assert_eq!(found.reserved, Some(euros(600)), "{transport:?}");
            assert_eq!(found.available, Some(euros(400)), "{transport:?}");
            assert_eq!(found.name, customer.name);
            assert_eq!(found.create_time, customer.create_time);
        }
    });
}

#[test]
fn an_order_over_the_limit_is_cancelled_and_one_that_fits_exactly_is_approved() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let (client, customer) = customer(system, transport, 1_000).await;
            let id = &customer.customer_id;
            let exceeded = cancelled(CancellationReason::CreditLimitExceeded);
            assert_eq!(outcome(&client, id, 1_001, "EUR").await, exceeded);
            assert_eq!(outcome(&client, id, 400, "EUR").await, APPROVED);
            // Over what is left, though under the limit.
            assert_eq!(outcome(&client, id, 601, "EUR").await, exceeded);
            assert_eq!(outcome(&client, id, 600, "EUR").await, APPROVED);
            assert_eq!(outcome(&client, id, 1, "EUR").await, exceeded);
            let found = client.get_customer(id).await.unwrap();
            assert_eq!(found.available, Some(euros(0)), "{transport:?}");
        }
    });
}

#[test]
fn an_order_of_an_unknown_customer_is_cancelled() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let client = Client::new(system, transport).await.unwrap();
            let nobody = Uuid::now_v7().to_string();
            let unknown = cancelled(CancellationReason::UnknownCustomer);
            assert_eq!(outcome(&client, &nobody, 100, "EUR").await, unknown);
        }
    });
}

#[test]
fn an_order_in_another_currency_is_cancelled_and_reserves_nothing() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let (client, customer) = customer(system, transport, 1_000).await;
            let id = &customer.customer_id;
            let mismatch = cancelled(CancellationReason::CurrencyMismatch);
            assert_eq!(outcome(&client, id, 100, "USD").await, mismatch);
            let found = client.get_customer(id).await.unwrap();
            assert_eq!(found.reserved, Some(euros(0)), "{transport:?}");
        }
    });
}

#[test]
fn a_list_of_orders_comes_in_pages_the_oldest_first() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let (client, customer) = customer(system, transport, 1_000).await;
            let mut placed = Vec::new();
            for total in 1..=5 {
                let order = client.create_order(&customer.customer_id, euros(total));
                placed.push(order.await.unwrap().order_id);
            }
            let mut request = ListOrdersRequest {
                customer_id: customer.customer_id,
                page_size: 2,
                page_token: String::new(),
            };
            let mut sizes = Vec::new();
            let mut listed: Vec<Order> = Vec::new();
            loop {
                let page: ListOrdersResponse =
                    client.call("orders.v1.ListOrders", &request).await.unwrap();
                sizes.push(page.orders.len());
                listed.extend(page.orders);
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(sizes, [2, 2, 1], "{transport:?}");
            let listed: Vec<String> = listed.into_iter().map(|order| order.order_id).collect();
            assert_eq!(listed, placed, "{transport:?}");
        }
    });
}

#[test]
fn a_list_of_customers_comes_in_pages_the_oldest_first() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let mut created = Vec::new();
            let (client, first) = customer(system, transport, 1).await;
            created.push(first.customer_id);
            for limit in [0, 2] {
                let next = client.create_customer("next", euros(limit)).await.unwrap();
                created.push(next.customer_id);
            }
            let mut listed: Vec<String> = Vec::new();
            let mut request = ListCustomersRequest {
                page_size: 2,
                ..Default::default()
            };
            loop {
                let page: ListCustomersResponse = client
                    .call("customers.v1.ListCustomers", &request)
                    .await
                    .unwrap();
                assert!(page.customers.len() <= 2, "{transport:?}");
                listed.extend(page.customers.into_iter().map(|found| found.customer_id));
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            // Others make customers at the same time.
            assert!(listed.is_sorted(), "{transport:?}: {listed:?}");
            listed.retain(|id| created.contains(id));
            assert_eq!(listed, created, "{transport:?}");
        }
    });
}

#[test]
fn the_trace_of_a_request_is_that_of_every_event_it_leads_to() {
    on_shared_system(async |system| {
        for transport in Transport::ALL {
            let (client, customer) = customer(system, transport, 1_000).await;
            let trace_id = Uuid::now_v7().simple().to_string();
            let client = client.traced(&format!("00-{trace_id}-b7ad6b7169203331-01"));
            let order = client.create_order(&customer.customer_id, euros(1)).await;
            let order_id = order.unwrap().order_id;
            let traced = async || {
                let is_ours = |id: &str| id == order_id;
                let created =
                    events::find::<OrderCreated>(system, Side::Orders, |e| is_ours(&e.order_id));
                let reserved = events::find::<CreditReserved>(system, Side::Customers, |e| {
                    is_ours(&e.order_id)
                });
                let approved =
                    events::find::<OrderApproved>(system, Side::Orders, |e| is_ours(&e.order_id));
                Ok(Some([created.await?, reserved.await?, approved.await?]))
            };
            let found = eventually("the three events", DEADLINE, traced).await;
            for event in found.unwrap() {
                let traceparent = &event.traceparent;
                assert_eq!(
                    traceparent.split('-').nth(1),
                    Some(trace_id.as_str()),
                    "{transport:?}, {}: {traceparent:?}",
                    event.event_type
                );
            }
        }
    });
}

#[test]
fn grpc_health_says_serving() {
    on_shared_system(async |system| {
        for (side, name) in [
            (Side::Orders, "orders.v1.OrderService"),
            (Side::Customers, "customers.v1.CustomerService"),
        ] {
            let mut health = HealthClient::new(system.channel(side.service()).unwrap());
            for service in ["", name] {
                let service = service.to_owned();
                let answer = health.check(HealthCheckRequest { service }).await.unwrap();
                assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
            }
        }
    });
}

#[test]
fn grpc_reflection_lists_the_service() {
    on_shared_system(async |system| {
        for (side, name) in [
            (Side::Orders, "orders.v1.OrderService"),
            (Side::Customers, "customers.v1.CustomerService"),
        ] {
            let mut reflection =
                ServerReflectionClient::new(system.channel(side.service()).unwrap());
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let answers = reflection
                .server_reflection_info(futures_util::stream::iter([request]))
                .await
                .unwrap();
            let answer = answers.into_inner().next().await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("not a list: {answer:?}");
            };
            assert!(list.service.iter().any(|found| found.name == name));
        }
    });
}

#[test]
fn both_services_answer_the_nats_service_api() {
    on_shared_system(async |system| {
        let nats = system.nats().client().await.unwrap();
        for (side, group, operations) in [
            (
                Side::Orders,
                "orders.v1",
                ["CreateOrder", "CancelOrder", "GetOrder", "ListOrders"],
            ),
            (
                Side::Customers,
                "customers.v1",
                [
                    "CreateCustomer",
                    "SetCreditLimit",
                    "GetCustomer",
                    "ListCustomers",
                ],
            ),
        ] {
            let ask = async |verb: &str| -> serde_json::Value {
                let subject = format!("$SRV.{verb}.{}", side.service());
                let reply = nats.request(subject, "".into()).await.unwrap();
                serde_json::from_slice(&reply.payload).unwrap()
            };
            assert_eq!(ask("PING").await["name"], side.service());
            let info = ask("INFO").await;
            let stats = ask("STATS").await;
            for operation in operations {
                let subject = format!("{group}.{operation}");
                for answer in [&info, &stats] {
                    let endpoints = answer["endpoints"].as_array().unwrap();
                    assert!(
                        endpoints.iter().any(|one| one["subject"] == subject),
                        "{subject} is not in {answer}"
                    );
                }
            }
        }
        // Who asks nobody in particular hears from both.
        let inbox = nats.new_inbox();
        let mut replies = nats.subscribe(inbox.clone()).await.unwrap();
        nats.publish_with_reply("$SRV.PING", inbox, "".into())
            .await
            .unwrap();
        let mut silent = vec!["customer-service", "order-service"];
        let answered = tokio::time::timeout(DEADLINE, async {
            while !silent.is_empty() {
                let reply = replies.next().await.unwrap();
                let ping: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
                silent.retain(|name| ping["name"] != *name);
            }
        });
        assert!(answered.await.is_ok(), "{silent:?} did not answer");
    });
}
