//! The system that the tests share, and `shop` on it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use harness::{Shared, System, eventually};
use serde_json::Value;
use tokio::process::{Child, Command};

/// A moment, on an idle system; the machine may be busy.
pub(crate) const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

static SYSTEM: Shared = Shared::new(System::builder);

/// Runs a claim on the shared system, beside others.
pub(crate) fn on_shared_system(claim: impl AsyncFnOnce(&System)) {
    SYSTEM.claim(claim);
}

/// `shop`, and the environment that it is given.
#[derive(Clone, Debug)]
pub(crate) struct Shop(BTreeMap<&'static str, String>);

impl Shop {
    pub(crate) fn new(system: &System, via: &str) -> Self {
        Self(BTreeMap::from([
            ("SHOP_VIA", via.to_owned()),
            ("ORDERS_GRPC", system.grpc_url("order-service")),
            ("CUSTOMERS_GRPC", system.grpc_url("customer-service")),
            ("NATS_URL", system.nats().url()),
            // The machine may be busy: only who wants to see time run out sets less.
            ("SHOP_TIMEOUT", "60s".to_owned()),
        ]))
    }

    /// Over each of the transports.
    pub(crate) fn over_each(system: &System) -> [Self; 2] {
        ["grpc", "nats"].map(|via| Self::new(system, via))
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.insert(name, value.to_owned());
        self
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_shop"))
            .args(arguments)
            .env_clear()
            .envs(&self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("shop starts")
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.start(arguments)).await
    }

    /// Its standard output, of a command that must not fail.
    pub(crate) async fn says(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments).await;
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{arguments:?}");
        ran.stdout
    }

    /// The same, without the end of the line.
    pub(crate) async fn id(&self, arguments: &[&str]) -> String {
        self.says(arguments).await.trim_end().to_owned()
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.says(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&text).expect(&text)
    }

    /// Awaits that an order is approved or cancelled.
    pub(crate) async fn settled(&self, order: &str) -> Value {
        eventually("the order to be settled", SETTLE_DEADLINE, async || {
            let order = self.json(&["order", "show", order]).await;
            ensure!(order["state"] != "ORDER_STATE_PENDING", "it is pending");
            Ok(Some(order))
        })
        .await
        .expect("it settles")
    }
}

/// How a command ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) async fn ran(child: Child) -> Ran {
    let output = child.wait_with_output().await.expect("shop ends");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    Ran {
        status: output.status.code().expect("no signal ends it"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The text with what differs from run to run told by name: ids in the order in which they come, and times.
pub(crate) fn plain(text: &str) -> String {
    let mut ids: Vec<String> = Vec::new();
    let mut plain = String::new();
    for word in text.split_inclusive([' ', '\n', '"', ',']) {
        let end = word.len() - word.ends_with([' ', '\n', '"', ',']) as usize;
        let (word, rest) = word.split_at(end);
        let is_id = word.len() == 36 && word.bytes().filter(|byte| *byte == b'-').count() == 4;
        let is_time = word.len() >= 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
        if is_id {
            let place = ids.iter().position(|id| id == word);
            let place = place.unwrap_or_else(|| {
                ids.push(word.to_owned());
                ids.len() - 1
            });
            plain.push_str(&format!("<id {}>", place + 1));
        } else if is_time {
            plain.push_str("<time>");
        } else {
            plain.push_str(word);
        }
        plain.push_str(rest);
    }
    plain
}
