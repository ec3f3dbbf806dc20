//! Alerts ask for metrics that the sources make. One that asks for another never fires.

use crate::check::deploy::facts::Facts;
use crate::manifests::object::{Overlay, list, text};

/// How the names of our metrics begin; functions and labels do not.
const OURS: [&str; 9] = [
    "auth_",
    "cdc_relay_",
    "mailbox_",
    "rpc_",
    "orders_",
    "order_",
    "customers_",
    "credit_",
    "tls_",
];

pub(super) fn broken(overlay: &Overlay, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for object in overlay.of_kind("PrometheusRule") {
        let groups = list(&object.value["spec"], "groups");
        for rule in groups.flat_map(|group| list(group, "rules")) {
            let (name, asked) = (text(rule.get("alert")), text(rule.get("expr")));
            let words = metrics(asked);
            if words.is_empty() {
                found.push(format!(
                    "{}: {name} asks for no metric of ours",
                    object.id()
                ));
            }
            for word in words
                .into_iter()
                .filter(|word| !facts.quoted.contains(*word))
            {
                found.push(format!(
                    "{}: {name} asks for {word}, which nobody makes",
                    object.id()
                ));
            }
        }
    }
    found
}

fn metrics(asked: &str) -> Vec<&str> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = asked.split(|letter| !word(letter));
    words
        .filter(|word| OURS.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_nobody_makes_is_named() {
        let facts = Facts {
            quoted: ["cdc_relay_streaming".to_owned()].into(),
            ..Facts::default()
        };
        let found = |asked: &str| {
            let yaml = format!(
                "{{kind: PrometheusRule, metadata: {{name: a}}, spec: {{groups: [{{rules: [{{alert: B, expr: '{asked}'}}]}}]}}}}"
            );
            broken(&Overlay::read("test", &yaml).unwrap(), &facts)
        };
        assert_eq!(
            found("sum by (a) (cdc_relay_streaming{b=\"c\"}) < 1"),
            Vec::<String>::new()
        );
        assert!(
            found("cdc_relay_streeming < 1")[0].contains("cdc_relay_streeming, which nobody makes")
        );
        assert!(found("up < 1")[0].contains("no metric of ours"));
    }
}
