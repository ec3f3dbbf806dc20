//! What applying events costs in statements, counted by the server: as many for a batch as for one event.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use harness::{Role, Side, System, eventually};

use crate::client::{Client, Transport, euros};
use crate::events;

const ORDERS: usize = 200;
/// Far fewer than there are events: many are there at once, and a batch takes up to 256.
const TRANSACTIONS_MAX: usize = ORDERS / 5;
const DEADLINE: Duration = Duration::from_secs(60);

/// Statements of each transaction that claims events in the inbox, in the order of their ends, as the
/// service's role has sent them.
fn transactions(system: &System, side: Side) -> Vec<usize> {
    let role = Role::Service.of(side);
    let mut open: HashMap<String, (usize, bool)> = HashMap::new();
    let mut ended = Vec::new();
    for line in system.postgres().log().text().lines() {
        // `log_line_prefix` of the test.
        let mut words = line.splitn(3, ' ');
        let (Some(process), Some(user), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let said = rest.strip_prefix("LOG:  statement: ");
        let said = said.or_else(|| {
            rest.strip_prefix("LOG:  execute ")?
                .split_once(": ")
                .map(|all| all.1)
        });
        let Some(statement) = said.filter(|_| user == role) else {
            continue;
        };
        if statement.starts_with("START TRANSACTION") || statement.starts_with("BEGIN") {
            open.insert(process.to_owned(), (0, false));
        }
        let Some((statements, claims)) = open.get_mut(process) else {
            continue;
        };
        *statements += 1;
        *claims |= statement.starts_with("INSERT INTO public.inbox ");
        if (statement.ends_with("COMMIT") || statement.starts_with("ROLLBACK"))
            && let Some((statements, true)) = open.remove(process)
        {
            ended.push(statements);
        }
    }
    ended
}

/// Waits until so many events have been published.
async fn published(system: &System, side: Side, wanted: usize) -> Result<()> {
    eventually("the events to be published", DEADLINE, async || {
        let stored = events::count(system, side).await?;
        ensure!(stored >= wanted, "so far {stored} of {wanted}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_costs_as_many_statements_as_one_event() -> Result<()> {
    let system = System::builder()
        .postgres("log_statement", "all")
        .postgres("log_line_prefix", "%p %u ")
        .start()
        .await?;
    let client = Client::new(&system, Transport::Grpc).await?;
    let customer = client.create_customer("Ada", euros(1_000_000)).await?;
    let create = || client.create_order(&customer.customer_id, euros(1));
    client.settled_order(&create().await?.order_id).await?;
    let alone = Side::ALL.map(|side| transactions(&system, side));
    let before = [
        events::count(&system, Side::Orders).await?,
        events::count(&system, Side::Customers).await?,
    ];

    let [orders, customers] = Side::ALL.map(|side| system.process(side.service()));
    customers.pause()?;
    let created = try_join_all((0..ORDERS).map(|_| create())).await?;
    published(&system, Side::Orders, before[0] + ORDERS).await?;
    orders.pause()?;
    customers.resume()?;
    published(&system, Side::Customers, before[1] + ORDERS).await?;
    orders.resume()?;
    for order in &created {
        client.settled_order(&order.order_id).await?;
    }
    for (side, alone) in Side::ALL.into_iter().zip(alone) {
        let all = transactions(&system, side);
        let batches = &all[alone.len()..];
        let most = alone.iter().max();
        ensure!(most.is_some_and(|most| *most > 3), "{side:?}: {alone:?}");
        ensure!(
            batches.iter().max() <= most,
            "{side:?}: {alone:?} and then {batches:?}"
        );
        let count = batches.len();
        ensure!(
            (1..=TRANSACTIONS_MAX).contains(&count),
            "{side:?}: {batches:?}"
        );
    }
    Ok(())
}
