//! Each user with each subject: what `users.conf` allows is taken, and all else is refused. So what is widened
//! there fails here, and what is narrowed too.

use std::collections::BTreeSet;

use async_nats::{Client, ConnectOptions};
use harness::{Guard, Nats};

use super::{CONFIGURATION, SOON, USERS, configuration};

/// No user may say or hear it.
const NOBODYS: &str = "nobody.may";

const STREAMS: [&str; 7] = [
    "ORDERS",
    "CUSTOMERS",
    "DEAD_LETTERS",
    "DISCARDED_LETTERS",
    "ORDERS_QUARANTINE",
    "CUSTOMERS_QUARANTINE",
    "OTHER",
];

/// What JetStream can be asked about a stream, `{S}`.
const OF_STREAMS: [&str; 15] = [
    "$JS.API.STREAM.INFO.{S}",
    "$JS.API.STREAM.CREATE.{S}",
    "$JS.API.STREAM.UPDATE.{S}",
    "$JS.API.STREAM.DELETE.{S}",
    "$JS.API.STREAM.PURGE.{S}",
    "$JS.API.STREAM.MSG.GET.{S}",
    "$JS.API.STREAM.MSG.DELETE.{S}",
    "$JS.API.STREAM.SNAPSHOT.{S}",
    "$JS.API.STREAM.RESTORE.{S}",
    "$JS.API.STREAM.PEER.REMOVE.{S}",
    "$JS.API.STREAM.LEADER.STEPDOWN.{S}",
    "$JS.API.DIRECT.GET.{S}",
    "$JS.API.CONSUMER.CREATE.{S}",
    "$JS.API.CONSUMER.LIST.{S}",
    "$JS.API.CONSUMER.NAMES.{S}",
];

/// And about a consumer of it, `{C}`.
const OF_CONSUMERS: [&str; 10] = [
    "$JS.API.CONSUMER.CREATE.{S}.{C}",
    "$JS.API.CONSUMER.CREATE.{S}.{C}.events.orders.v1.OrderCreated",
    "$JS.API.CONSUMER.DURABLE.CREATE.{S}.{C}",
    "$JS.API.CONSUMER.INFO.{S}.{C}",
    "$JS.API.CONSUMER.DELETE.{S}.{C}",
    "$JS.API.CONSUMER.PAUSE.{S}.{C}",
    "$JS.API.CONSUMER.RESET.{S}.{C}",
    "$JS.API.CONSUMER.LEADER.STEPDOWN.{S}.{C}",
    "$JS.API.CONSUMER.MSG.NEXT.{S}.{C}",
    "$JS.ACK.{S}.{C}.1.1.1.1.0",
];
const CONSUMERS: [&str; 3] = ["order-service", "customer-service", "other"];

/// And what else may be said.
const OTHERS: [&str; 27] = [
    "events.orders.v1.OrderCreated",
    "events.customers.v1.CreditReserved",
    "events.other",
    "quarantine.ORDERS.session",
    "quarantine.CUSTOMERS.session",
    "dead.order-service",
    "dead.customer-service",
    "discarded.order-service",
    "discarded.customer-service",
    "orders.v1.CreateOrder",
    "customers.v1.CreateCustomer",
    "dead_letters.v1.order-service.ListDeadLetters",
    "dead_letters.v1.customer-service.DiscardDeadLetters",
    "$SRV.PING",
    "$SRV.INFO.order-service",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.ACCOUNT.PURGE.G",
    "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS.customer-service",
    "$JS.FC.ORDERS.other.1",
    "$SYS.REQ.SERVER.PING",
    "$KV.other.key",
    "_INBOX.a.b",
    "_INBOX_order-service.a.b",
    "anything",
];

/// What a relay says, of the stream `{S}` with the events of `{E}`.
const RELAY: &[&str] = &[
    "events.{E}.>",
    "quarantine.{S}.>",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.INFO.{S}",
    "$JS.API.STREAM.CREATE.{S}",
    "$JS.API.STREAM.UPDATE.{S}",
    "$JS.API.STREAM.MSG.GET.{S}",
    "$JS.API.CONSUMER.LIST.{S}",
    "$JS.API.CONSUMER.CREATE.{S}",
    "$JS.API.CONSUMER.CREATE.{S}.*",
    "$JS.API.CONSUMER.INFO.{S}.*",
    "$JS.API.CONSUMER.DELETE.{S}.*",
    "$JS.API.CONSUMER.RESET.{S}.*",
    "$JS.API.CONSUMER.MSG.NEXT.{S}.*",
    "$JS.API.STREAM.INFO.{S}_QUARANTINE",
    "$JS.API.STREAM.CREATE.{S}_QUARANTINE",
    "$JS.API.STREAM.PURGE.{S}_QUARANTINE",
    "$JS.API.STREAM.MSG.GET.{S}_QUARANTINE",
    "$JS.API.CONSUMER.CREATE.{S}_QUARANTINE",
    "$JS.API.CONSUMER.INFO.{S}_QUARANTINE.*",
    "$JS.API.CONSUMER.DELETE.{S}_QUARANTINE.*",
    "$JS.API.CONSUMER.MSG.NEXT.{S}_QUARANTINE.*",
];

