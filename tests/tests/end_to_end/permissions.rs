//! The users of NATS that `deploy/overlays/production/nats-values.yaml` makes: with their rights orders
//! settle, and what they must not publish does not get into a stream.

use std::future::IntoFuture as _;
use std::time::Duration;

use async_nats::{ConnectOptions, jetstream};
use harness::{Side, System};
use proto::orders::v1::OrderState;
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::client::{Client, Transport, euros};

const VALUES: &str = include_str!("../../../deploy/overlays/production/nats-values.yaml");
/// The only one without a bound; the harness looks at things as this one.
const OPERATOR: &str = "operator";
/// A server on this machine that allowed it would have answered by then.
const UNANSWERED: Duration = Duration::from_secs(1);

/// Each user, with the subjects on which it must not publish.
fn users() -> Vec<(String, Vec<String>)> {
    let documents = Yaml::load_from_str(VALUES).expect("YAML");
    let users = &documents[0]["config"]["merge"]["authorization"]["users"];
    let text = |yaml: &Yaml<'_>| yaml.as_str().expect("a text").to_owned();
    let denied = |user: &Yaml<'_>| -> Vec<String> {
        let permissions = user.as_mapping_get("permissions");
        let denied =
            permissions.and_then(|permissions| permissions["publish"]["deny"].as_sequence());
        denied.into_iter().flatten().map(text).collect()
    };
    let users = users.as_sequence().expect("users").iter();
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
    let streams = jetstream::new(operator);
    for (name, denied) in users.iter().filter(|(name, _)| name != OPERATOR) {
        for side in Side::ALL {
            let subject = side.subjects().replace('>', "forged");
            let own = side.relay() == name;
            let forbidden = |denied: &String| subject.starts_with(denied.trim_end_matches('>'));
            assert_eq!(denied.iter().any(forbidden), !own, "{name} and {subject}");
            if !own {
                forge(&system, &streams, name, side, subject).await;
            }
        }
    }
    for process in system.processes() {
        process.wait_ready().await.unwrap();
    }
}

/// Tries as the user `name` to write to a stream that is not its own, and to empty it.
async fn forge(
    system: &System,
    streams: &jetstream::Context,
    name: &str,
    side: Side,
    subject: String,
) {
    let options = ConnectOptions::with_user_and_password(name.to_owned(), name.to_owned());
    let client = options.connect(system.nats().url()).await.expect("a login");
    let before = last(streams, side).await;
    client
        .publish(subject, "forged".into())
        .await
        .expect("it is sent");
    // Behind it on the same connection: when this is answered, what came before has been decided.
    let asked = jetstream::new(client);
    let stream = asked.get_stream(side.stream()).await.expect("the stream");
    let stream_name = side.stream();
    assert_eq!(
        last(streams, side).await,
        before,
        "{name} has written to {stream_name}"
    );
    // What is refused is not answered.
    let emptied = timeout(UNANSWERED, stream.purge().into_future()).await;
    assert!(
        !matches!(emptied, Ok(Ok(_))),
        "{name} has emptied {stream_name}"
    );
}

/// The stream's last sequence.
async fn last(streams: &jetstream::Context, side: Side) -> u64 {
    let stream = streams.get_stream(side.stream()).await.expect("the stream");
    let state = stream.get_info().await.expect("its state").state;
    state.last_sequence
}
