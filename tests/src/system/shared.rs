//! One system for the claims of a test program that only call it and change nothing about it.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::LazyLock;

use futures_util::FutureExt;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::{Builder, System};

/// Lives as long as the test program: the systems' processes belong to it. The guards end them when the
/// program ends.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("a runtime can be started"));

/// A system that is started when the first claim is made on it.
#[derive(Debug)]
pub struct Shared {
    builder: fn() -> Builder,
    system: OnceCell<System>,
}

impl Shared {
    /// One that is built so.
    #[must_use]
    pub const fn new(builder: fn() -> Builder) -> Self {
        let system = OnceCell::const_new();
        Self { builder, system }
    }

    /// Runs a claim on it, beside others. If it fails, shows the ends of the logs.
    ///
    /// # Panics
    /// As the claim does, and when the system does not start.
    #[expect(
        clippy::print_stderr,
        reason = "the test harness shows it with a failure"
    )]
    pub fn claim(&self, claim: impl AsyncFnOnce(&System)) {
        RUNTIME.block_on(async {
            let start = async || (self.builder)().start().await.expect("the system starts");
            let system = self.system.get_or_init(start).await;
            if let Err(panic) = AssertUnwindSafe(claim(system)).catch_unwind().await {
                for process in system.processes() {
                    eprintln!("{}\n", process.log().tail());
                }
                resume_unwind(panic);
            }
        });
    }
}