/// What the service `{ME}` says, which consumes the stream `{S}`.
const SERVICE: &[&str] = &[
    "dead.{ME}",
    "discarded.{ME}",
    "$JS.API.STREAM.INFO.{S}",
    "$JS.API.STREAM.MSG.GET.{S}",
    "$JS.API.CONSUMER.INFO.{S}.{ME}",
    "$JS.API.CONSUMER.CREATE.{S}.{ME}",
    "$JS.API.CONSUMER.MSG.NEXT.{S}.{ME}",
    "$JS.ACK.{S}.{ME}.>",
    "$JS.API.STREAM.INFO.DEAD_LETTERS",
    "$JS.API.STREAM.CREATE.DEAD_LETTERS",
    "$JS.API.STREAM.MSG.GET.DEAD_LETTERS",
    "$JS.API.STREAM.MSG.DELETE.DEAD_LETTERS",
    "$JS.API.STREAM.INFO.DISCARDED_LETTERS",
    "$JS.API.STREAM.CREATE.DISCARDED_LETTERS",
];

/// What the Order Service says besides, to wake those who watch; never by the other one's consumer.
const WATCHES: &[&str] = &[
    "$JS.API.STREAM.INFO.ORDERS",
    "$JS.API.CONSUMER.CREATE.ORDERS",
    "$JS.API.CONSUMER.DELETE.ORDERS.order-service",
    "$JS.API.CONSUMER.DELETE.ORDERS.other",
    "$JS.API.CONSUMER.MSG.NEXT.ORDERS.order-service",
    "$JS.API.CONSUMER.MSG.NEXT.ORDERS.other",
];

const OPERATOR: &[&str] = &[
    "orders.v1.*",
    "customers.v1.*",
    "dead_letters.v1.*.*",
    "$SRV.>",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.MSG.GET.*",
    "$JS.API.STREAM.LEADER.STEPDOWN.*",
    "$JS.API.DIRECT.GET.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.*.*",
    "$JS.API.CONSUMER.LEADER.STEPDOWN.*.*",
    "$JS.API.CONSUMER.CREATE.CUSTOMERS.order-service",
    "$JS.API.CONSUMER.CREATE.CUSTOMERS.order-service.>",
    "$JS.API.CONSUMER.CREATE.ORDERS.customer-service",
    "$JS.API.CONSUMER.CREATE.ORDERS.customer-service.>",
];

/// What may be asked to be heard, of all that.
const HEARD: [&str; 32] = [
    ">",
    "*",
    "_INBOX.>",
    "_INBOX_order-service.>",
    "_INBOX_customer-service.>",
    "_INBOX_orders-relay.>",
    "_INBOX_customers-relay.>",
    "_INBOX_operator.>",
    "events.>",
    "events.orders.>",
    "events.customers.>",
    "quarantine.>",
    "dead.>",
    "discarded.>",
    "orders.v1.CreateOrder",
    "customers.v1.CreateCustomer",
    "dead_letters.v1.order-service.ListDeadLetters",
    "dead_letters.v1.customer-service.ListDeadLetters",
    "$SRV.PING",
    "$SRV.INFO.order-service",
    "$SRV.STATS.order-service.id",
    "$SRV.INFO.order-service-dead-letters",
    "$SRV.STATS.order-service-dead-letters.id",
    "$SRV.INFO.customer-service",
    "$SRV.STATS.customer-service.id",
    "$SRV.INFO.customer-service-dead-letters",
    "$SRV.STATS.customer-service-dead-letters.id",
    "$JS.API.>",
    "$JS.ACK.>",
    "$JS.EVENT.ADVISORY.>",
    "$JS.FC.>",
    "$SYS.>",
];

