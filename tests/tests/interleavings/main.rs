//! Whatever happens to the events on their way, the books end as if each had been applied once and in
//! order (I6), no credit is reserved past its limit (I7), every order is settled (I8), and approved orders
//! are those with a reservation (I9).
//!
//! The domains of both services alone, without servers: some hundred histories of orders, cancels,
//! time-outs and limits, whose events arrive late, again and in any order. The inbox is left out, so that
//! the domains have to do without it. A history that fails is made as short as it still fails.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod history;
mod model;
mod world;

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use history::{History, Step};
use model::Model;
use world::{Met, World};

const HISTORIES: u32 = 800;
/// Each situation has to come up so often, or the generator has lost it.
const MET_MIN: usize = 25;

/// Plays a history on the services' domains and on the model, and compares them after every step.
fn play(history: &History) -> Result<Met, TestCaseError> {
    let (mut world, mut model) = (World::default(), Model::default());
    for step in &history.steps {
        one(&mut world, &mut model, step)?;
    }
    // At last everything arrives, in an order of its own.
    for pick in history.last_picks.iter().cycle() {
        let (orders, customers) = (world.orders.waiting.len(), world.customers.waiting.len());
        match pick.index(orders + customers + 1) {
            _ if orders + customers == 0 => break,
            _ if orders > 0 && (customers == 0 || pick.index(2) == 0) => {
                one(&mut world, &mut model, &Step::ToCustomers(*pick))?;
            }
            _ => one(&mut world, &mut model, &Step::ToOrders(*pick))?,
        }
    }
    world.is_settled()?;
    Ok(world.met)
}

fn one(world: &mut World, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    if let Some(done) = world.step(step)? {
        model.apply(&done);
    }
    world.credit_is_within_limits()?;
    prop_assert_eq!(world.summary(), model.summary());
    Ok(())
}

#[test]
fn any_interleaving_repeat_delay_and_reordering_ends_in_the_same_books() {
    let config = Config {
        cases: HISTORIES,
        failure_persistence: None,
        ..Config::default()
    };
    let met = RefCell::new(Met::default());
    let outcome = TestRunner::new(config).run(&history::histories(), |history| {
        let found = play(&history)?;
        met.borrow_mut().add(&found);
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
    let met = met.into_inner();
    println!("{met:?}");
    for (situation, times) in met.counts() {
        assert!(times >= MET_MIN, "{situation}: only {times} times");
    }
}
