//! The end of a process: signals, failures, deadlines.

use std::{future::pending, sync::mpsc, thread, time::Duration};

use anyhow::{Result, anyhow};
use chassis::{
    config::Shutdown,
    tasks::{self, Tasks},
};
use tokio::{runtime::Builder, task::spawn_blocking, time::timeout};

use crate::child::Child;

const SOON: Duration = Duration::from_secs(10);

fn tasks(deadline_seconds: u64) -> Tasks {
    Tasks::new(&Shutdown { deadline_seconds })
}

#[tokio::test]
async fn sigterm_and_sigint_let_tasks_finish_and_end_well() -> Result<()> {
    for signal in ["TERM", "INT"] {
        let mut child = Child::start("drains", &[])?;
        child.line("\"up\"").await?;
        child.signal(signal).await?;
        child.line("drained").await?;
        assert_eq!(child.ended().await?.code(), Some(0), "{signal}");
    }
    Ok(())
}

#[tokio::test]
async fn past_the_deadline_the_end_is_an_error_that_names_the_unfinished() -> Result<()> {
    let mut child = Child::start("overdue", &[])?;
    child.line("\"up\"").await?;
    child.signal("TERM").await?;
    let error = child.line("error: ").await?;
    assert_eq!(error, "error: not finished within 1 s, cut off: stuck");
    assert_eq!(child.ended().await?.code(), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_at_once() -> Result<()> {
    let mut child = Child::start("stuck", &[])?;
    child.line("\"up\"").await?;
    child.signal("TERM").await?;
    child.line("ending").await?;
    child.signal("INT").await?;
    let line = child.line("a second signal").await?;
    assert!(
        line.contains("\"unfinished\":\"") && line.contains("stuck"),
        "{line}"
    );
    assert_eq!(child.ended().await?.code(), Some(1));
    Ok(())
}

#[tokio::test]
async fn a_signal_before_everything_runs_ends_the_process() -> Result<()> {
    let mut child = Child::start("starting", &[])?;
    child.line("\"up\"").await?;
    child.signal("TERM").await?;
    assert_eq!(child.ended().await?.code(), Some(128 + 15));
    Ok(())
}

#[tokio::test]
async fn a_failing_task_ends_the_others_and_is_named() -> Result<()> {
    let mut tasks = tasks(600);
    let token = tasks.token();
    tasks.spawn("healthy", async move {
        token.cancelled().await;
        Ok(())
    });
    tasks.spawn("failing", async { Err(anyhow!("the reason")) });
    let error = timeout(SOON, tasks.run()).await?.unwrap_err();
    assert_eq!(format!("{error:#}"), "task failing: the reason");
    Ok(())
}

#[tokio::test]
async fn a_panicking_task_is_a_failure_like_any_other() -> Result<()> {
    let mut tasks = tasks(600);
    tasks.spawn("panicking", async { panic!("on purpose") });
    let error = timeout(SOON, tasks.run()).await?.unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.starts_with("task panicking: ") && text.contains("on purpose"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_failure_is_told_even_when_others_miss_the_deadline() -> Result<()> {
    let mut tasks = tasks(1);
    tasks.spawn("stuck", pending());
    tasks.spawn("failing", async { Err(anyhow!("the reason")) });
    let error = timeout(SOON, tasks.run()).await?.unwrap_err();
    let text = format!("{error:#}");
    assert_eq!(
        text,
        "not finished within 1 s, cut off: stuck: task failing: the reason"
    );
    Ok(())
}

#[tokio::test]
async fn a_task_that_is_done_ends_nothing() -> Result<()> {
    let mut tasks = tasks(600);
    let token = tasks.token();
    tasks.spawn("done", async { Ok(()) });
    tasks.spawn("last", async move {
        let cancelled = timeout(Duration::from_millis(300), token.cancelled()).await;
        assert!(cancelled.is_err(), "a finished task cancelled the others");
        Ok(())
    });
    timeout(SOON, tasks.run()).await?
}

#[test]
fn a_thread_that_is_held_up_does_not_hold_up_the_end() {
    for runtime in [Builder::new_current_thread, Builder::new_multi_thread] {
        let (release, released) = mpsc::channel::<()>();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            let (begin, begun) = tokio::sync::oneshot::channel();
            let main = async {
                // As a lookup of a name that nobody answers.
                spawn_blocking(move || begin.send(()).map(|()| released.recv()));
                begun.await
            };
            let outcome = tasks::block_on(runtime(), main);
            end.send(outcome.is_ok_and(|begun| begun.is_ok()))
        });
        assert_eq!(ended.recv_timeout(SOON), Ok(true));
        drop(release);
    }
}
