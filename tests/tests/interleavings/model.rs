//! The same history where each event is applied once and in order, as plainly as it can be said.
//!
//! An event takes effect when it arrives for the first time, and takes with it what was told of the same
//! order before it: a cancel that has overtaken its create brings the create along. Nothing here is
//! written for repeats, or for what comes late.

use std::collections::{BTreeMap, BTreeSet};

use order_service::domain::{Reason, State};

use crate::history::CUSTOMERS;
use crate::world::{Done, LIMIT, Summary, Told};

#[derive(Debug)]
struct Order {
    customer: usize,
    amount: i64,
    foreign: bool,
    state: State,
    /// What the Customer Service has said, once it was asked.
    answer: Option<State>,
}

#[derive(Debug)]
pub(crate) struct Model {
    orders: Vec<Order>,
    held: BTreeSet<usize>,
    limits: [i64; CUSTOMERS],
    /// Orders whose cancel has arrived, and whose answer has.
    cancels: BTreeSet<usize>,
    answers: BTreeSet<usize>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            orders: Vec::new(),
            held: BTreeSet::new(),
            limits: [LIMIT; CUSTOMERS],
            cancels: BTreeSet::new(),
            answers: BTreeSet::new(),
        }
    }
}

impl Model {
    pub(crate) fn apply(&mut self, done: &Done) {
        match *done {
            Done::Created {
                customer,
                amount,
                foreign,
            } => self.orders.push(Order {
                customer,
                amount,
                foreign,
                state: State::Pending,
                answer: None,
            }),
            Done::Cancel(number) => {
                let order = &mut self.orders[number];
                if matches!(order.state, State::Pending | State::Approved) {
                    order.state = State::Cancelled(Reason::ByCustomer);
                }
            }
            Done::TimeOut(number) => {
                let order = &mut self.orders[number];
                if order.state == State::Pending {
                    order.state = State::Cancelled(Reason::TimedOut);
                }
            }
            Done::SetLimit { customer, limit } => {
                if limit >= self.reserved(customer) {
                    self.limits[customer] = limit;
                }
            }
            Done::ToCustomers(Told::Created(number)) => self.ask(number),
            Done::ToCustomers(Told::Cancelled(number)) => {
                if self.cancels.insert(number) {
                    self.ask(number);
                    self.held.remove(&number);
                }
            }
            Done::ToOrders(number) => {
                let order = &mut self.orders[number];
                if self.answers.insert(number)
                    && order.state == State::Pending
                    && let Some(answer) = order.answer
                {
                    order.state = answer;
                }
            }
        }
    }

    /// The order asks for credit, for the first time.
    fn ask(&mut self, number: usize) {
        let order = &self.orders[number];
        if order.answer.is_some() {
            return;
        }
        let customer = order.customer;
        let answer = if customer >= CUSTOMERS {
            State::Cancelled(Reason::UnknownCustomer)
        } else if order.foreign {
            State::Cancelled(Reason::CurrencyMismatch)
        } else if self.reserved(customer) + order.amount > self.limits[customer] {
            State::Cancelled(Reason::CreditLimitExceeded)
        } else {
            self.held.insert(number);
            State::Approved
        };
        self.orders[number].answer = Some(answer);
    }

    fn reserved(&self, customer: usize) -> i64 {
        let held = self.held.iter().map(|number| &self.orders[*number]);
        held.filter(|order| order.customer == customer)
            .map(|order| order.amount)
            .sum()
    }

    pub(crate) fn summary(&self) -> Summary {
        let held = self.held.iter();
        let held: BTreeMap<usize, i64> = held
            .map(|number| (*number, self.orders[*number].amount))
            .collect();
        let accounts = (0..CUSTOMERS).map(|number| (self.limits[number], self.reserved(number)));
        (
            self.orders.iter().map(|order| order.state).collect(),
            held,
            accounts.collect(),
        )
    }
}
