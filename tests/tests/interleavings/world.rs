//! The domains of both services, with the events between them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use customer_service::domain as customers;
use order_service::domain as orders;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::history::{CUSTOMERS, Step};

/// An order by its number; the numbers count from 0.
type Number = usize;

/// What the Order Service tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Created(Number),
    Cancelled(Number),
}

/// What was done, for the model to do as well.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    Created {
        customer: usize,
        amount: i64,
        foreign: bool,
    },
    Cancel(Number),
    TimeOut(Number),
    SetLimit {
        customer: usize,
        limit: i64,
    },
    ToCustomers(Told),
    ToOrders(Number),
}

/// Where everything stands, to be compared: each order's state, each order that holds credit with its
/// amount, each customer's limit and what is reserved of it.
pub(crate) type Summary = (Vec<orders::State>, BTreeMap<Number, i64>, Vec<(i64, i64)>);

/// Events that were published. They arrive any time later, and any number of times.
#[derive(Debug)]
pub(crate) struct Channel<T> {
    pub(crate) waiting: Vec<T>,
    arrived: Vec<T>,
}

/// How often what is worth meeting was met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    cancels_before_creates: usize,
    creates_after_cancels: usize,
    reserved_too_late: usize,
    approved_then_cancelled: usize,
    timed_out: usize,
    over_the_limit: usize,
    limits_refused: usize,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    placed: Vec<orders::Order>,
    books: customers::Books,
    pub(crate) orders: Channel<Told>,
    pub(crate) customers: Channel<(Number, orders::Answer)>,
    pub(crate) met: Met,
}

impl<T> Default for Channel<T> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            arrived: Vec::new(),
        }
    }
}

impl<T: Copy> Channel<T> {
    fn arrives(&mut self, pick: Index) -> Option<T> {
        if self.waiting.is_empty() {
            return None;
        }
        let event = self.waiting.swap_remove(pick.index(self.waiting.len()));
        self.arrived.push(event);
        Some(event)
    }

    fn again(&self, pick: Index) -> Option<T> {
        (!self.arrived.is_empty()).then(|| *pick.get(&self.arrived))
    }
}

impl World {
    /// Does it, and tells what it came to; none where there was nothing to do it to.
    pub(crate) fn step(&mut self, step: &Step) -> Result<Option<Done>, TestCaseError> {
        if self.books.accounts.is_empty() {
            self.books.accounts = (0..CUSTOMERS).map(|id| (customer(id), account())).collect();
        }
        let any_order =
            |pick: &Index| (!self.placed.is_empty()).then(|| pick.index(self.placed.len()));
        let done = match step {
            Step::Create {
                customer,
                amount,
                foreign,
            } => Some(self.create(*customer, *amount, *foreign)),
            Step::Cancel(pick) => any_order(pick).map(|order| {
                self.befalls(order, orders::Input::Cancel);
                Done::Cancel(order)
            }),
            Step::TimeOut(pick) => any_order(pick).map(|order| {
                self.befalls(order, orders::Input::TimeOut);
                Done::TimeOut(order)
            }),
            Step::SetLimit { customer, limit } => Some(self.set_limit(*customer, *limit)),
            Step::ToCustomers(pick) => match self.orders.arrives(*pick) {
                Some(told) => Some(self.reaches_customers(told)?),
                None => None,
            },
            Step::AgainToCustomers(pick) => match self.orders.again(*pick) {
                Some(told) => Some(self.reaches_customers(told)?),
                None => None,
            },
            Step::ToOrders(pick) => self
                .customers
                .arrives(*pick)
                .map(|a| self.reaches_orders(a)),
            Step::AgainToOrders(pick) => {
                self.customers.again(*pick).map(|a| self.reaches_orders(a))
            }
        };
        Ok(done)
    }

    fn create(&mut self, customer_number: usize, amount: i64, foreign: bool) -> Done {
        let number = self.placed.len();
        let currency = if foreign { "USD" } else { "EUR" };
        let total = orders::Total::new(amount, orders::Currency::new(currency).unwrap());
        let order = orders::Order::place(
            orders::OrderId([number as u8; 16]),
            orders::CustomerId([customer_number as u8; 16]),
            total.unwrap(),
            SystemTime::UNIX_EPOCH,
            Duration::ZERO,
        );
        self.placed.push(order);
        self.orders.waiting.push(Told::Created(number));
        Done::Created {
            customer: customer_number,
            amount,
            foreign,
        }
    }

    fn befalls(&mut self, number: Number, input: orders::Input) {
        let before = self.placed[number].state;
        let decision = self.placed[number].apply(input, SystemTime::UNIX_EPOCH);
        if let orders::Decision::Cancel(reason) = decision {
            self.orders.waiting.push(Told::Cancelled(number));
            self.met.timed_out += usize::from(reason == orders::Reason::TimedOut);
            self.met.approved_then_cancelled += usize::from(before == orders::State::Approved);
        }
        let reserved = orders::Input::Answer(orders::Answer::CreditReserved);
        let is_cancelled = matches!(before, orders::State::Cancelled(_));
        self.met.reserved_too_late += usize::from(is_cancelled && input == reserved);
    }

    fn set_limit(&mut self, number: usize, limit: i64) -> Done {
        let account = self.books.accounts.get_mut(&customer(number)).unwrap();
        let refused = account.set_limit(euros(limit)).is_err();
        self.met.limits_refused += usize::from(refused);
        Done::SetLimit {
            customer: number,
            limit,
        }
    }

