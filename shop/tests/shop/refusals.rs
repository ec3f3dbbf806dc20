//! What goes wrong is said with what to do, and the exit status tells whose it is.

use crate::world::{Shop, on_shared_system};

const NOBODY: &str = "0192f8c1-6d3e-7a44-9a51-3c5b8e0d2f17";

#[test]
fn a_refusal_is_in_the_services_words_over_either_transport() {
    on_shared_system(async |system| {
        for shop in Shop::over_each(system) {
            let customer = shop
                .id(&["customer", "create", "Ada", "10 EUR", "-q"])
                .await;
            let order = shop
                .id(&["order", "create", &customer, "7 EUR", "-q"])
                .await;
            shop.settled(&order).await;
            let no_order = format!("NOT_FOUND): there is no order {NOBODY}");
            let cases: [(&[&str], &str); 6] = [
                (&["order", "show", NOBODY], &no_order),
                (&["order", "cancel", NOBODY], &no_order),
                (
                    &["customer", "show", NOBODY],
                    "NOT_FOUND): there is no customer",
                ),
                (
                    &["order", "create", &customer, "0 EUR"],
                    "INVALID_ARGUMENT): total.minor_units: ",
                ),
                (
                    &["customer", "limit", &customer, "5 EUR"],
                    "FAILED_PRECONDITION): ",
                ),
                (
                    &["order", "list", "--page-token", "x"],
                    "INVALID_ARGUMENT): page_token: ",
                ),
            ];
            for (arguments, words) in cases {
                let ran = shop.run(arguments).await;
                assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
                assert!(ran.stderr.starts_with("shop: refused ("), "{ran:?}");
                assert!(ran.stderr.contains(words), "{ran:?}");
            }
        }
    });
}

#[tokio::test]
async fn what_cannot_be_understood_is_told_before_anybody_is_asked() {
    let cases: [(&[&str], &str); 6] = [
        (
            &["order", "create", NOBODY, "12.505", "EUR"],
            "more than 2 digits behind the point",
        ),
        (
            &["order", "create", NOBODY, "12"],
            "its currency is missing",
        ),
        (&["order", "create", NOBODY], "<AMOUNT>"),
        (&["order", "show", "1"], "must be a UUID"),
        (&["order", "list", "--page-size", "1001"], "1..=1000"),
        (
            &["order", "list", "--timeout", "soon"],
            "must be a time such as 10s",
        ),
    ];
    for (arguments, words) in cases {
        let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_shop"))
            .args(arguments)
            .output();
        let output = run.await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn where_nobody_answers_the_address_and_its_setting_are_told() {
    on_shared_system(async |system| {
        let port = harness::Port::free().unwrap().number();
        let free = format!("http://127.0.0.1:{port}");
        let [grpc, nats] = Shop::over_each(system).map(|shop| shop.with("SHOP_TIMEOUT", "300ms"));
        let monitoring = format!("http://127.0.0.1:{}", system.nats().monitoring_port());
        let no_nats = format!("nats://127.0.0.1:{port}");
        let cases = [
            (
                grpc.clone().with("ORDERS_GRPC", &free),
                ["order-service", &free, "--orders-grpc", "refused"],
            ),
            (
                grpc.clone().with("ORDERS_GRPC", &monitoring),
                ["order-service", &monitoring, "ORDERS_GRPC", "gRPC"],
            ),
            (
                nats.with("NATS_URL", &no_nats),
                ["NATS", &no_nats, "NATS_URL", "refused"],
            ),
        ];
        for (shop, words) in cases {
            let ran = shop.run(&["order", "list"]).await;
            assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{ran:?}");
            for word in words {
                assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
            }
        }
        // Something else is served there: gRPC, but not this service.
        let ran = grpc.with("ORDERS_GRPC", &system.grpc_url("customer-service"));
        let ran = ran.run(&["order", "list"]).await;
        assert!(
            ran.stderr.contains("UNIMPLEMENTED") && ran.stderr.contains("--orders-grpc"),
            "{ran:?}"
        );
    });
}
