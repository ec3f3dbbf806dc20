//! A relay is killed in the middle of a few hundred orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Side, books};
use proto::orders::v1::CreateOrderRequest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::show::{euros, span};
use super::stage::Stage;
use super::story::{customer, money};

pub(super) const ORDERS: usize = 300;
/// So many of them fit the limit, whoever comes first: all are for the same amount.
pub(super) const ORDERS_FIT: usize = 250;
const ORDER_CENTS: i64 = 4_000;
pub(super) const GRACE_LIMIT: i64 = 1_000_000;
/// Orders asked for at one time.
const CLIENTS: usize = 8;
/// The relay is killed when so many orders have been taken.
const KILL_AT: usize = 100;
/// A machine that is busy with other things needs a multiple of the usual second.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn tell(stage: &Stage) -> Result<()> {
    let show = stage.show;
    let grace = customer(stage, "Grace", GRACE_LIMIT).await?;
    show.step("g", "A relay dies in the middle of it");
    show.row(
        "asked",
        &format!(
            "order-service, by gRPC, {CLIENTS} at a time: {ORDERS} orders of {} for Grace, of which {ORDERS_FIT} fit",
            euros(ORDER_CENTS)
        ),
    );
    let relay = stage.system.process(Side::Orders.relay());
    let name = relay.name();
    let begun = Instant::now();
    let since = || format!("+{}", span(begun.elapsed()));

    let (mut clients, mut placed) = place_all(stage, &grace.customer_id)?;
    take(&mut placed, KILL_AT).await;
    let pid = relay.pid().context("the relay does not run")?;
    relay.kill().await?;
    show.row(
        &since(),
        &format!("{name} (pid {pid}) is killed with SIGKILL after {KILL_AT} orders"),
    );
    take(&mut placed, ORDERS - KILL_AT).await;
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let waiting = waiting(stage).await?;
    show.row(
        &since(),
        &format!("all {ORDERS} orders are taken all the same; {waiting} events wait in the outbox"),
    );
    // Otherwise it was not in the middle of anything.
    ensure!(
        waiting > 0,
        "nothing waited for the dead relay: the kill came too late to show anything"
    );

    relay.start_again()?;
    let pid = relay.pid().context("the relay does not run")?;
    show.row(
        &since(),
        &format!("{name} is started again (pid {pid}) and reads on from the stream's last event"),
    );
    show.progress("", "awaiting that every order is settled …");
    relay.wait_ready().await?;
    let books = books::settled(&stage.system, SETTLE_DEADLINE).await?;
    let account = books
        .customers
        .iter()
        .find(|account| account.customer_id == grace.customer_id);
    let reserved = account.map_or(0, |account| account.reserved);
    show.good(
        &since(),
        &format!(
            "no order is pending; {} of {} are reserved for Grace",
            euros(reserved),
            euros(GRACE_LIMIT)
        ),
    );
    show.commands("by hand", &by_hand(stage, pid));
    Ok(())
}

/// Clients that place all the orders; each order placed is told on the channel.
fn place_all(
    stage: &Stage,
    customer_id: &str,
) -> Result<(JoinSet<Result<()>>, mpsc::Receiver<()>)> {
    let taken = Arc::new(AtomicUsize::new(0));
    let (told, placed) = mpsc::channel(ORDERS);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut orders = stage.system.orders()?;
        let (taken, told) = (Arc::clone(&taken), told.clone());
        let request = CreateOrderRequest {
            wait: None,
            request_id: String::new(),
            customer_id: customer_id.to_owned(),
            total: Some(money(ORDER_CENTS)),
        };
        clients.spawn(async move {
            while taken.fetch_add(1, Ordering::Relaxed) < ORDERS {
                let answer = orders.create_order(request.clone()).await;
                answer.context("order-service has refused an order")?;
                told.send(()).await?;
            }
            Ok(())
        });
    }
    Ok((clients, placed))
}

/// Awaits so many orders; fewer when a client has failed, which its own result then tells.
async fn take(placed: &mut mpsc::Receiver<()>, count: usize) {
    for _ in 0..count {
        if placed.recv().await.is_none() {
            return;
        }
    }
}

/// Events of orders that are in the outbox and not in the stream.
async fn waiting(stage: &Stage) -> Result<usize> {
    let books = books::audit(&stage.system).await?;
    let ledger = books
        .streams
        .get(Side::Orders.stream())
        .context("no books of the orders' stream")?;
    Ok(ledger.outbox.saturating_sub(ledger.messages()))
}

fn by_hand(stage: &Stage, pid: u32) -> Vec<String> {
    let ask = r#"cargo -q xtask request orders.v1.CreateOrder "$BODY" --take order.orderId"#;
    let mut lines = vec![format!("kill -9 {pid}")];
    lines.push(stage.hand.body("'$CUSTOMER'", ORDER_CENTS));
    lines.push(format!("for i in $(seq 20); do {ask}; done"));
    lines.push(stage.hand.count());
    lines.push(stage.hand.start_again(Side::Orders.relay()));
    lines.push(stage.hand.count());
    lines
}
