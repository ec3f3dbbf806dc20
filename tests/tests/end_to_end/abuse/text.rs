//! SQL metacharacters and odd text in every string field of every request.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use harness::{Side, System, books};
use proto::dead_letters::v1::{DiscardDeadLettersRequest, DiscardDeadLettersResponse};
use proto::orders::v1::WatchOrderRequest;

use self::fields::{in_the_contract, tried};
use crate::client::{Client, Transport, euros};
use crate::refusals::{assert_names, every_client};
use crate::shared::on_shared_system;

mod fields;

const SETTLED: Duration = Duration::from_secs(60);

/// What a name may be.
fn names() -> Vec<String> {
    let mut names: Vec<_> = [
        "O'Brien",
        "Robert'); DROP TABLE customers; --",
        "' OR '1'='1",
        "$1 $2 ${name} {} {0} %s %n",
        r"back\slash \' \x00 \n",
        "100% _%_ LIKE '%'",
        "\"quoted\" `ticked` /* comment */",
        "E'\\047' || pg_sleep(60)",
        "NULL",
        "🦀 漢字 e\u{301}",
    ]
    .map(str::to_owned)
    .into();
    names.extend(["'", "\\", "🦀"].map(|one| one.repeat(200)));
    names
}

/// What neither a name nor anything else may be.
fn spoilt() -> Vec<String> {
    let mut spoilt: Vec<_> = ["a\0b", "a\u{202e}b", "a\r\nb", "\u{7f}", "\u{1b}[31mred"]
        .map(str::to_owned)
        .into();
    spoilt.push("'".repeat(201));
    spoilt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_text_is_refused_by_its_field_and_does_no_harm() -> Result<()> {
    // One of its own: its books are looked at.
    let system = System::start().await?;
    let clients = every_client(&system).await;
    let customer = clients[0].create_customer("Ada", euros(9)).await?;
    let mut fields = BTreeSet::new();
    for client in &clients {
        for text in names().iter().chain(&spoilt()) {
            // As long as a UUID is too.
            let id = text
                .chars()
                .chain("' OR '1'='1' OR '1'='1' OR '1'='1' --".chars());
            let id: String = id.take(36).collect();
            for text in [text, &id] {
                for (operation, field, outcome) in tried(client, &customer.customer_id, text).await
                {
                    let Err(failure) = outcome else {
                        bail!("{operation} took {text:?} as its {field}");
                    };
                    assert_names(&failure.refusal(), client.transport, field);
                    let method = operation.rsplit('.').next().unwrap_or_default();
                    fields.insert(format!("{method} {field}"));
                }
            }
        }
        client.create_order(&customer.customer_id, euros(1)).await?;
    }
    // Those that take free text, and the one that gRPC alone has, are tried below.
    for other in [
        "CreateCustomer name",
        "DiscardDeadLetters reason",
        "WatchOrder order_id",
    ] {
        assert!(fields.insert(other.to_owned()));
    }
    assert_eq!(fields, in_the_contract(), "every field of the contract");
    let settled = books::settled(&system, SETTLED).await?;
    settled.assert_clean();
    assert_eq!(settled.customers.len(), 1, "nobody was added or removed");
    assert_eq!(settled.orders("approved"), clients.len());
    Ok(())
}

#[test]
fn a_name_comes_back_as_it_was_given_or_is_refused() {
    on_shared_system(async |system| {
        for client in every_client(system).await {
            for name in names() {
                let created = client.create_customer(&name, euros(7)).await.unwrap();
                assert_eq!(created.name, name, "{:?}", client.transport);
                let found = client.get_customer(&created.customer_id).await.unwrap();
                assert_eq!(found.name, name, "{:?}", client.transport);
                let database = system.database(Side::Customers).await.unwrap();
                let query = "SELECT name FROM customers WHERE customer_id::text = $1";
                let kept = database.query_one(query, &[&created.customer_id]).await;
                assert_eq!(kept.unwrap().get::<_, String>(0), name);
            }
            for name in spoilt() {
                let refused = client.create_customer(&name, euros(7)).await;
                assert_names(&refused.unwrap_err().refusal(), client.transport, "name");
            }
        }
    });
}

#[test]
fn an_id_to_watch_is_refused_by_its_field() {
    on_shared_system(async |system| {
        for text in names().into_iter().chain(spoilt()) {
            let request = WatchOrderRequest { order_id: text };
            let refused = system.orders().unwrap().watch_order(request).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
            assert!(refused.message().starts_with("order_id: "), "{refused}");
        }
    });
}

#[test]
fn a_reason_to_discard_is_refused_where_it_is_none() {
    on_shared_system(async |system| {
        for client in every_client(system).await {
            for service in ["order-service", "customer-service"] {
                let long = "'".repeat(501);
                for reason in ["", " \u{a0}\n", &long, "a\0b", "\u{1b}[31mred", "a\u{7f}"] {
                    let operation = format!("dead_letters.v1.{service}.DiscardDeadLetters");
                    let request = DiscardDeadLettersRequest {
                        sequences: vec![u64::MAX],
                        reason: reason.to_owned(),
                    };
                    let refused: Result<DiscardDeadLettersResponse, _> =
                        client.call(&operation, &request).await;
                    let refusal = refused.unwrap_err().refusal();
                    assert_names(&refusal, client.transport, "reason");
                }
            }
        }
    });
}

#[test]
fn text_in_the_place_of_a_number_is_refused_by_its_field() {
    on_shared_system(async |system| {
        let client = Client::new(system, Transport::NatsJson).await.unwrap();
        for (operation, body, field) in [
            (
                "orders.v1.ListOrders",
                r#"{"pageSize": "1; DROP TABLE orders"}"#,
                "pageSize",
            ),
            (
                "customers.v1.ListCustomers",
                r#"{"pageSize": "$1"}"#,
                "pageSize",
            ),
            (
                "orders.v1.CreateOrder",
                r#"{"total": {"minorUnits": "1' OR '1'='1"}}"#,
                "total.minorUnits",
            ),
            (
                "dead_letters.v1.order-service.GetDeadLetter",
                r#"{"sequence": "1 OR 1=1"}"#,
                "sequence",
            ),
        ] {
            let answer = client.call_nats(operation, "application/json", body.into());
            let refusal = answer.await.unwrap_err().refusal();
            assert_names(&refusal, client.transport, field);
        }
    });
}
