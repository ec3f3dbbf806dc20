//! What can happen, and in what proportion.

use proptest::prelude::*;
use proptest::sample::Index;

/// Few, so that orders meet at their limits.
pub(crate) const CUSTOMERS: usize = 3;
const STEPS_MAX: usize = 120;

/// One thing that happens. An index picks among what is there; where there is nothing, nothing happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Of one of the customers, or of nobody; in their currency, or in another one.
    Create {
        customer: usize,
        amount: i64,
        foreign: bool,
    },
    Cancel(Index),
    TimeOut(Index),
    SetLimit {
        customer: usize,
        limit: i64,
    },
    /// Any event that waits, not the oldest: events overtake each other.
    ToCustomers(Index),
    ToOrders(Index),
    /// Any event that arrived before.
    AgainToCustomers(Index),
    AgainToOrders(Index),
}

#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) steps: Vec<Step>,
    /// In which order the rest arrives.
    pub(crate) last_picks: Vec<Index>,
}

pub(crate) fn histories() -> impl Strategy<Value = History> {
    let index = any::<Index>;
    let create = (0..=CUSTOMERS, 1..60_i64, prop::bool::weighted(0.1)).prop_map(
        |(customer, amount, foreign)| Step::Create {
            customer,
            amount,
            foreign,
        },
    );
    let set_limit =
        (0..CUSTOMERS, 0..200_i64).prop_map(|(customer, limit)| Step::SetLimit { customer, limit });
    let step = prop_oneof![
        6 => create,
        4 => index().prop_map(Step::Cancel),
        2 => index().prop_map(Step::TimeOut),
        1 => set_limit,
        8 => index().prop_map(Step::ToCustomers),
        6 => index().prop_map(Step::ToOrders),
        2 => index().prop_map(Step::AgainToCustomers),
        2 => index().prop_map(Step::AgainToOrders),
    ];
    let steps = prop::collection::vec(step, 1..STEPS_MAX);
    let last_picks = prop::collection::vec(index(), 1..20);
    (steps, last_picks).prop_map(|(steps, last_picks)| History { steps, last_picks })
}
