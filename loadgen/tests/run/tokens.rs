//! Where the services ask who calls, the load shows an operator's token.

use harness::System;

use crate::start;

const SHORT: [&str; 8] = [
    "--rate",
    "20",
    "--duration",
    "1s",
    "--warm-up",
    "0s",
    "--customers",
    "5",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_the_load_in() {
    let system = System::builder().tokens().start().await.expect("it starts");
    let issuer = system.issuer().expect("it asks for tokens");
    let file = system.directory().join("token");
    std::fs::write(&file, issuer.operator()).expect("it is written");
    let file = file.display().to_string();
    for via in ["grpc", "nats"] {
        let options = [&SHORT[..], &["--via", via, "--token-file", &file]].concat();
        let ran = start(&system, via, &options).ended().await;
        assert_eq!(ran.status, Some(0), "{}", ran.said);
        let options = [&SHORT[..], &["--via", via, "--settle-timeout", "2s"]].concat();
        let output = start(&system, "refused", &options).child.wait_with_output();
        let output = output.await.expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("token"), "{said}");
    }
}
