//! Which subjects a durable consumer reads, when versions of its service disagree about it.
//!
//! Danger: what JetStream passes over while the filters are narrow, it never delivers (I10). So they
//! only ever become wider here; making them narrower is left to an operator.

use async_nats::jetstream::consumer::Config;

/// What a consumer without filters reads.
pub(super) const EVERYTHING: &str = ">";

/// The filters of a consumer that is there; [`EVERYTHING`] if it has none.
pub(super) fn of(present: &Config) -> Vec<String> {
    let one = Some(&present.filter_subject).filter(|filter| !filter.is_empty());
    or_everything(present.filter_subjects.iter().chain(one).cloned().collect())
}

/// `filters`, with the absence of any spelled out.
pub(super) fn or_everything(filters: Vec<String>) -> Vec<String> {
    if filters.is_empty() {
        return vec![EVERYTHING.to_owned()];
    }
    filters
}

/// All that `present` or `wanted` reads. JetStream refuses filters that overlap, so those that another
/// one covers are left out.
pub(super) fn union(present: &[String], wanted: &[String]) -> Vec<String> {
    let mut union: Vec<String> = Vec::new();
    for filter in present.iter().chain(wanted) {
        if !union.iter().any(|wider| covers(wider, filter)) {
            union.retain(|narrower| !covers(filter, narrower));
            union.push(filter.clone());
        }
    }
    union
}

/// Those of `present` that read more than `wanted` does.
pub(super) fn extra(present: &[String], wanted: &[String]) -> Vec<String> {
    let covered = |filter: &String| wanted.iter().any(|wider| covers(wider, filter));
    present.iter().filter(|f| !covered(f)).cloned().collect()
}

/// Whether `wider` reads every subject that `narrower` reads.
fn covers(wider: &str, narrower: &str) -> bool {
    let mut narrower = narrower.split('.');
    for token in wider.split('.') {
        match (token, narrower.next()) {
            (">", Some(_)) => return true,
            ("*", Some(other)) if other != ">" => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    narrower.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_it_reads_all_of() {
        for (wider, narrower) in [
            ("a.b", "a.b"),
            (">", "a"),
            (">", ">"),
            ("a.>", "a.b.c"),
            ("a.>", "a.*"),
            ("a.>", "a.>"),
            ("a.*", "a.b"),
            ("*.b", "a.b"),
            ("*.>", "a.>"),
        ] {
            assert!(covers(wider, narrower), "{wider} {narrower}");
        }
        for (wider, narrower) in [
            ("a.b", "a.*"),
            ("a.>", "a"),
            ("a.*", "a.>"),
            ("*", ">"),
            ("a.*", "a.b.c"),
            ("a.b", "a"),
            ("a", "a.b"),
            ("a.*", "*.b"),
        ] {
            assert!(!covers(wider, narrower), "{wider} {narrower}");
        }
    }

    #[test]
    fn a_union_reads_what_either_reads_and_does_not_overlap() {
        let list = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        for (present, wanted, expected) in [
            ("a b", "b", "a b"),
            ("a", "b a", "a b"),
            ("a.b a.c d", "a.>", "d a.>"),
            ("a.>", "a.b c", "a.> c"),
            ("a", ">", ">"),
            (">", "a b", ">"),
        ] {
            assert_eq!(union(&list(present), &list(wanted)), list(expected));
        }
        assert_eq!(extra(&list("a b.c d"), &list("b.> a")), list("d"));
    }
}
