//! What scripts read: JSON as the contract has it, ids, and completions.

use std::collections::BTreeSet;

use proto::customers::v1::{Customer, ListCustomersResponse};
use proto::orders::v1::{GetOrderRequest, ListOrdersRequest, ListOrdersResponse, Order};

use crate::world::{Shop, on_shared_system};

#[test]
fn json_is_the_contracts_own() {
    on_shared_system(async |system| {
        for shop in Shop::over_each(system) {
            let text = ["customer", "create", "Ada", "10 EUR", "--json"];
            let customer: Customer = serde_json::from_str(&shop.says(&text).await).unwrap();
            let id = customer.customer_id.as_str();
            let text = shop.says(&["order", "create", id, "4 EUR", "--json"]).await;
            let placed: Order = serde_json::from_str(&text).unwrap();
            shop.settled(&placed.order_id).await;
            let text = shop
                .says(&["order", "show", &placed.order_id, "--json"])
                .await;
            let order: Order = serde_json::from_str(&text).unwrap();
            let request = GetOrderRequest {
                order_id: placed.order_id,
                wait: None,
            };
            let found = system.orders().unwrap().get_order(request).await.unwrap();
            assert_eq!(Some(&order), found.into_inner().order.as_ref());

            let text = shop
                .says(&["order", "list", "--customer", id, "--json"])
                .await;
            let listed: ListOrdersResponse = serde_json::from_str(&text).unwrap();
            let request = ListOrdersRequest {
                customer_id: id.to_owned(),
                ..ListOrdersRequest::default()
            };
            let found = system.orders().unwrap().list_orders(request).await.unwrap();
            assert_eq!(listed, found.into_inner());

            let text = shop
                .says(&["customer", "list", "--json", "--page-size", "1"])
                .await;
            let page: ListCustomersResponse = serde_json::from_str(&text).unwrap();
            assert_eq!(page.customers.len(), 1);
            let lines = shop
                .says(&["customer", "list", "--json", "--all", "--page-size", "3"])
                .await;
            let all = lines
                .lines()
                .map(|line| serde_json::from_str::<Customer>(line).unwrap());
            assert!(
                all.map(|one| one.customer_id).any(|other| other == id),
                "{lines}"
            );
        }
    });
}

#[test]
fn ids_can_be_piped_and_a_pipe_may_close() {
    on_shared_system(async |system| {
        let shop = Shop::new(system, "grpc");
        let customer = shop
            .id(&["customer", "create", "Ada", "10 EUR", "-q"])
            .await;
        let mut placed = BTreeSet::new();
        for _ in 0..3 {
            placed.insert(
                shop.id(&["order", "create", &customer, "1 EUR", "-q"])
                    .await,
            );
        }
        let listed = shop
            .says(&["order", "list", "--customer", &customer, "-q"])
            .await;
        assert_eq!(
            listed.lines().map(str::to_owned).collect::<BTreeSet<_>>(),
            placed
        );
        for id in listed.lines() {
            assert_eq!(shop.id(&["order", "cancel", id, "-q"]).await, id);
        }
        let mut child = shop.start(&["order", "list", "--customer", &customer]);
        drop(child.stdout.take());
        let ran = crate::world::ran(child).await;
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    });
}

#[tokio::test]
async fn shells_learn_the_commands_without_a_service() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_shop"))
            .args(["completions", shell])
            .output();
        let output = run.await.unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && script.contains("page-token"),
            "{shell}: {script}"
        );
        parsed_by(shell, &script).await;
    }
}

/// The shell itself reads the script, where it is installed.
async fn parsed_by(shell: &str, script: &str) {
    let arguments: &[&str] = match shell {
        "bash" | "zsh" => &["-n"],
        "fish" => &["--no-execute"],
        // They have no way to read a script without executing it.
        _ => return,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop");
    std::fs::write(&file, script).expect("a file in it");
    let run = tokio::process::Command::new(shell)
        .args(arguments)
        .arg(&file)
        .output();
    match run.await {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && told.is_empty(),
                "{shell}: {told}"
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {shell} is not installed, so nobody reads its script");
        }
        Err(error) => panic!("{shell}: {error}"),
    }
}

/// As if the tab key were pressed behind `words`.
#[tokio::test]
async fn bash_completes_commands_and_options() {
    let words = [
        (&["order", "cr"][..], "create"),
        (&["order", "list", "--page-t"], "--page-token"),
    ];
    for (words, completed) in words {
        let script = "source <($SHOP completions bash)
            COMP_WORDS=(shop \"$@\"); COMP_CWORD=$#
            _shop shop \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"
            printf '%s\\n' \"${COMPREPLY[@]}\"";
        let run = tokio::process::Command::new("bash")
            .env("SHOP", env!("CARGO_BIN_EXE_shop"))
            .args(["--noprofile", "--norc", "-c", script, "bash"])
            .args(words)
            .output();
        let output = run.await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let replies = String::from_utf8_lossy(&output.stdout);
        assert_eq!(replies.trim_end(), completed, "{told}");
    }
}
