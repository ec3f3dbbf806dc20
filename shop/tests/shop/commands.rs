//! Every command, over gRPC and over NATS: the same answers, for people.

use anyhow::ensure;
use harness::eventually;

use crate::world::{SETTLE_DEADLINE, Shop, on_shared_system, plain};

const STORY: &str = "\
customer   <id 1>
name       Ada Lovelace
limit      200.00 EUR
reserved   0.00 EUR
available  200.00 EUR
created    <time>
--
customer   <id 1>
name       Ada Lovelace
limit      150.50 EUR
reserved   0.00 EUR
available  150.50 EUR
created    <time>
--
order      <id 2>
customer   <id 1>
total      120.00 EUR
state      pending
created    <time>
deadline   <time>
--
order      <id 2>
customer   <id 1>
total      120.00 EUR
state      approved
created    <time>
changed    <time>
--
order      <id 3>
customer   <id 1>
total      30.51 EUR
state      cancelled: credit limit exceeded
created    <time>
changed    <time>
--
customer   <id 1>
name       Ada Lovelace
limit      150.50 EUR
reserved   120.00 EUR
available  30.50 EUR
created    <time>
--
ORDER                                      TOTAL  STATE                             CUSTOMER                              CREATED
<id 2>  120.00 EUR  approved                          <id 1>  <time>
<id 3>   30.51 EUR  cancelled: credit limit exceeded  <id 1>  <time>
--
order      <id 2>
customer   <id 1>
total      120.00 EUR
state      cancelled: by customer
created    <time>
changed    <time>
--
ORDER                                     AMOUNT  STATE                           ANSWERED              RELEASED
<id 2>  120.00 EUR  released                        <time>  <time>
<id 3>   30.51 EUR  refused: credit limit exceeded  <time>  –
";

/// A customer's story by commands, and what each has printed.
async fn told(shop: &Shop) -> String {
    let ada = shop
        .says(&["customer", "create", "Ada Lovelace", "200 EUR"])
        .await;
    let customer = &ada.split_whitespace().nth(1).expect("an id").to_owned();
    let limited = shop
        .says(&["customer", "limit", customer, "150.5", "EUR"])
        .await;
    let pending = shop
        .says(&["order", "create", customer, "120", "EUR"])
        .await;
    let order = &pending.split_whitespace().nth(1).expect("an id").to_owned();
    shop.settled(order).await;
    let approved = shop.says(&["order", "show", order]).await;
    let other = shop
        .id(&["order", "create", customer, "30.51 EUR", "-q"])
        .await;
    shop.settled(&other).await;
    let refused = shop.says(&["order", "show", &other]).await;
    let account = shop.says(&["customer", "show", customer]).await;
    let orders = shop.says(&["order", "list", "--customer", customer]).await;
    let cancelled = shop.says(&["order", "cancel", order]).await;
    assert_eq!(
        shop.says(&["order", "cancel", order]).await,
        cancelled,
        "again"
    );
    let reservations = ["customer", "reservations", customer];
    let released = eventually("the release", SETTLE_DEADLINE, async || {
        let listed = shop.says(&reservations).await;
        ensure!(listed.contains("released"), "it is not released");
        Ok(Some(listed))
    });
    let released = released.await.expect("it is released");
    let all = [
        ada, limited, pending, approved, refused, account, orders, cancelled, released,
    ];
    all.join("--\n")
}

#[test]
fn a_story_reads_alike_over_grpc_and_nats() {
    on_shared_system(async |system| {
        let [grpc, nats] = Shop::over_each(system);
        let (grpc, nats) = tokio::join!(told(&grpc), told(&nats));
        assert_eq!(plain(&grpc), STORY);
        assert_eq!(plain(&nats), STORY);
    });
}

