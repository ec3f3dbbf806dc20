//! Short runs over both transports: what they report adds up, and is as described.

use harness::System;

use crate::{Ran, run, schema};

const SHORT: [&str; 10] = [
    "--rate",
    "80",
    "--warm-up",
    "1s",
    "--duration",
    "4s",
    "--customers",
    "20",
    "--seed",
    "7",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_grpc_and_over_nats_adds_up_and_is_reported_as_described() {
    let system = System::start().await.expect("the system starts");
    let mut offered = Vec::new();
    for via in ["grpc", "nats"] {
        let slos = [
            "--slo",
            "p99=5s",
            "--slo",
            "settled-p99=9s",
            "--slo",
            "errors=0",
        ];
        let ran = run(&system, via, &[&SHORT[..], &slos, &["--via", via]].concat()).await;
        assert_eq!(ran.status, Some(0), "{}", ran.said);
        adds_up(&ran);
        schema::assert_described(&ran.report);
        assert_one_file(&ran.page);
        offered.push(ran.count("/totals/offered"));
    }
    assert_eq!(offered[0], offered[1], "the same seed, the same load");

    // Nothing is answered within a microsecond.
    let missed = ["--slo", "errors=1%", "--slo", "p50=0.001ms"];
    let ran = run(&system, "missed", &[&SHORT[..], &missed].concat()).await;
    assert_eq!(ran.status, Some(3), "{}", ran.said);
    assert_eq!(ran.report["verdict"], "slo_missed");
    assert!(ran.said.contains("met: errors=1%"), "{}", ran.said);
    assert!(ran.said.contains("MISSED: p50=0.001ms"), "{}", ran.said);
    assert!(ran.page.contains("MISSED: p50=0.001ms"));

    // What finds no room is unsent, and the offered rate is what it was.
    let narrow = ["--in-flight", "1", "--request-timeout", "1ms"];
    let ran = run(&system, "narrow", &[&SHORT[..], &narrow].concat()).await;
    assert_eq!(ran.count("/totals/offered"), offered[0]);
    assert!(ran.count("/totals/unsent") + ran.count("/totals/failed") > 0);
    adds_up(&ran);
}

/// Each request that was due is accounted for, and each order.
fn adds_up(ran: &Ran) {
    let (mut offered, mut by_operation) = (0, 0);
    for operation in ["create", "get", "cancel", "watch"] {
        let of = |what: &str| ran.count(&format!("/operations/{operation}/{what}"));
        assert_eq!(
            of("offered"),
            of("ok") + of("failed") + of("unsent"),
            "{operation}"
        );
        offered += of("offered");
        by_operation += of("ok");
    }
    assert_eq!(offered, ran.count("/totals/offered"));
    assert_eq!(by_operation, ran.count("/totals/ok"));
    let rate = ran.number("/rates/offered");
    // 320 Poisson arrivals are expected in 4 s: four standard deviations are 72.
    assert!((rate - 80.0).abs() < 18.0, "{rate}");
    let of_orders = |what: &str| ran.count(&format!("/orders/{what}"));
    assert_eq!(
        of_orders("created"),
        of_orders("approved")
            + of_orders("cancelled")
            + of_orders("unsettled")
            + of_orders("untracked")
    );
    assert_eq!(ran.report["books"]["balanced"], true, "{}", ran.said);
    assert!(ran.count("/books/orders") >= of_orders("created"));
    let timeline = ran.report["timeline"].as_array().expect("a timeline");
    let drawn: f64 = timeline
        .iter()
        .filter(|point| point["warm_up"] == false)
        .filter_map(|point| point["offered"].as_f64())
        .sum();
    assert_eq!(drawn as u64, ran.count("/totals/offered"));
}

/// Nothing is fetched from anywhere, and the figures are in it.
fn assert_one_file(page: &str) {
    for reference in [
        "http://", "https://", "src=", "href=", "url(", "@import", "<script",
    ] {
        assert!(!page.contains(reference), "{reference} in the page");
    }
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.matches("<path").count() >= 8);
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(!page.contains("NaN"));
}
