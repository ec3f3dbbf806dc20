//! Reads single values out of Prometheus' text format.

/// The sum of the series of that name, or of those with all the labels of `name{label="value",…}`.
/// None when there is no such series.
pub(crate) fn value(page: &str, series: &str) -> Option<f64> {
    let (name, wanted) = split(series);
    let mut sum = None;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, number)) = line.rsplit_once(' ') else {
            continue;
        };
        let (found, labels) = split(series);
        let fits = wanted.iter().all(|label| labels.contains(label));
        if let (true, true, Ok(number)) = (found == name, fits, number.parse::<f64>()) {
            *sum.get_or_insert(0.0) += number;
        }
    }
    sum
}

/// A name and its labels, each as `label="value"`. Values with commas are not needed here.
fn split(series: &str) -> (&str, Vec<&str>) {
    match series.split_once('{') {
        Some((name, labels)) => (
            name,
            labels
                .trim_end_matches('}')
                .split(',')
                .map(str::trim)
                .collect(),
        ),
        None => (series, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::value;

    const PAGE: &str = "# TYPE a counter\na{k=\"x\",m=\"1\"} 2\na{k=\"y\"} 3\nab 7\n";

    #[test]
    fn sums_what_the_labels_leave() {
        assert_eq!(value(PAGE, "a"), Some(5.0));
        assert_eq!(value(PAGE, "a{k=\"x\"}"), Some(2.0));
        assert_eq!(value(PAGE, "a{k=\"z\"}"), None);
        assert_eq!(value(PAGE, "b"), None);
    }
}