#[test]
fn the_outcome_is_waited_for_and_told_by_the_exit_status() {
    on_shared_system(async |system| {
        for shop in Shop::over_each(system) {
            let customer = shop
                .id(&["customer", "create", "Ada", "10 EUR", "-q"])
                .await;
            let create = ["order", "create", &customer, "--wait", "60s"];
            let approved = shop.run(&[&create[..], &["7 EUR"]].concat()).await;
            assert_eq!(approved.status, 0, "{approved:?}");
            assert!(
                approved.stdout.contains("state      approved"),
                "{approved:?}"
            );
            let cancelled = shop.run(&[&create[..], &["4 EUR"]].concat()).await;
            assert_eq!(cancelled.status, 1, "{cancelled:?}");
            assert!(
                cancelled
                    .stdout
                    .contains("cancelled: credit limit exceeded"),
                "{cancelled:?}"
            );
            assert_eq!(cancelled.stderr, "");

            let order = shop
                .id(&["order", "create", &customer, "2 EUR", "-q"])
                .await;
            let watched = shop.says(&["order", "watch", &order]).await;
            let states: Vec<_> = watched
                .lines()
                .filter_map(|line| line.split("  ").nth(1))
                .collect();
            // It may have been settled before the watch began.
            assert!(
                [&["pending", "approved"][..], &["approved"]].contains(&&states[..]),
                "{watched}"
            );
            let shown = shop.says(&["order", "show", &order, "--wait", "60s"]).await;
            assert!(shown.contains("state      approved"), "{shown}");
            shop.says(&["order", "cancel", &order]).await;
            let watched = shop.run(&["order", "watch", &order, "--json"]).await;
            assert_eq!(
                (watched.status, watched.stdout.lines().count()),
                (1, 1),
                "{watched:?}"
            );
        }
    });
}

#[test]
fn every_change_can_be_repeated_by_its_id() {
    on_shared_system(async |system| {
        for shop in Shop::over_each(system) {
            let [one, two, three, four] = [(); 4].map(|()| uuid::Uuid::now_v7().to_string());
            let create = ["customer", "create", "Ada", "10 EUR", "--request-id", &one];
            let created = shop.says(&create).await;
            assert_eq!(shop.says(&create).await, created);
            let customer = &created.split_whitespace().nth(1).expect("an id").to_owned();
            let limit = [
                "customer",
                "limit",
                customer,
                "20 EUR",
                "--request-id",
                &two,
            ];
            let limited = shop.says(&limit).await;
            let order = [
                "order",
                "create",
                customer,
                "1 EUR",
                "-q",
                "--request-id",
                &three,
            ];
            let order_id = shop.id(&order).await;
            assert_eq!(shop.id(&order).await, order_id);
            let cancel = ["order", "cancel", &order_id, "--request-id", &four];
            assert_eq!(shop.says(&cancel).await, shop.says(&cancel).await);
            assert_eq!(
                shop.says(&limit).await,
                limited,
                "the first answer, with nothing reserved"
            );
            let other = shop
                .run(&["order", "cancel", &order_id, "--request-id", &three])
                .await;
            assert!(
                other.stderr.contains("INVALID_ARGUMENT): request_id: "),
                "{other:?}"
            );
        }
    });
}

#[test]
fn lists_have_every_customer_and_go_page_by_page() {
    on_shared_system(async |system| {
        for shop in Shop::over_each(system) {
            let yen = shop
                .id(&["customer", "create", "-q", "Yuki", "1200 JPY"])
                .await;
            let ids = shop
                .says(&["customer", "list", "--all", "-q", "--page-size", "2"])
                .await;
            assert_eq!(ids.lines().filter(|id| *id == yen).count(), 1, "{ids}");
            let table = shop
                .says(&["customer", "list", "--all", "--page-size", "2"])
                .await;
            // Others make customers meanwhile.
            assert!(table.lines().count() > ids.lines().count(), "{table}");
            let row = table
                .lines()
                .find(|line| line.starts_with(&yen))
                .expect("a row");
            let cells: Vec<_> = row.split_whitespace().skip(1).collect();
            assert_eq!(cells, ["1200", "JPY", "0", "JPY", "1200", "JPY", "Yuki"]);

            for total in ["1 JPY", "2 JPY", "3 JPY"] {
                shop.says(&["order", "create", &yen, total]).await;
            }
            let page = ["order", "list", "--customer", &yen, "--page-size", "2"];
            let first = shop.run(&[&page, &["-q"][..]].concat()).await;
            assert_eq!((first.status, first.stdout.lines().count()), (0, 2));
            let token = first.stderr.trim_end().rsplit(' ').next().expect("a token");
            let next = [&page, &["--page-token", token, "-q"][..]].concat();
            let next = shop.says(&next).await;
            let all = shop.says(&[&page, &["-q", "--all"][..]].concat()).await;
            assert_eq!(first.stdout + &next, all);
        }
    });
}
