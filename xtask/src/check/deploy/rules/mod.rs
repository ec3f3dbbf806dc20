//! What schemas do not see. Each rule is a file with a test that shows it failing.

mod alerts;
mod compose;
mod drains;
mod environment;
mod images;
mod nats;
mod pods;
mod ports;
mod quantities;
mod references;
mod selectors;

use anyhow::Result;

use super::facts::Facts;
use crate::manifests::object::Overlay;

/// What of an overlay breaks a rule.
pub(super) fn broken(overlay: &Overlay, facts: &Facts) -> Vec<String> {
    [
        selectors::broken(overlay),
        ports::broken(overlay, facts),
        environment::broken(overlay, facts),
        references::broken(overlay, facts),
        quantities::broken(overlay),
        images::broken(overlay, facts),
        pods::broken(overlay),
        drains::broken(overlay, facts),
        alerts::broken(overlay, facts),
    ]
    .concat()
}

/// What of the files beside the overlays does.
pub(super) fn of_the_tree(facts: &Facts) -> Result<Vec<String>> {
    Ok([compose::of_the_tree(facts)?, nats::of_the_tree()?].concat())
}

/// The binary of this tree that a container runs, if it runs one: by the last part of its image's name.
fn binary<'a>(image: &'a str, facts: &Facts) -> Option<&'a str> {
    let name = image.rsplit('/').next()?.split([':', '@']).next()?;
    facts.variables.contains_key(name).then_some(name)
}
