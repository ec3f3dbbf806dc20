//! Dead letters of both services: listed, shown decoded, applied once more, and discarded with a reason.

use std::time::Duration;

use anyhow::Result;
use async_nats::{HeaderMap, jetstream};
use harness::{System, eventually};
use prost::{Message, Name};
use proto::customers::v1::CustomerNotFound;
use proto::money::v1::Money;
use proto::orders::v1::OrderCreated;
use uuid::Uuid;

use crate::world::Shop;

/// As the service's consumer would have written it; returns its sequence.
async fn letter<M: Message + Name>(system: &System, service: &str, event: &M) -> Result<String> {
    let mut headers = HeaderMap::new();
    headers.insert("Dead-Letter-Durable", service);
    headers.insert("Dead-Letter-Reason", "a reason");
    headers.insert("Original-Nats-Msg-Id", Uuid::now_v7().to_string());
    headers.insert("Original-Event-Type", M::full_name());
    let jetstream = jetstream::new(system.nats().client().await?);
    let stream = async || Ok(jetstream.get_stream("DEAD_LETTERS").await.ok());
    eventually(
        "the stream of dead letters",
        Duration::from_secs(30),
        stream,
    )
    .await?;
    let (subject, payload) = (format!("dead.{service}"), event.encode_to_vec());
    let sent = jetstream.publish_with_headers(subject, headers, payload.into());
    Ok(sent.await?.await?.sequence.to_string())
}

#[tokio::test]
async fn dead_letters_of_both_services_are_looked_after() -> Result<()> {
    let system = System::start().await?;
    for shop in Shop::over_each(&system) {
        let (order, customer) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        let asked = OrderCreated {
            order_id: order.clone(),
            customer_id: customer.clone(),
            total: Some(Money {
                minor_units: 7,
                currency: "USD".to_owned(),
            }),
            create_time: None,
        };
        let asked = letter(&system, "customer-service", &asked).await?;
        // About an order that nobody sees.
        let answer = CustomerNotFound {
            order_id: order.clone(),
            customer_id: customer,
        };
        let answer = letter(&system, "order-service", &answer).await?;

        look(&shop, &order, &asked, &answer).await;
        act(&shop, &asked, &answer).await?;
    }
    Ok(())
}

/// Lists and shows them.
async fn look(shop: &Shop, order: &str, asked: &str, answer: &str) {
    let listed = shop.says(&["dead-letters", "list", "-q"]).await;
    assert_eq!(listed, format!("{answer}\n{asked}\n"));
    let table = shop
        .says(&["dead-letters", "list", "--service", "customers"])
        .await;
    let row = table.lines().nth(1).expect("a row");
    assert!(
        row.contains("customer-service  orders.v1.OrderCreated"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 2, "{table}");
    for sequence in [asked, answer] {
        let shown = shop.says(&["dead-letters", "show", sequence]).await;
        assert!(shown.contains("reason     a reason"), "{shown}");
        assert!(
            shown.contains(&format!("\"orderId\":\"{order}\"")),
            "{shown}"
        );
    }
    let none = shop.run(&["dead-letters", "show", "999"]).await;
    assert!(
        none.status == 1 && none.stderr.contains("NOT_FOUND"),
        "{none:?}"
    );
}

/// Redrives them all, of which one fails, and discards that.
async fn act(shop: &Shop, asked: &str, answer: &str) -> Result<()> {
    let redriven = shop
        .run(&["dead-letters", "redrive", asked, answer, "999"])
        .await;
    assert_eq!((redriven.status, redriven.stderr.as_str()), (1, ""));
    let outcomes: Vec<_> = redriven.stdout.lines().skip(1).map(str::trim).collect();
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    assert!(
        outcomes[0].starts_with(&format!("{answer}  failed")),
        "{outcomes:?}"
    );
    assert!(
        outcomes[1].starts_with(&format!("{asked}  applied")),
        "{outcomes:?}"
    );
    assert!(outcomes[2].starts_with("999  not found"), "{outcomes:?}");
    let all = shop
        .run(&["dead-letters", "redrive", "--all", "--json"])
        .await;
    let result: serde_json::Value = serde_json::from_str(&all.stdout)?;
    assert_eq!(
        (all.status, &result["outcome"]),
        (1, &"REDRIVE_OUTCOME_FAILED".into())
    );

    let discard = [
        "dead-letters",
        "discard",
        answer,
        asked,
        "--reason",
        "a test",
    ];
    let discarded = shop.run(&discard).await;
    assert_eq!(
        (discarded.status, discarded.stdout),
        (1, format!("{answer} discarded\n"))
    );
    assert!(
        discarded
            .stderr
            .contains(&format!("no dead letter {asked}"))
    );
    assert_eq!(shop.says(&["dead-letters", "list", "-q"]).await, "");
    Ok(())
}
