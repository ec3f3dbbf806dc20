//! Bad input is refused, and the refusal names the field.

use harness::{Side, System};
use prost::Message;
use proto::customers::v1::{
    CreateCustomerRequest, CreateCustomerResponse, GetCustomerRequest, GetCustomerResponse,
    ListCustomersRequest, ListCustomersResponse,
};
use proto::money::v1::Money;
use proto::orders::v1::{
    CreateOrderRequest, CreateOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest,
    ListOrdersResponse,
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::client::{Client, Refusal, Transport, euros, money};
use crate::shared::on_shared_system;

/// Asserts that a request is refused as INVALID_ARGUMENT, in the transport's way, for a field.
pub(crate) fn assert_names(refusal: &Refusal, transport: Transport, field: &str) {
    let context = format!("{transport:?}: {refusal:?}, which should name {field}");
    assert_eq!(refusal.code, "INVALID_ARGUMENT", "{context}");
    let why = refusal.message.strip_prefix(&format!("{field}: "));
    assert!(why.is_some_and(|why| !why.is_empty()), "{context}");
    match transport {
        Transport::Grpc => assert_eq!(refusal.fields, [field], "{context}"),
        _ => assert_eq!(refusal.http.as_deref(), Some("400"), "{context}"),
    }
}

async fn refused<Q, A>(client: &Client, operation: &str, request: Q, field: &str)
where
    Q: Message + Serialize + Clone + std::fmt::Debug + 'static,
    A: Message + DeserializeOwned + Default + std::fmt::Debug + 'static,
{
    match client.call::<Q, A>(operation, &request).await {
        Ok(answer) => panic!("{operation} took {request:?} and answered {answer:?}"),
        Err(failure) => assert_names(&failure.refusal(), client.transport, field),
    }
}

pub(crate) async fn every_client(system: &System) -> Vec<Client> {
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(Client::new(system, transport).await.expect("a client"));
    }
    clients
}