    fn reaches_customers(&mut self, told: Told) -> Result<Done, TestCaseError> {
        use customers::{Decision, Event, Refusal, ReservationState};
        let event = match told {
            Told::Created(number) => Event::OrderCreated(self.ask(number)),
            Told::Cancelled(number) => Event::OrderCancelled(self.ask(number)),
        };
        let number = match told {
            Told::Created(number) | Told::Cancelled(number) => number,
        };
        let decided = self.books.decide(&event);
        let decided =
            decided.map_err(|contradiction| TestCaseError::fail(contradiction.to_string()))?;
        let answer = match decided {
            Decision::Reserve => Some(orders::Answer::CreditReserved),
            Decision::Refuse(Refusal::CustomerNotFound) => Some(orders::Answer::CustomerNotFound),
            Decision::Refuse(Refusal::CurrencyMismatch { .. }) => {
                Some(orders::Answer::CurrencyMismatch)
            }
            Decision::Refuse(Refusal::CreditLimitExceeded { .. }) => {
                self.met.over_the_limit += 1;
                Some(orders::Answer::CreditLimitExceeded)
            }
            Decision::Bar => {
                self.met.cancels_before_creates += 1;
                None
            }
            Decision::Ignore(ReservationState::Released) if told == Told::Created(number) => {
                self.met.creates_after_cancels += 1;
                None
            }
            Decision::Release(_) | Decision::Ignore(_) => None,
        };
        self.customers
            .waiting
            .extend(answer.map(|answer| (number, answer)));
        Ok(Done::ToCustomers(told))
    }

    fn reaches_orders(&mut self, (number, answer): (Number, orders::Answer)) -> Done {
        self.befalls(number, orders::Input::Answer(answer));
        Done::ToOrders(number)
    }

    /// What an event of the order says.
    fn ask(&self, number: Number) -> customers::Ask {
        let order = &self.placed[number];
        let currency = customers::Currency::new(order.total.currency().code()).unwrap();
        customers::Ask {
            order_id: customers::OrderId(order.order_id.0),
            customer_id: customers::CustomerId(order.customer_id.0),
            amount: customers::Amount::new(order.total.minor_units(), currency).unwrap(),
        }
    }

    /// I7, and that what an account says is the sum of its active reservations.
    pub(crate) fn credit_is_within_limits(&self) -> Result<(), TestCaseError> {
        for (id, account) in &self.books.accounts {
            let of_it = self.active().filter(|(_, found)| found.customer_id == *id);
            let sum: i64 = of_it.map(|(_, found)| found.amount.minor_units()).sum();
            prop_assert_eq!(account.reserved(), sum);
            prop_assert!(sum <= account.limit().minor_units(), "I7: {account:?}");
        }
        Ok(())
    }

    /// I8 and I9, when no event is on its way.
    pub(crate) fn is_settled(&self) -> Result<(), TestCaseError> {
        for order in &self.placed {
            let id = customers::OrderId(order.order_id.0);
            let found = self.active().find(|(order_id, _)| *order_id == id);
            let held = found.map(|(_, one)| (one.customer_id.0, one.amount.minor_units()));
            let owed = (order.customer_id.0, order.total.minor_units());
            match order.state {
                orders::State::Pending => prop_assert!(false, "I8: {order:?}"),
                orders::State::Approved => prop_assert_eq!(held, Some(owed), "I9: {:?}", order),
                orders::State::Cancelled(_) => prop_assert_eq!(held, None, "I9: {:?}", order),
            }
        }
        Ok(())
    }

    fn active(&self) -> impl Iterator<Item = (customers::OrderId, customers::Reservation)> {
        let all = self.books.reservations.iter();
        all.filter(|(_, found)| found.state == customers::ReservationState::Active)
            .map(|(order_id, found)| (*order_id, *found))
    }

    pub(crate) fn summary(&self) -> Summary {
        let states = self.placed.iter().map(|order| order.state).collect();
        let held = self.active();
        let held = held.map(|(id, found)| (id.0[0].into(), found.amount.minor_units()));
        let accounts = self.books.accounts.values();
        let accounts = accounts.map(|one| (one.limit().minor_units(), one.reserved()));
        (states, held.collect(), accounts.collect())
    }
}

impl Met {
    pub(crate) fn counts(&self) -> [(&'static str, usize); 7] {
        [
            ("cancels before creates", self.cancels_before_creates),
            ("creates after cancels", self.creates_after_cancels),
            ("reserved too late", self.reserved_too_late),
            ("approved, then cancelled", self.approved_then_cancelled),
            ("timed out", self.timed_out),
            ("over the limit", self.over_the_limit),
            ("limits refused", self.limits_refused),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.cancels_before_creates += other.cancels_before_creates;
        self.creates_after_cancels += other.creates_after_cancels;
        self.reserved_too_late += other.reserved_too_late;
        self.approved_then_cancelled += other.approved_then_cancelled;
        self.timed_out += other.timed_out;
        self.over_the_limit += other.over_the_limit;
        self.limits_refused += other.limits_refused;
    }
}

fn customer(number: usize) -> customers::CustomerId {
    customers::CustomerId([number as u8; 16])
}

/// What every customer begins with.
pub(crate) const LIMIT: i64 = 100;

fn account() -> customers::Account {
    customers::Account::open(euros(LIMIT))
}

fn euros(minor_units: i64) -> customers::CreditLimit {
    let currency = customers::Currency::new("EUR").unwrap();
    customers::CreditLimit::new(minor_units, currency).unwrap()
}
