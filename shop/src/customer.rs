//! `shop customer …`

use std::process::ExitCode;

use anyhow::Context as _;
use proto::customers::v1::{
    CreateCustomerRequest, CreateCustomerResponse, Customer, GetCustomerRequest,
    GetCustomerResponse, ListCustomersRequest, ListCustomersResponse, ListReservationsRequest,
    ListReservationsResponse, Reservation, SetCreditLimitRequest, SetCreditLimitResponse,
};
use uuid::Uuid;

use crate::cli::{Amount, Once, id};
use crate::failure::Failure;
use crate::list::{self, Page, Paging};
use crate::reach::{Operation, Services};
use crate::show::Out;

#[derive(clap::Subcommand, Debug)]
pub(crate) enum CustomerCommand {
    /// Creates a customer with a credit limit: `shop customer create Ada 200 EUR`
    Create {
        name: String,
        #[command(flatten)]
        limit: Amount,
        #[command(flatten)]
        once: Once,
    },
    /// Shows a customer
    Show {
        #[arg(value_parser = id)]
        customer: Uuid,
    },
    /// Lists customers, the oldest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Sets a customer's credit limit: `shop customer limit <CUSTOMER> 500 EUR`
    Limit {
        #[arg(value_parser = id)]
        customer: Uuid,
        #[command(flatten)]
        limit: Amount,
        #[command(flatten)]
        once: Once,
    },
    /// Lists what was answered to a customer's orders, in the order of the orders
    Reservations {
        #[arg(value_parser = id)]
        customer: Uuid,
        #[command(flatten)]
        paging: Paging,
    },
}

pub(crate) async fn run(
    command: CustomerCommand,
    services: &Services,
    out: &mut Out,
) -> Result<ExitCode, Failure> {
    match command {
        CustomerCommand::Create { name, limit, once } => {
            let request_id = once.request_id();
            let request = CreateCustomerRequest {
                name,
                credit_limit: Some(limit.money()?),
                request_id: request_id.to_string(),
            };
            let operation = Operation::change("customers.v1.CreateCustomer", request_id);
            let answer: CreateCustomerResponse = services.call(operation, &request).await?;
            out.one(&found(answer.customer)?)?;
        }
        CustomerCommand::Show { customer } => {
            let request = GetCustomerRequest {
                customer_id: customer.to_string(),
            };
            let operation = Operation::read("customers.v1.GetCustomer");
            let answer: GetCustomerResponse = services.call(operation, &request).await?;
            out.one(&found(answer.customer)?)?;
        }
        CustomerCommand::Limit {
            customer,
            limit,
            once,
        } => {
            let request_id = once.request_id();
            let request = SetCreditLimitRequest {
                customer_id: customer.to_string(),
                credit_limit: Some(limit.money()?),
                request_id: request_id.to_string(),
            };
            let operation = Operation::change("customers.v1.SetCreditLimit", request_id);
            let answer: SetCreditLimitResponse = services.call(operation, &request).await?;
            out.one(&found(answer.customer)?)?;
        }
        CustomerCommand::List { paging } => {
            let operation = Operation::read("customers.v1.ListCustomers");
            list::print(&paging, out, async |page_token| {
                let request = ListCustomersRequest {
                    page_size: paging.page_size,
                    page_token,
                };
                services
                    .call::<_, ListCustomersResponse>(operation, &request)
                    .await
            })
            .await?;
        }
        CustomerCommand::Reservations { customer, paging } => {
            let operation = Operation::read("customers.v1.ListReservations");
            list::print(&paging, out, async |page_token| {
                let request = ListReservationsRequest {
                    customer_id: customer.to_string(),
                    page_size: paging.page_size,
                    page_token,
                };
                services
                    .call::<_, ListReservationsResponse>(operation, &request)
                    .await
            })
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Page for ListCustomersResponse {
    type Item = Customer;

    fn items(&self) -> &[Customer] {
        &self.customers
    }

    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }
}

impl Page for ListReservationsResponse {
    type Item = Reservation;

    fn items(&self) -> &[Reservation] {
        &self.reservations
    }

    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }
}

fn found(customer: Option<Customer>) -> Result<Customer, Failure> {
    Ok(customer.context("an answer without a customer")?)
}
