//! Answers that are lost, and services that are away: a command is tried again, and takes effect once.

use anyhow::ensure;
use harness::{Link, System, eventually};
use tokio::io::AsyncBufReadExt as _;

use crate::world::{SETTLE_DEADLINE, Shop, on_shared_system, ran};

async fn orders_of(shop: &Shop, customer: &str) -> Vec<String> {
    let listed = shop
        .says(&["order", "list", "--customer", customer, "-q"])
        .await;
    listed.lines().map(str::to_owned).collect()
}

/// `shop` whose way to the Order Service can be cut.
async fn through_link(system: &System, shop: &Shop) -> (Link, Shop) {
    let url = system.grpc_url("order-service");
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
    let link = Link::to(port.expect("a port")).await.expect("a link");
    let address = format!("127.0.0.1:{}", link.port());
    let shop = shop.clone().with("ORDERS_GRPC", &address);
    (link, shop)
}

/// Awaits the one order that was placed, though nobody was told.
async fn placed(shop: &Shop, customer: &str) -> String {
    eventually("the order to be placed", SETTLE_DEADLINE, async || {
        let orders = orders_of(shop, customer).await;
        ensure!(!orders.is_empty(), "there is none");
        Ok(Some(orders))
    })
    .await
    .expect("it is placed")
    .remove(0)
}

#[test]
fn an_order_whose_answer_is_lost_is_placed_once() {
    on_shared_system(async |system| {
        let shop = Shop::new(system, "grpc");
        let customer = shop
            .id(&["customer", "create", "Ada", "10 EUR", "-q"])
            .await;
        let (link, lossy) = through_link(system, &shop).await;
        link.cut_from_target();
        let child = lossy.start(&["order", "create", &customer, "1 EUR", "-q"]);
        let order = placed(&shop, &customer).await;
        link.close_connections();
        link.heal();
        let ran = ran(child).await;
        assert_eq!(
            (ran.status, ran.stdout.trim_end()),
            (0, order.as_str()),
            "{ran:?}"
        );
        assert_eq!(orders_of(&shop, &customer).await, [order]);
    });
}

#[test]
fn a_command_that_gave_up_says_how_to_learn_what_it_did() {
    on_shared_system(async |system| {
        let shop = Shop::new(system, "grpc");
        let customer = shop
            .id(&["customer", "create", "Ada", "10 EUR", "-q"])
            .await;
        let (link, lossy) = through_link(system, &shop).await;
        link.cut_from_target();
        let impatient = lossy.with("SHOP_TIMEOUT", "4s");
        let create = ["order", "create", &customer, "1 EUR", "-q"];
        let child = impatient.start(&create);
        let order = placed(&shop, &customer).await;
        // Nobody is there for the tries that follow, and yet the first was heard.
        link.close_connections();
        drop(link);
        let ran = ran(child).await;
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
        assert!(
            ran.stderr.contains("Whether it took effect is not known"),
            "{ran:?}"
        );
        let id = ran
            .stderr
            .split("--request-id ")
            .nth(1)
            .and_then(|rest| rest.split(':').next());
        let again = [&create[..], &["--request-id", id.expect("the id is told")]].concat();
        assert_eq!(shop.id(&again).await, order);
        assert_eq!(orders_of(&shop, &customer).await, [order]);

        let nobody = shop
            .with("ORDERS_GRPC", "127.0.0.1:1")
            .with("SHOP_TIMEOUT", "300ms");
        let ran = nobody.run(&create).await;
        assert!(
            !ran.stderr.contains("not known"),
            "nothing was sent: {ran:?}"
        );
    });
}

#[tokio::test]
async fn commands_outlast_a_restart_of_the_service() {
    let system = System::start().await.expect("the system starts");
    for shop in Shop::over_each(&system) {
        let customer = shop
            .id(&["customer", "create", "Ada", "10 EUR", "-q"])
            .await;
        let service = system.process("order-service");
        service.kill().await.unwrap();
        let child = shop.start(&["order", "create", &customer, "1 EUR", "-q"]);
        let impatient = shop.clone().with("SHOP_TIMEOUT", "300ms");
        let ran_out = impatient.run(&["order", "list"]).await;
        assert_eq!(ran_out.status, 1, "{ran_out:?}");
        assert!(ran_out.stderr.contains("Is it running"), "{ran_out:?}");
        service.start_again().unwrap();
        service.wait_ready().await.unwrap();
        let ran = ran(child).await;
        assert_eq!(ran.status, 0, "{ran:?}");
        assert_eq!(orders_of(&shop, &customer).await, [ran.stdout.trim_end()]);
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_when_the_service_comes_back() {
    let system = System::start().await.expect("the system starts");
    for shop in Shop::over_each(&system) {
        let customer = shop
            .id(&["customer", "create", "Ada", "10 EUR", "-q"])
            .await;
        let (orders, customers) = (
            system.process("order-service"),
            system.process("customer-service"),
        );
        customers.kill().await.unwrap();
        let waited = [
            "order", "create", &customer, "1 EUR", "-q", "--wait", "500ms",
        ];
        let waited = shop.run(&waited).await;
        assert_eq!(
            (waited.status, waited.stderr.as_str()),
            (3, ""),
            "{waited:?}"
        );
        let order = waited.stdout.trim_end();
        let mut watch = shop.start(&["order", "watch", order, "--json"]);
        let stdout = watch.stdout.take().expect("it is piped");
        let mut lines = tokio::io::BufReader::new(stdout).lines();
        let first = lines
            .next_line()
            .await
            .unwrap()
            .expect("it is told at once");
        assert!(first.contains("ORDER_STATE_PENDING"), "{first}");
        orders.restart().await.unwrap();
        customers.start_again().unwrap();
        let next = lines.next_line().await.unwrap().expect("the outcome");
        assert!(next.contains("ORDER_STATE_APPROVED"), "{next}");
        assert_eq!(lines.next_line().await.unwrap(), None);
        let ran = ran(watch).await;
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
        customers.wait_ready().await.unwrap();
    }
}
