//! `shop order …`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, CreateOrderRequest, CreateOrderResponse,
    ListOrdersRequest, ListOrdersResponse, Order,
};
use uuid::Uuid;

use crate::cli::{Amount, Once, id, time};
use crate::failure::Failure;
use crate::list::{self, Page, Paging};
use crate::outcome::{self, Patience};
use crate::reach::{Operation, Services};
use crate::show::Out;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum OrderCommand {
    /// Places an order on a customer's credit: `shop order create <CUSTOMER> 12.50 EUR`
    Create {
        /// Who pays
        #[arg(value_parser = id)]
        customer: Uuid,
        #[command(flatten)]
        total: Amount,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        once: Once,
    },
    /// Shows an order
    Show {
        #[arg(value_parser = id)]
        order: Uuid,
        #[command(flatten)]
        wait: Wait,
    },
    /// Lists orders, the oldest first
    List {
        /// Only this customer's
        #[arg(long, value_parser = id)]
        customer: Option<Uuid>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Cancels an order that is pending or approved; its credit is released a moment later
    Cancel {
        #[arg(value_parser = id)]
        order: Uuid,
        #[command(flatten)]
        once: Once,
    },
    /// Tells how an order stands, and each change up to its outcome: approved, or cancelled
    Watch {
        #[arg(value_parser = id)]
        order: Uuid,
    },
}

/// Whether a command waits for an order's outcome.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// Waits for the outcome, for so long at most, such as 5s; the exit status tells it
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,
}

pub(crate) async fn run(
    command: OrderCommand,
    services: &Services,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    match command {
        OrderCommand::Create {
            customer,
            total,
            wait,
            once,
        } => {
            let request_id = once.request_id();
            let patience = Patience::new(wait.wait);
            let first = patience.next_wait();
            let request = CreateOrderRequest {
                customer_id: customer.to_string(),
                total: Some(total.money()?),
                request_id: request_id.to_string(),
                wait: outcome::asked(first),
            };
            let operation = Operation::change("orders.v1.CreateOrder", request_id).waiting(first);
            let answer: CreateOrderResponse = services.call(operation, &request).await?;
            let order = outcome::within(services, found(answer.order)?, patience).await?;
            out.one(&order)?;
            return Ok(outcome::status(wait.wait.and(Some(&order))));
        }
        OrderCommand::Show { order, wait } => {
            let patience = Patience::new(wait.wait);
            let order = outcome::get(services, &order.to_string(), patience.next_wait()).await?;
            let order = outcome::within(services, order, patience).await?;
            out.one(&order)?;
            return Ok(outcome::status(wait.wait.and(Some(&order))));
        }
        OrderCommand::Watch { order } => {
            let order = outcome::watch(services, &order.to_string(), out).await?;
            return Ok(outcome::status(Some(&order)));
        }
        OrderCommand::Cancel { order, once } => {
            let request_id = once.request_id();
            let request = CancelOrderRequest {
                order_id: order.to_string(),
                request_id: request_id.to_string(),
            };
            let operation = Operation::change("orders.v1.CancelOrder", request_id);
            let answer: CancelOrderResponse = services.call(operation, &request).await?;
            out.one(&found(answer.order)?)?;
        }
        OrderCommand::List { customer, paging } => {
            let customer_id = customer.map_or_else(String::new, |id| id.to_string());
            let operation = Operation::read("orders.v1.ListOrders");
            list::print(&paging, out, async |page_token| {
                let request = ListOrdersRequest {
                    customer_id: customer_id.clone(),
                    page_size: paging.page_size,
                    page_token,
                };
                services
                    .call::<_, ListOrdersResponse>(operation, &request)
                    .await
            })
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Page for ListOrdersResponse {
    type Item = Order;

    fn items(&self) -> &[Order] {
        &self.orders
    }

    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }
}

/// The order that an answer must have.
pub(crate) fn found(order: Option<Order>) -> Result<Order, Failure> {
    Ok(order.context("an answer without an order")?)
}
