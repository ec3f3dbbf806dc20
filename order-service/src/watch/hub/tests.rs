use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn hub() -> Hub {
    Hub::new(10, CancellationToken::new())
}

fn id(byte: u8) -> OrderId {
    OrderId([byte; 16])
}

#[tokio::test]
async fn who_has_just_come_has_the_order_looked_at_once_more() {
    let hub = hub();
    let _watcher = hub.watch(id(1)).unwrap();
    assert_eq!(hub.take_due(9), []);
    timeout(SOON, hub.due()).await.unwrap();
    assert_eq!(hub.take_due(9), [id(1)]);
    // Once.
    hub.seen(&[id(1)], &[], &[]);
    assert!(hub.state().looks.is_empty());
}

#[tokio::test]
async fn what_nobody_watches_is_not_held() {
    let hub = hub();
    hub.signal(id(1));
    let watcher = hub.watch(id(2)).unwrap();
    hub.signal(id(2));
    hub.signal(id(2));
    assert_eq!(hub.state().looks.len(), 1);
    drop(watcher);
    let state = hub.state();
    assert!(state.looks.is_empty() && state.watched.is_empty());
}

#[tokio::test]
async fn a_signal_is_worth_so_many_looks_and_no_more() {
    let hub = hub();
    let _watcher = hub.watch(id(1)).unwrap();
    hub.signal(id(1));
    let begun = Instant::now();
    for _ in 0..=LOOKS_MAX {
        timeout(SOON, hub.due()).await.unwrap();
        assert_eq!(hub.take_due(9), [id(1)]);
        hub.seen(&[id(1)], &[], &[]);
    }
    assert!(hub.state().looks.is_empty());
    // They come ever more slowly.
    assert!(begun.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn no_more_are_taken_at_a_time_than_asked_for() {
    let hub = hub();
    let watchers: Vec<_> = (0..5).map(|byte| hub.watch(id(byte)).unwrap()).collect();
    hub.look_at_all();
    assert_eq!(hub.take_due(3).len(), 3);
    assert_eq!(hub.take_due(3).len(), 2);
    drop(watchers);
}
