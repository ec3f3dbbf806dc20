//! What of the facts before no longer holds, in words. What is only new breaks nothing.

use std::collections::BTreeSet;

use super::facts::Facts;

/// A sentence for each; of what is gone as a whole, its parts are not told one by one.
pub(super) fn find(before: &Facts, now: &Facts) -> Vec<String> {
    let mut broken = Vec::new();
    let mut gone = BTreeSet::new();
    for (key, value) in before.iter() {
        let current = now.get(key);
        if current == Some(value) {
            continue;
        }
        let mut words = key.splitn(3, ' ');
        let (kind, owner) = (words.next().unwrap_or(key), words.next().unwrap_or(key));
        // A file's messages, enums and services have it as their value.
        if gone.contains(owner) || gone.contains(value) {
            gone.insert(owner);
            continue;
        }
        broken.push(match current {
            Some(current) => format!("{key}: was `{value}`, is now `{current}`"),
            None => format!(
                "{key}: was `{value}`, is gone{}",
                hint(key, value, before, now)
            ),
        });
        if ["file", "service", "enum", "message"].contains(&kind) {
            gone.insert(owner);
        }
    }
    broken
}

/// Where it seems to have gone: what is new of the same owner with the same value.
fn hint(key: &str, value: &str, before: &Facts, now: &Facts) -> String {
    let Some((prefix, _)) = key.rsplit_once(' ') else {
        return String::new();
    };
    let place = |other: &str| other.rsplit_once(' ').map(|(owner, _)| owner.to_owned());
    let moved = now.iter().find(|(other, same)| {
        *same == value && before.get(other).is_none() && place(other).as_deref() == Some(prefix)
    });
    match (moved, key.split(' ').next()) {
        (Some((other, _)), Some("field" | "value" | "rpc")) => format!(" (now {other})"),
        (None, Some("field")) => {
            " (to reserve its number and name is not enough: stored events have it)".to_owned()
        }
        (None, Some("reserved")) => " (it may never be used again)".to_owned(),
        _ => String::new(),
    }
}
