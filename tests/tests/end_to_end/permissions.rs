//! The users of NATS that `deploy/overlays/production/nats-values.yaml` makes: with their rights orders
//! settle, and what they must not publish does not get into a stream.

use std::time::Duration;

use async_nats::{ConnectOptions, jetstream};
use harness::{Side, System, eventually};
use proto::orders::v1::OrderState;
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::{Value, json};

use crate::client::{Client, Transport, euros};

const VALUES: &str = include_str!("../../../deploy/overlays/production/nats-values.yaml");
/// The only one without a bound; the harness looks at things as this one.
const OPERATOR: &str = "operator";
const SOON: Duration = Duration::from_secs(10);

/// Each user, with the subjects on which it must not publish.
fn users() -> Vec<(String, Vec<String>)> {
    let documents = Yaml::load_from_str(VALUES).unwrap();
    let users = &documents[0]["config"]["merge"]["authorization"]["users"];
    let text = |yaml: &Yaml<'_>| yaml.as_str().unwrap().to_owned();
    let denied = |user: &Yaml<'_>| -> Vec<String> {
        let permissions = user.as_mapping_get("permissions");
        let denied =
            permissions.and_then(|permissions| permissions["publish"]["deny"].as_sequence());
        denied.into_iter().flatten().map(text).collect()
    };
    let users = users.as_sequence().unwrap().iter();
    users
        .map(|user| (text(&user["user"]), denied(user)))
        .collect()
}

fn configuration(users: &[(String, Vec<String>)]) -> String {
    let users = users.iter().map(|(name, denied)| {
        let mut user = json!({ "user": name, "password": name });
        if !denied.is_empty() {
            user["permissions"] = json!({ "publish": { "deny": denied } });
        }
        user
    });
    let users: Vec<Value> = users.collect();
    format!(
        "authorization: {}\nno_auth_user: {OPERATOR}",
        json!({ "users": users })
    )
}

#[tokio::test]
async fn with_the_rights_of_production_orders_settle_and_nobody_else_writes_events() {
    let users = users();
    let mut builder = System::builder().nats(&configuration(&users));
    for name in users
        .iter()
        .map(|(name, _)| name)
        .filter(|name| *name != OPERATOR)
    {
        builder = builder
            .env(name, "NATS_USER", name)
            .env(name, "NATS_PASSWORD", name);
    }
    let system = builder.start().await.expect("the system starts");

    for transport in Transport::ALL {
        let client = Client::new(&system, transport).await.unwrap();
        let customer = client.create_customer("Ada", euros(100)).await.unwrap();
        let order = client
            .create_order(&customer.customer_id, euros(60))
            .await
            .unwrap();
        let order = client.settled_order(&order.order_id).await.unwrap();
        assert_eq!(order.state(), OrderState::Approved, "{transport:?}");
    }

    let operator = system.nats().client().await.unwrap();
    let streams = jetstream::new(operator.clone());
    for (name, denied) in users.iter().filter(|(name, _)| name != OPERATOR) {
        let options = ConnectOptions::with_user_and_password(name.clone(), name.clone());
        let client = options.connect(system.nats().url()).await.unwrap();
        for side in Side::ALL {
            let subject = side.subjects().replace('>', "forged");
            let own = side.relay() == name;
            let forbidden = denied.iter().any(|denied| {
                let prefix = denied.trim_end_matches('>');
                subject.starts_with(prefix)
            });
            assert_eq!(forbidden, !own, "{name} and {subject}");
            if own {
                continue;
            }
            let before = last(&streams, side).await;
            client.publish(subject, "forged".into()).await.unwrap();
            client.flush().await.unwrap();
            // Behind it, on the same connection: what came before has been decided when this is answered.
            let info = jetstream::new(client.clone())
                .get_stream(side.stream())
                .await;
            info.unwrap();
            assert_eq!(
                last(&streams, side).await,
                before,
                "{name} has written to {}",
                side.stream()
            );
            // Nor can it take away what others have written.
            let stream = jetstream::new(client.clone());
            let purged = tokio::time::timeout(Duration::from_secs(1), async {
                stream.get_stream(side.stream()).await?.purge().await?;
                Ok::<_, async_nats::Error>(())
            });
            assert!(
                !matches!(purged.await, Ok(Ok(()))),
                "{name} has emptied {}",
                side.stream()
            );
            assert_eq!(last(&streams, side).await, before);
        }
    }
    eventually("the system to be as ready as before", SOON, async || {
        let mut ready = 0;
        for process in system.processes() {
            process.wait_ready().await?;
            ready += 1;
        }
        Ok((ready == 4).then_some(()))
    })
    .await
    .unwrap();
}

/// The stream's last sequence.
async fn last(streams: &jetstream::Context, side: Side) -> u64 {
    let stream = streams.get_stream(side.stream()).await.unwrap();
    let state = stream.get_info().await.unwrap().state;
    state.last_sequence
}