/// What no money should look like: the field within it, and the money.
fn bad_money(below_the_least: i64) -> [(&'static str, Option<Money>); 6] {
    [
        ("", None),
        (".minor_units", Some(euros(below_the_least))),
        (".minor_units", Some(euros(i64::MIN))),
        (".currency", Some(money(1, ""))),
        (".currency", Some(money(1, "XYZ"))),
        (".currency", Some(money(1, "eur"))),
    ]
}

const BAD_IDS: [&str; 4] = [
    "",
    "17",
    "0192f8c16d3e7a449a513c5b8e0d2f17",
    "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f1g",
];

#[test]
fn a_bad_order_is_refused_by_its_field() {
    on_shared_system(async |system| {
        let operation = "orders.v1.CreateOrder";
        for client in every_client(system).await {
            for (field, total) in bad_money(0) {
                let request = CreateOrderRequest {
                    wait: None,
                    request_id: String::new(),
                    customer_id: Uuid::now_v7().to_string(),
                    total,
                };
                let field = format!("total{field}");
                refused::<_, CreateOrderResponse>(&client, operation, request, &field).await;
            }
            for id in BAD_IDS {
                let request = CreateOrderRequest {
                    wait: None,
                    request_id: String::new(),
                    customer_id: id.into(),
                    total: Some(euros(1)),
                };
                let field = "customer_id";
                refused::<_, CreateOrderResponse>(&client, operation, request, field).await;
            }
        }
    });
}

#[test]
fn a_bad_customer_is_refused_by_its_field() {
    on_shared_system(async |system| {
        let operation = "customers.v1.CreateCustomer";
        for client in every_client(system).await {
            for (field, credit_limit) in bad_money(-1) {
                let request = CreateCustomerRequest {
                    request_id: String::new(),
                    name: "Ada".into(),
                    credit_limit,
                };
                let field = format!("credit_limit{field}");
                refused::<_, CreateCustomerResponse>(&client, operation, request, &field).await;
            }
            for name in ["", "  \u{a0}", &"a".repeat(201), "two\nlines"] {
                let request = CreateCustomerRequest {
                    request_id: String::new(),
                    name: name.into(),
                    credit_limit: Some(euros(1)),
                };
                refused::<_, CreateCustomerResponse>(&client, operation, request, "name").await;
            }
            // The longest name is taken, in characters and not in bytes.
            let longest = "é".repeat(200);
            client.create_customer(&longest, euros(0)).await.unwrap();
        }
    });
}

#[test]
fn a_malformed_id_is_refused_and_an_unknown_one_is_not_found() {
    on_shared_system(async |system| {
        for client in every_client(system).await {
            for id in BAD_IDS {
                let order_id = id.to_owned();
                let request = GetOrderRequest {
                    order_id,
                    wait: None,
                };
                let operation = "orders.v1.GetOrder";
                refused::<_, GetOrderResponse>(&client, operation, request, "order_id").await;
                let customer_id = id.to_owned();
                let request = GetCustomerRequest { customer_id };
                let operation = "customers.v1.GetCustomer";
                refused::<_, GetCustomerResponse>(&client, operation, request, "customer_id").await;
            }
            let nobody = Uuid::now_v7().to_string();
            let order = client.get_order(&nobody).await.unwrap_err().refusal();
            let customer = client.get_customer(&nobody).await.unwrap_err().refusal();
            for refusal in [order, customer] {
                assert_eq!(refusal.code, "NOT_FOUND");
                assert!(refusal.message.contains(&nobody), "{refusal:?}");
                if client.transport != Transport::Grpc {
                    assert_eq!(refusal.http.as_deref(), Some("404"));
                }
            }
        }
    });
}

#[test]
fn a_bad_page_is_refused_by_its_field() {
    on_shared_system(async |system| {
        for client in every_client(system).await {
            for (page_size, page_token, field) in
                [(-1, "", "page_size"), (1, "no token", "page_token")]
            {
                let request = ListOrdersRequest {
                    page_size,
                    page_token: page_token.into(),
                    ..Default::default()
                };
                let operation = "orders.v1.ListOrders";
                refused::<_, ListOrdersResponse>(&client, operation, request, field).await;
                let request = ListCustomersRequest {
                    page_size,
                    page_token: page_token.into(),
                };
                let operation = "customers.v1.ListCustomers";
                refused::<_, ListCustomersResponse>(&client, operation, request, field).await;
            }
            let customer_id = "17".to_owned();
            let request = ListOrdersRequest {
                customer_id,
                ..Default::default()
            };
            let operation = "orders.v1.ListOrders";
            refused::<_, ListOrdersResponse>(&client, operation, request, "customer_id").await;
        }
    });
}

#[test]
fn a_page_token_of_another_customers_orders_is_refused() {
    on_shared_system(async |system| {
        for client in every_client(system).await {
            let ids = [(); 2].map(|()| Uuid::now_v7().to_string());
            for total in 1..=2 {
                client.create_order(&ids[0], euros(total)).await.unwrap();
            }
            let mut request = ListOrdersRequest {
                customer_id: ids[0].clone(),
                page_size: 1,
                page_token: String::new(),
            };
            let operation = "orders.v1.ListOrders";
            let page: ListOrdersResponse = client.call(operation, &request).await.unwrap();
            request.page_token = page.next_page_token;
            request.customer_id.clone_from(&ids[1]);
            refused::<_, ListOrdersResponse>(&client, operation, request, "page_token").await;
        }
    });
}

/// Of each service, an operation that takes a message.
const CREATES: [&str; 2] = ["orders.v1.CreateOrder", "customers.v1.CreateCustomer"];

#[test]
fn a_body_that_cannot_be_read_is_refused() {
    on_shared_system(async |system| {
        let client = Client::new(system, Transport::NatsJson).await.unwrap();
        for operation in CREATES {
            for (content_type, body, field) in [
                ("application/protobuf", &[0xff_u8, 0xff, 0xff][..], "body"),
                // Field 1, a string, as a number.
                ("application/protobuf", &[0x08, 0x01], "body"),
                ("application/json", b"{\"name", "body"),
                ("application/json", b"[]", "body"),
                ("application/json", b"", "body"),
                ("application/json", b"{\"unknown\": 1}", "unknown"),
            ] {
                let answer = client.call_nats(operation, content_type, body.to_vec());
                let refusal = answer.await.unwrap_err().refusal();
                assert_names(&refusal, client.transport, field);
            }
        }
    });
}

#[test]
fn a_json_value_of_the_wrong_type_is_refused_by_its_field() {
    on_shared_system(async |system| {
        let client = Client::new(system, Transport::NatsJson).await.unwrap();
        for (operation, field) in [
            (CREATES[0], "customerId"),
            (CREATES[0], "total"),
            (CREATES[1], "name"),
            (CREATES[1], "creditLimit"),
        ] {
            let body = format!("{{\"{field}\": 1}}").into_bytes();
            let answer = client.call_nats(operation, "application/json", body);
            let refusal = answer.await.unwrap_err().refusal();
            assert_names(&refusal, client.transport, field);
        }
    });
}

#[test]
fn a_malformed_protobuf_message_over_grpc_is_refused() {
    on_shared_system(async |system| {
        let client = Client::new(system, Transport::Grpc).await.unwrap();
        for operation in CREATES {
            // Field 1, a string, as a number.
            let answer = client.call_grpc::<i64, CreateOrderResponse>(operation, 1);
            let refusal = answer.await.unwrap_err().refusal();
            assert_names(&refusal, client.transport, "body");
        }
    });
}

#[test]
fn an_unknown_content_type_is_refused_with_the_known_ones() {
    on_shared_system(async |system| {
        let client = Client::new(system, Transport::NatsJson).await.unwrap();
        for operation in CREATES {
            for content_type in ["text/plain", "application/xml; charset=utf-8"] {
                let answer = client.call_nats(operation, content_type, Vec::new());
                let refusal = answer.await.unwrap_err().refusal();
                assert_eq!(refusal.http.as_deref(), Some("415"), "{refusal:?}");
                assert_eq!(refusal.code, "INVALID_ARGUMENT", "{refusal:?}");
                for part in ["content-type", "application/json", "application/protobuf"] {
                    assert!(refusal.message.contains(part), "{refusal:?}");
                }
            }
        }
    });
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    on_shared_system(async |system| {
        let client = Client::new(system, Transport::Grpc).await.unwrap();
        let customer_id = Uuid::now_v7().to_string();
        let refusal = client.create_order(&customer_id, euros(0)).await;
        refusal.unwrap_err().refusal();
        let request = ListOrdersRequest {
            customer_id,
            ..Default::default()
        };
        let page: ListOrdersResponse = client.call("orders.v1.ListOrders", &request).await.unwrap();
        assert_eq!(page.orders, []);
        let database = system.database(Side::Orders).await.unwrap();
        let refused = "SELECT count(*) FROM orders WHERE total_minor_units <= 0";
        let refused = database.query_one(refused, &[]).await.unwrap();
        assert_eq!(refused.get::<_, i64>(0), 0);
    });
}
