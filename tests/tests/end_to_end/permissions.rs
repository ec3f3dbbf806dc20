//! The users of NATS that `deploy/nats/users.conf` makes: with their rights all of the system works, and
//! nothing else is allowed.

mod subjects;

use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client as Nats, ConnectOptions, HeaderMap, jetstream};
use harness::{Process, Role, Side, System, binary, books, eventually};
use proto::orders::v1::order_service_client::OrderServiceClient;
use proto::orders::v1::{OrderState, WatchOrderRequest};
use serde_json::Value;

use crate::client::{Client, Transport, euros};

const CONFIGURATION: &str = include_str!("../../../deploy/nats/users.conf");
const USERS: [&str; 6] = [
    "order-service",
    "customer-service",
    "orders-relay",
    "customers-relay",
    "shop",
    "operator",
];
/// Without a bound, and of this test alone: the harness looks at things as this one.
const HARNESS: &str = "harness";
const SOON: Duration = Duration::from_secs(60);

/// For the server: each user's password is its name.
fn configuration() -> String {
    let mut variables = String::new();
    for user in USERS {
        let name = user.to_uppercase().replace('-', "_");
        variables.push_str(&format!("{name}_PASSWORD: {user}\n"));
    }
    let harness = format!("users: [\n{{ user: {HARNESS}, password: {HARNESS} }}\n");
    let all = CONFIGURATION.replacen("users: [", &harness, 1);
    assert_ne!(all, CONFIGURATION, "there is no list of users");
    format!("{variables}{all}\nno_auth_user: {HARNESS}\n")
}

async fn login(system: &System, user: &str, prefix: &str) -> Result<Nats> {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned());
    let client = options
        .custom_inbox_prefix(prefix)
        .connect(system.nats().url());
    Ok(client.await?)
}

async fn started() -> Result<System> {
    let mut builder = System::builder().nats(&configuration());
    for user in &USERS[..4] {
        builder = builder
            .env(user, "NATS_USER", user)
            .env(user, "NATS_PASSWORD", user)
            .env(user, "NATS_INBOX_PREFIX", &format!("_INBOX_{user}"));
    }
    builder.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_system_works_with_the_rights_of_its_users() -> Result<()> {
    let system = started().await?;
    orders_settle(&system).await?;
    dead_letters(&system).await?;
    quarantine(&system).await?;
    relay_comes_again(&system).await?;
    let books = books::settled(&system, SOON).await?;
    assert_eq!(books.dead_letters, 0, "{books}");
    for process in system.processes() {
        process.wait_ready().await?;
        nothing_was_refused(&process.log().text());
    }
    nothing_was_refused(&system.nats().log().text());
    Ok(())
}

#[track_caller]
fn nothing_was_refused(log: &str) {
    let refused = log.lines().find(|line| line.contains(" Violation"));
    assert_eq!(refused, None);
}

async fn orders_settle(system: &System) -> Result<()> {
    let shop = login(system, "shop", "_INBOX").await?;
    for transport in Transport::ALL {
        let mut client = Client::new(system, transport).await?;
        client.nats = shop.clone();
        let customer = client.create_customer("Ada", euros(100)).await?;
        let order = client
            .create_order(&customer.customer_id, euros(60))
            .await?;
        let request = WatchOrderRequest {
            order_id: order.order_id.clone(),
        };
        let mut watching = OrderServiceClient::new(system.channel("order-service")?);
        let mut watched = watching.watch_order(request).await?.into_inner();
        let mut last = None;
        while let Some(told) = watched.message().await? {
            last = told.order;
        }
        let last = last.context("the watch told nothing")?;
        assert_eq!(last.state(), OrderState::Approved, "{transport:?}");
        client.cancel_order(&order.order_id).await?;
    }
    Ok(())
}

/// An event that cannot be read becomes a dead letter, and an operator deals with it.
async fn dead_letters(system: &System) -> Result<()> {
    let operator = login(system, "operator", "_INBOX_operator").await?;
    for side in Side::ALL {
        // Of a type that the other service consumes.
        let (event, reader) = match side {
            Side::Orders => ("orders.v1.OrderCreated", "customer-service"),
            Side::Customers => ("customers.v1.CreditReserved", "order-service"),
        };
        for _ in 0..2 {
            unreadable(system, side, event).await?;
        }
        let ask = async |operation: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("Content-Type", "application/json");
            let subject = format!("dead_letters.v1.{reader}.{operation}");
            let sent = operator.request_with_headers(subject, headers, body.to_owned().into());
            let answer = sent.await?;
            let refused = answer
                .headers
                .as_ref()
                .and_then(|all| all.get("Nats-Service-Error"));
            ensure!(refused.is_none(), "{operation}: {refused:?}");
            anyhow::Ok(serde_json::from_slice::<Value>(&answer.payload)?)
        };
        let letters = eventually("the dead letters", SOON, async || {
            let list = ask("ListDeadLetters", "{}").await?;
            let letters = list["deadLetters"].as_array().cloned().unwrap_or_default();
            Ok((letters.len() == 2).then_some(letters))
        });
        let letters = letters.await?;
        let sequence = &letters[0]["sequence"];
        ask("GetDeadLetter", &format!("{{\"sequence\": {sequence}}}")).await?;
        let redriven = ask("RedriveDeadLetters", "{\"all\": true}").await?;
        assert_eq!(
            redriven["results"].as_array().map(Vec::len),
            Some(2),
            "{redriven}"
        );
        for letter in letters {
            let body = format!(
                "{{\"sequences\": [{}], \"reason\": \"unreadable\"}}",
                letter["sequence"]
            );
            ask("DiscardDeadLetters", &body).await?;
        }
    }
    // As the README's commands ask.
    let streams = jetstream::new(operator.clone());
    let mut stream = streams.get_stream("DISCARDED_LETTERS").await?;
    assert_eq!(stream.info().await?.state.messages, 4);
    stream.get_raw_message(1).await?;
    let orders = streams.get_stream("ORDERS").await?;
    orders.consumer_info("customer-service").await?;
    operator
        .request("$SRV.PING.order-service", "".into())
        .await?;
    Ok(())
}

