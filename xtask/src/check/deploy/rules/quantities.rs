//! Quantities are written as Kubernetes reads them, requests do not exceed limits, and every container says
//! what it needs. To a schema a quantity is any text.

use serde_json::Value;

use crate::manifests::object::{Overlay, containers, text};

const SUFFIXES: [(&str, f64); 14] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.0),
];
/// Members that hold quantities, whatever object they stand in.
const SIZES: [&str; 3] = ["sizeLimit", "size", "storage"];

pub(super) fn broken(overlay: &Overlay) -> Vec<String> {
    let mut found = Vec::new();
    for object in &overlay.objects {
        let id = object.id();
        let mut wrong = Vec::new();
        walk(&object.value, &mut wrong);
        for container in object
            .pods()
            .and_then(|pods| pods.spec)
            .into_iter()
            .flat_map(containers)
        {
            for needed in ["requests/cpu", "requests/memory", "limits/memory"] {
                if container.pointer(&format!("/resources/{needed}")).is_none() {
                    let name = text(container.get("name"));
                    wrong.push(format!("the container {name} does not say its {needed}"));
                }
            }
        }
        found.extend(wrong.into_iter().map(|what| format!("{id}: {what}")));
    }
    found
}

fn walk(value: &Value, found: &mut Vec<String>) {
    let Some(members) = value.as_object() else {
        let items = value.as_array().into_iter().flatten();
        return items.for_each(|item| walk(item, found));
    };
    for (name, member) in members {
        if name == "resources" {
            resources(member, found);
        } else if SIZES.contains(&name.as_str()) && !member.is_object() {
            read(name, member, found);
        }
        walk(member, found);
    }
}

fn resources(resources: &Value, found: &mut Vec<String>) {
    let of = |part: &str| resources.get(part).and_then(Value::as_object);
    for (name, limit) in of("limits").into_iter().flatten() {
        read(name, limit, found);
    }
    for (name, request) in of("requests").into_iter().flatten() {
        let request = read(name, request, found);
        let limit = of("limits")
            .and_then(|limits| limits.get(name))
            .and_then(quantity);
        if request > limit && limit.is_some() {
            found.push(format!("requests more {name} than its limit"));
        }
    }
}

fn read(name: &str, value: &Value, found: &mut Vec<String>) -> Option<f64> {
    let read = quantity(value);
    if read.is_none() {
        found.push(format!("{name} is {value}, which is no quantity"));
    }
    read
}

fn quantity(value: &Value) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    let given = value.as_str()?;
    SUFFIXES.iter().find_map(|(suffix, factor)| {
        let number = given.strip_suffix(suffix)?;
        let digits = number
            .chars()
            .all(|letter| letter.is_ascii_digit() || letter == '.');
        (digits && !number.is_empty())
            .then(|| number.parse::<f64>().ok())?
            .map(|number| number * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
kind: Deployment
metadata: {name: a}
spec: {template: {spec: {volumes: [{emptyDir: {sizeLimit: 1Gi}}], containers: [{name: a, resources: {
  requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 256Mi}}}]}}}
";

    fn found(yaml: &str) -> Vec<String> {
        broken(&Overlay::read("test", yaml).unwrap())
    }

    #[test]
    fn quantities_are_read() {
        for (given, is) in [
            ("100m", 0.1),
            ("1", 1.0),
            ("1.5Gi", 1.5 * 1_073_741_824.0),
            ("2G", 2e9),
        ] {
            assert_eq!(quantity(&Value::from(given)), Some(is));
        }
        for given in ["", "Mi", "64MB", "64 Mi", "1e", "-1", "64mi"] {
            assert_eq!(quantity(&Value::from(given)), None, "{given}");
        }
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_quantity_or_too_much_is_named() {
        for (from, to, said) in [
            ("64Mi", "64MB", "memory is \"64MB\""),
            ("1Gi", "1GB", "sizeLimit is \"1GB\""),
            ("64Mi", "1Gi", "requests more memory"),
            ("memory: 256Mi", "cpu: 1", "does not say its limits/memory"),
        ] {
            let found = found(&FINE.replacen(from, to, 1));
            assert!(
                found.iter().any(|one| one.contains(said)),
                "{said}: {found:?}"
            );
        }
    }
}
