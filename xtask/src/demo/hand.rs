//! The commands that a person can repeat, and the files that make them short.
//!
//! `env` sets the addresses, and puts the folders of `shop` and of Postgres's programs on the PATH;
//! `<process>.sh` starts a process again as the demo had started it, in the background, until the demo's
//! directory goes. Both hold the password of the private database: they are readable by their owner
//! alone.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::System;

#[derive(Debug)]
pub(super) struct Hand {
    directory: PathBuf,
    has_psql: bool,
}

impl Hand {
    /// Writes the files into the system's directory.
    pub(super) fn write(system: &System) -> Result<Self> {
        let directory = system.directory().to_owned();
        let bin = system.postgres().bin();
        let address = |name| system.grpc_url(name).replace("http://", "");
        let variables = [
            ("NATS_URL", system.nats().url()),
            ("ORDERS_DB", system.postgres().url("orders")),
            ("CUSTOMERS_DB", system.postgres().url("customers")),
            ("ORDERS_GRPC", address("order-service")),
            ("CUSTOMERS_GRPC", address("customer-service")),
        ];
        let mut lines = String::new();
        for (name, value) in variables {
            lines.push_str(&format!("export {name}={}\n", quoted(&value)));
        }
        let shop = harness::binary("shop")?;
        let own = shop.parent().unwrap_or(&shop);
        lines.push_str(&format!(
            "export PATH={}:{}:\"$PATH\"\n",
            quoted(&own.to_string_lossy()),
            quoted(&bin.to_string_lossy())
        ));
        private(&directory.join("env"), &lines)?;
        for process in system.processes() {
            let (program, environment) = process.recipe();
            let log = quoted(&process.log().path().to_string_lossy());
            let mut script = String::from("env");
            for (name, value) in environment {
                script.push_str(&format!(" \\\n  {name}={}", quoted(value)));
            }
            let program = quoted(&program.to_string_lossy());
            script.push_str(&format!(" \\\n  {program} >> {log} 2>&1 &\n"));
            // Nobody else ends it: the demo did not start it.
            let watch = format!(
                "pid=$!\n(while [ -d {} ]; do sleep 1; done; kill $pid) 2> /dev/null &\n",
                quoted(&directory.to_string_lossy())
            );
            script.push_str(&watch);
            private(&directory.join(format!("{}.sh", process.name())), &script)?;
        }
        Ok(Self {
            has_psql: bin.join("psql").exists() || on_path("psql"),
            directory,
        })
    }

    /// Sets the variables that the other commands use.
    pub(super) fn source(&self) -> String {
        format!(". {}", self.path("env"))
    }

    /// Starts a process again after it was killed.
    pub(super) fn start_again(&self, name: &str) -> String {
        format!("sh {}", self.path(&format!("{name}.sh")))
    }

    /// Makes $CUSTOMER in the file of variables this customer.
    pub(super) fn customer_is(&self, customer_id: &str) -> Result<()> {
        let path = self.directory.join("env");
        let line = format!("export CUSTOMER={}\n", quoted(customer_id));
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes a customer whose id is in $CUSTOMER afterwards.
    pub(super) fn customer(&self, body: &str) -> Vec<String> {
        vec![
            "CUSTOMER=$(cargo -q xtask request customers.v1.CreateCustomer --take customer.customerId \\".into(),
            format!("  {})", quoted(body)),
            "echo $CUSTOMER".into(),
        ]
    }

    /// Sets $BODY to the request for an order.
    pub(super) fn body(&self, customer: &str, cents: i64) -> String {
        let total = format!(r#""total":{{"minorUnits":{cents},"currency":"EUR"}}"#);
        format!(r#"BODY='{{"customerId":"{customer}",{total}}}'"#)
    }

    /// Sets $BODY and asks for the order; `every_way` shows the other clients too.
    pub(super) fn order(&self, customer: &str, cents: i64, every_way: bool) -> Vec<String> {
        let mut lines = vec![
            self.body(customer, cents),
            r#"cargo -q xtask request orders.v1.CreateOrder "$BODY""#.into(),
        ];
        if every_way {
            let (whole, part) = (cents / 100, cents % 100);
            let customer = customer.trim_matches('\'');
            lines.push(format!(
                "shop order create {customer} {whole}.{part:02} EUR --wait 5s"
            ));
            lines.push(
                r#"nats request orders.v1.CreateOrder "$BODY" -H Content-Type:application/json"#
                    .into(),
            );
            lines.push(
                r#"grpcurl -plaintext -d "$BODY" $ORDERS_GRPC orders.v1.OrderService/CreateOrder"#
                    .into(),
            );
        }
        lines
    }

    /// Waits for an order's outcome.
    pub(super) fn wait(&self, order_id: &str) -> Vec<String> {
        let watch = format!(r#"grpcurl -plaintext -d '{{"orderId":"{order_id}"}}' $ORDERS_GRPC"#);
        let request = format!(r#"'{{"orderId":"{order_id}","wait":"5s"}}'"#);
        vec![
            format!("{watch} orders.v1.OrderService/WatchOrder"),
            format!("cargo -q xtask request orders.v1.GetOrder {request}"),
        ]
    }

    /// Lists a customer's orders.
    pub(super) fn look(&self, customer: &str) -> String {
        if self.has_psql {
            let columns = "order_id, state, cancellation_reason";
            let id = customer.trim_matches('\'');
            format!(
                r#"psql $ORDERS_DB -c "select {columns} from orders where customer_id = '{id}'""#
            )
        } else {
            format!(
                r#"cargo -q xtask request orders.v1.ListOrders '{{"customerId":"{customer}"}}'"#
            )
        }
    }

    /// Counts orders by state.
    pub(super) fn count(&self) -> String {
        if self.has_psql {
            r#"psql $ORDERS_DB -c "select state, count(*) from orders group by state""#.into()
        } else {
            r#"cargo -q xtask request orders.v1.ListOrders '{"pageSize":1000}'"#.into()
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.join(name);
        let path = path.to_string_lossy();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
        if path.chars().all(plain) {
            path.into_owned()
        } else {
            quoted(&path)
        }
    }
}

/// As one word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn private(path: &Path, text: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes_survive_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
