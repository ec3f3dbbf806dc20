//! The benchmark runs, from the backlog to the judgement. What it measures here is of no account: few
//! rows, and binaries that were not built for speed.

// Whatever is missing here fails the test, and the message says where.
#![expect(clippy::unwrap_used, reason = "outside the test functions too")]

use std::process::Command;

use serde_json::Value;

const ROWS: u64 = 2000;

fn drains<'a>(page: &'a Value, contender: &str) -> Vec<&'a Value> {
    let all = page["drains"].as_array().unwrap().iter();
    all.filter(|drain| drain["contender"] == contender)
        .collect()
}

#[test]
fn every_contender_drains_the_same_backlog() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bench.json");
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["bench", "relay", "--no-build", "--quick"])
        .args([
            "--rows",
            &ROWS.to_string(),
            "--steady-seconds",
            "1",
            "--json",
        ])
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let page: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();

    // Two transaction sizes, and two ways to sync.
    assert_eq!(drains(&page, "relay").len(), 4, "{page}");
    assert_eq!(drains(&page, "nats_batches").len(), 4, "{page}");
    assert_eq!(drains(&page, "polling").len(), 2, "{page}");
    for drain in drains(&page, "relay") {
        assert_eq!(drain["median"]["events"], ROWS);
        assert!(drain["median"]["events_per_second"].as_f64().unwrap() > 0.0);
        assert!(drain["median"]["peak_resident_kib"].as_u64().unwrap() > 0);
    }
    let steady = page["steady"].as_array().unwrap();
    assert_eq!(steady.len(), 2, "{page}");
    for rate in steady {
        let p50 = rate["intended_to_acknowledged"]["p50"].as_u64().unwrap();
        assert!(p50 > 0, "{rate}");
        assert!(p50 <= rate["intended_to_acknowledged"]["p99"].as_u64().unwrap());
    }
    assert!(page["targets"].as_array().unwrap().len() > 10, "{page}");
}
