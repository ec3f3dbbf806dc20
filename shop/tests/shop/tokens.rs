//! Where the services ask who calls, `shop` shows a token.

use std::fs;

use harness::System;

use crate::world::Shop;

#[tokio::test]
async fn a_token_says_who_calls_and_without_one_nothing_is_done() {
    let system = System::builder().tokens().start().await.expect("it starts");
    let issuer = system.issuer().expect("it asks for tokens");
    for shop in Shop::over_each(&system) {
        let operator = shop.clone().with("SHOP_TOKEN", &issuer.operator());
        let create = ["customer", "create", "Ada", "200", "EUR", "--quiet"];
        let customer = operator.id(&create).await;
        let own = issuer.customer(&customer);
        let file = system.directory().join("token");
        // As editors and `echo` leave it.
        fs::write(&file, format!("{own}\n")).expect("it is written");
        let file = file.display().to_string();
        let order = ["order", "create", &customer, "20", "EUR", "--wait", "60s"];
        let order = [&order[..], &["--quiet", "--token-file", &file]].concat();
        let order = shop.id(&order).await;
        let own = shop.clone().with("SHOP_TOKEN", &own);
        // Over gRPC a stream, which shows the token as well.
        assert!(
            own.says(&["order", "watch", &order])
                .await
                .contains("approved")
        );

        let refused = shop.run(&["order", "show", &order]).await;
        assert_eq!(refused.status, 1);
        assert!(
            refused.stderr.contains("UNAUTHENTICATED"),
            "{}",
            refused.stderr
        );
        let other = operator.id(&create).await;
        let other = shop.clone().with("SHOP_TOKEN", &issuer.customer(&other));
        let hidden = other.run(&["order", "show", &order]).await;
        assert!(hidden.stderr.contains("NOT_FOUND"), "{}", hidden.stderr);
        let denied = own.run(&create).await;
        assert!(
            denied.stderr.contains("PERMISSION_DENIED"),
            "{}",
            denied.stderr
        );
    }
}

#[tokio::test]
async fn what_is_no_token_is_said_to_be_none_and_not_shown() {
    let system = System::builder().tokens().start().await.expect("it starts");
    for shop in Shop::over_each(&system) {
        for wrong in ["hunter2\nhunter2", "hunter2 hunter2", "\u{1b}hunter2"] {
            let ran = shop
                .clone()
                .with("SHOP_TOKEN", wrong)
                .run(&["order", "list"])
                .await;
            assert_eq!(ran.status, 1);
            assert!(ran.stderr.contains("--token-file"), "{}", ran.stderr);
            assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        }
        let lost = ["order", "list", "--token-file", "/nowhere/token"];
        let ran = shop.run(&lost).await;
        assert!(ran.stderr.contains("/nowhere/token"), "{}", ran.stderr);
        let both = shop.with("SHOP_TOKEN", "a").run(&lost).await;
        assert!(
            both.stderr.contains("leave one of them out"),
            "{}",
            both.stderr
        );
    }
}
