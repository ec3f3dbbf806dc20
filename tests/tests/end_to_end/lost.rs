//! JetStream loses acknowledged messages: its store is replaced by an older copy, as after a power
//! failure. The relays heal both streams, and every order is settled (I8, I9, I11).

use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream;
use harness::{Side, System, books, eventually};
use proto::orders::v1::OrderState;

use crate::client::{Client, Transport, euros};

const DEADLINE: Duration = Duration::from_secs(60);

async fn count(client: &Client, side: Side) -> anyhow::Result<u64> {
    let stream = jetstream::new(client.nats.clone())
        .get_stream(side.stream())
        .await?;
    Ok(stream.cached_info().state.messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_events_jetstream_lost_is_settled_all_the_same() {
    let system = System::start().await.unwrap();
    let client = Client::new(&system, Transport::Grpc).await.unwrap();
    let customer = client.create_customer("Ada", euros(1_000)).await.unwrap();
    let place = async || {
        client
            .create_order(&customer.customer_id, euros(100))
            .await
            .unwrap()
    };
    let settled = async |order_id: &str| {
        let order = client.settled_order(order_id).await.unwrap();
        assert_eq!(order.state(), OrderState::Approved);
    };
    settled(&place().await.order_id).await;
    books::settled(&system, DEADLINE)
        .await
        .unwrap()
        .assert_clean();
    let nats = system.nats();
    nats.stop().await.unwrap();
    nats.back_up("older").unwrap();
    nats.start_again().await.unwrap();

    // One order is settled before the loss: its events are consumed, and their sequences are given to
    // others. Of another nobody has consumed anything.
    settled(&place().await.order_id).await;
    system
        .process(Side::Customers.service())
        .kill()
        .await
        .unwrap();
    let before = eventually("the stream", DEADLINE, async || {
        count(&client, Side::Orders).await.map(Some)
    })
    .await
    .unwrap();
    let lost = place().await.order_id;
    eventually("the event that is to be lost", DEADLINE, async || {
        ensure!(count(&client, Side::Orders).await? > before);
        Ok(Some(()))
    })
    .await
    .unwrap();
    nats.kill().await.unwrap();
    nats.restore("older").unwrap();
    nats.start_again().await.unwrap();
    system
        .process(Side::Customers.service())
        .start_again()
        .unwrap();

    settled(&lost).await;
    // What takes the lost sequences is consumed as well.
    for _ in 0..3 {
        settled(&place().await.order_id).await;
    }
    books::settled(&system, DEADLINE)
        .await
        .unwrap()
        .assert_clean();
}