/// The owner adds it: the service's own role could add it as well.
async fn unreadable(system: &System, side: Side, event: &str) -> Result<()> {
    let insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) \
                  VALUES ($1, 'order', $2, $3, '\\xff')";
    let service = system.database_as(side, Role::Service).await?;
    let (id, about) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7().to_string());
    service.execute(insert, &[&id, &about, &event]).await?;
    Ok(())
}

/// What the relay's command line is used for, by the relay's own login.
async fn relays_command(relay: &Process, arguments: &[&str]) -> Result<Output> {
    let (_, environment) = relay.recipe();
    let mut command = std::process::Command::new(binary("cdc-relay")?);
    command.args(arguments).envs(environment);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

async fn does(relay: &Process, arguments: &[&str]) -> Result<String> {
    let output = relays_command(relay, arguments).await?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    let told = String::from_utf8(output.stdout)?;
    ensure!(!told.contains("iolation"), "{arguments:?}: {told}");
    Ok(told)
}

/// An event that goes nowhere stands in quarantine until somebody decides.
async fn quarantine(system: &System) -> Result<()> {
    for side in Side::ALL {
        let relay = system.process(side.relay());
        unreadable(system, side, "no such subject").await?;
        let item = eventually("the row in quarantine", SOON, async || {
            let list = does(relay, &["quarantine", "list", "--json"]).await?;
            let list: Value = serde_json::from_str(&list)?;
            Ok(list["items"][0]["item"].as_str().map(str::to_owned))
        });
        let item = item.await?;
        does(relay, &["quarantine", "show", &item]).await?;
        // It says why it cannot, which is no matter of rights.
        let refused = relays_command(relay, &["quarantine", "release", &item]).await?;
        let told = String::from_utf8_lossy(&refused.stdout);
        ensure!(
            told.contains("is not a subject to publish on"),
            "{refused:?}"
        );
        let why = ["--why", "a test"];
        does(
            relay,
            &[&["quarantine", "discard", &item], why.as_slice()].concat(),
        )
        .await?;
        // The books compare outbox and stream.
        let owner = system.database_as(side, Role::Owner).await?;
        let removed = "DELETE FROM outbox WHERE type = 'no such subject'";
        owner.execute(removed, &[]).await?;
    }
    Ok(())
}

/// Killed, and with its slot gone: it compares, heals and goes on.
async fn relay_comes_again(system: &System) -> Result<()> {
    for side in Side::ALL {
        let relay = system.process(side.relay());
        does(relay, &["check"]).await?;
        does(relay, &["status"]).await?;
        does(relay, &["reconcile"]).await?;
        relay.kill().await?;
        let superuser = system.database(side).await?;
        let dropped = "SELECT pg_drop_replication_slot($1)";
        eventually("the slot to be free", SOON, async || {
            Ok(superuser.execute(dropped, &[&side.slot()]).await.ok())
        })
        .await?;
        relay.start_again()?;
        relay.wait_ready().await?;
    }
    let client = Client::new(system, Transport::Grpc).await?;
    let customer = client.create_customer("Bob", euros(100)).await?;
    let order = client
        .create_order(&customer.customer_id, euros(60))
        .await?;
    let order = client.settled_order(&order.order_id).await?;
    assert_eq!(order.state(), OrderState::Approved);
    Ok(())
}
