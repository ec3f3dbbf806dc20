//! Images are pinned: by a digest, or by a version in full; and our own are of the version of this tree.

use super::binary;
use crate::check::deploy::facts::Facts;
use crate::manifests::object::{Overlay, containers, text};

pub(super) fn broken(overlay: &Overlay, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for object in &overlay.objects {
        let id = object.id();
        let spec = object.pods().and_then(|pods| pods.spec);
        let mut images: Vec<_> = spec
            .into_iter()
            .flat_map(containers)
            .map(|container| text(container.get("image")))
            .collect();
        images.extend((object.kind() == "Cluster").then(|| object.text("/spec/imageName")));
        let wrong = images.iter().filter_map(|image| unpinned(image, facts));
        found.extend(wrong.map(|what| format!("{id}: {what}")));
    }
    found
}

/// What is wrong with an image's name.
pub(super) fn unpinned(image: &str, facts: &Facts) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash is a registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    if binary(image, facts).is_some() && tag != Some(&facts.version) {
        return Some(format!(
            "the image {image:?} is not of version {}",
            facts.version
        ));
    }
    let version = |tag: &str| {
        let number = tag
            .trim_start_matches('v')
            .split('-')
            .next()
            .unwrap_or_default();
        let parts: Vec<_> = number.split('.').collect();
        // Of Postgres, two numbers are all there is.
        parts.len() >= 2 && parts.iter().all(|part| part.parse::<u32>().is_ok())
    };
    let pinned = match digest {
        Some(digest) => digest
            .strip_prefix("sha256:")
            .is_some_and(|hash| hash.len() == 64),
        None => tag.is_some_and(version),
    };
    (!pinned).then(|| format!("the image {image:?} is not pinned to a version or a digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_change_under_its_name_is_named() {
        let facts = Facts {
            version: "0.1.0".to_owned(),
            variables: [("cdc-relay".to_owned(), [].into())].into(),
            ..Facts::default()
        };
        let digest = format!("nats@sha256:{}", "a".repeat(64));
        for pinned in [
            "docker.io/library/nats:2.15.1",
            "localhost:5000/postgres:17.10-bookworm",
            "localhost/saga/cdc-relay:0.1.0",
            &digest,
        ] {
            assert_eq!(unpinned(pinned, &facts), None);
        }
        for loose in [
            "nats",
            "nats:latest",
            "nats:2",
            "localhost:5000/nats",
            "nats@sha256:12",
            "nats:alpine",
        ] {
            assert!(unpinned(loose, &facts).is_some(), "{loose}");
        }
        for other in ["saga/cdc-relay:0.1.1", "cdc-relay", "cdc-relay:latest"] {
            assert!(
                unpinned(other, &facts)
                    .unwrap()
                    .contains("of version 0.1.0"),
                "{other}"
            );
        }
        let yaml = "{kind: Pod, metadata: {name: a}, spec: {containers: [{image: nats}]}}";
        let overlay = Overlay::read("test", yaml).unwrap();
        assert_eq!(broken(&overlay, &facts).len(), 1);
    }
}