/// What a user may say, and hear.
fn rights(user: &str) -> (Vec<String>, Vec<String>) {
    let filled = |list: &[&str], stream: &str, events: &str| -> Vec<String> {
        let fill = |one: &&str| {
            one.replace("{ME}", user)
                .replace("{S}", stream)
                .replace("{E}", events)
        };
        list.iter().map(fill).collect()
    };
    let service = |stream: &str, operations: &str| {
        let hears = [
            "_INBOX_{ME}.>",
            operations,
            "dead_letters.v1.{ME}.*",
            "$SRV.*",
            "$SRV.*.{ME}",
            "$SRV.*.{ME}.*",
            "$SRV.*.{ME}-dead-letters",
            "$SRV.*.{ME}-dead-letters.*",
        ];
        (filled(SERVICE, stream, ""), filled(&hears, "", ""))
    };
    let relay = |stream: &str, events: &str| {
        (
            filled(RELAY, stream, events),
            filled(&["_INBOX_{ME}.>"], "", ""),
        )
    };
    match user {
        "order-service" => {
            let (mut says, hears) = service("CUSTOMERS", "orders.v1.*");
            says.extend(filled(WATCHES, "", ""));
            (says, hears)
        }
        "customer-service" => service("ORDERS", "customers.v1.*"),
        "orders-relay" => relay("ORDERS", "orders"),
        "customers-relay" => relay("CUSTOMERS", "customers"),
        "shop" => (
            filled(&["orders.v1.*", "customers.v1.*"], "", ""),
            filled(&["_INBOX.>"], "", ""),
        ),
        "operator" => (
            filled(OPERATOR, "", ""),
            filled(&["_INBOX_{ME}.>", "$JS.EVENT.ADVISORY.>"], "", ""),
        ),
        _ => panic!("no rights are written down for {user}"),
    }
}

/// Every subject that may be said: each combination, allowed to somebody or to nobody.
fn said() -> BTreeSet<String> {
    let mut all: BTreeSet<String> = OTHERS.iter().map(|one| (*one).to_owned()).collect();
    for stream in STREAMS {
        all.extend(OF_STREAMS.iter().map(|one| one.replace("{S}", stream)));
        for consumer in CONSUMERS {
            let fill = |one: &&str| one.replace("{S}", stream).replace("{C}", consumer);
            all.extend(OF_CONSUMERS.iter().map(fill));
        }
    }
    all
}

/// Whether `subject`, or all that it stands for, lies within `pattern`.
fn within(subject: &str, pattern: &str) -> bool {
    let (mut subject, mut pattern) = (subject.split('.'), pattern.split('.'));
    loop {
        match (subject.next(), pattern.next()) {
            (Some(_), Some(">")) | (None, None) => return true,
            (Some(">"), _) | (None, _) | (_, None) => return false,
            (Some(one), Some(other)) if other == "*" || one == other => {}
            _ => return false,
        }
    }
}

async fn login(nats: &Nats, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned());
    options.connect(nats.url()).await.expect("a login")
}

/// What has been refused to `user`, once that is so of [`NOBODYS`], which came last. The client is told too, but
/// drops what comes too fast.
async fn refused(nats: &Nats, user: &str, what: &str) -> BTreeSet<String> {
    let (of, before) = (
        format!("user:{user}\""),
        format!(" {what} Violation - Subject \""),
    );
    harness::eventually("the last refusal", SOON, async || {
        let log = nats.log().text();
        let lines = log.lines().filter(|line| line.contains(&of));
        let subjects = lines.filter_map(|line| {
            let (_, rest) = line.split_once(&before)?;
            rest.split_once('"').map(|(subject, _)| subject.to_owned())
        });
        let told: BTreeSet<String> = subjects.collect();
        Ok(told.contains(NOBODYS).then_some(told))
    })
    .await
    .expect("the server's refusals")
}

/// Else it could be widened there unnoticed.
#[test]
fn whatever_the_configuration_names_is_tried() {
    let all = said();
    let tried = || all.iter().map(String::as_str).chain(HEARD);
    // What stands in quotation marks, but for one length of time.
    let named = CONFIGURATION.split('"').skip(1).step_by(2);
    for pattern in named.filter(|one| *one != "1m") {
        let is_tried = tried().any(|subject| within(subject, pattern));
        assert!(is_tried, "nothing that is tried lies within {pattern}");
    }
}

#[tokio::test]
async fn each_user_says_and_hears_what_it_needs_and_no_more() {
    let nats = Nats::start_with(&Guard::start().unwrap(), &configuration()).await;
    let nats = nats.unwrap();
    for user in USERS {
        let (says, hears) = rights(user);
        let client = login(&nats, user).await;
        for subject in said() {
            client.publish(subject, "".into()).await.unwrap();
        }
        client.publish(NOBODYS, "".into()).await.unwrap();
        let told = refused(&nats, user, "Publish").await;
        for subject in said() {
            let may = says.iter().any(|pattern| within(&subject, pattern));
            assert_eq!(!told.contains(&subject), may, "{user} says {subject}");
        }
        for pattern in says {
            let is_tried = said().iter().any(|subject| within(subject, &pattern));
            assert!(is_tried, "nothing that is tried lies within {pattern}");
        }

        let mut subscriptions = Vec::new();
        for subject in HEARD.into_iter().chain([NOBODYS]) {
            subscriptions.push(client.subscribe(subject).await.unwrap());
        }
        let told = refused(&nats, user, "Subscription").await;
        for subject in HEARD {
            let may = hears.iter().any(|pattern| within(subject, pattern));
            assert_eq!(!told.contains(subject), may, "{user} hears {subject}");
        }
    }
}
