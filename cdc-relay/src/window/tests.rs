//! What a batch holds, and when there is one.

use super::*;
use futures_util::FutureExt as _;
use mailbox::envelope::COMMIT;

fn record(bytes: usize) -> Record {
    Record::of_size(bytes)
}

/// Adds what must fit without waiting.
fn add(window: &Window, rows: usize, end: Option<u64>) {
    for _ in 0..rows {
        window.push(record(10)).now_or_never().unwrap();
    }
    if let Some(end) = end {
        window.commit(PgLsn::from(end)).now_or_never().unwrap();
    }
}

/// Rows and end of the next batch, if there is one now.
fn take(window: &Window) -> Option<(usize, Option<u64>)> {
    let batch = window.take().now_or_never()?.unwrap();
    Some((batch.records.len(), batch.end.map(u64::from)))
}

#[test]
fn a_batch_holds_whole_transactions_and_no_row_of_an_unfinished_one() {
    let window = Window::default();
    add(&window, 3, Some(10));
    add(&window, 2, Some(20));
    add(&window, 4, None);
    assert_eq!(take(&window), Some((5, Some(20))));
    assert_eq!(take(&window), None);
    add(&window, 0, Some(30));
    assert_eq!(take(&window), Some((4, Some(30))));
}

#[test]
fn a_transaction_that_does_not_fit_waits_for_the_next_batch() {
    let window = Window::default();
    add(&window, BATCH_RECORDS_MAX - 1, Some(10));
    add(&window, 2, Some(20));
    assert_eq!(take(&window), Some((BATCH_RECORDS_MAX - 1, Some(10))));
    assert_eq!(take(&window), Some((2, Some(20))));
}

#[test]
fn only_a_transaction_larger_than_a_batch_is_cut() {
    let window = Window::default();
    add(&window, BATCH_RECORDS_MAX, None);
    assert_eq!(take(&window), None, "it may still end here");
    add(&window, 1, None);
    assert_eq!(take(&window), Some((BATCH_RECORDS_MAX, None)));
    assert_eq!(take(&window), None, "the last row may be the transaction's");
    add(&window, 0, Some(10));
    assert_eq!(take(&window), Some((1, Some(10))));
}

#[test]
fn a_transaction_without_a_row_of_ours_still_moves_the_ledger() {
    let window = Window::default();
    add(&window, 0, Some(10));
    assert_eq!(take(&window), Some((0, Some(10))));
}

#[test]
fn a_full_window_holds_the_reader_and_gives_all_but_its_last_row() {
    let window = Window::default();
    window.push(record(BYTES_MAX)).now_or_never().unwrap();
    window.push(record(BYTES_MAX)).now_or_never().unwrap();
    assert!(window.push(record(1)).now_or_never().is_none());
    assert_eq!(take(&window), Some((1, None)));
    assert_eq!(
        take(&window),
        None,
        "nothing has come after the last row yet"
    );
    window.push(record(1)).now_or_never().unwrap();
    assert_eq!(take(&window), Some((1, None)));
    add(&window, 0, Some(10));
    assert_eq!(take(&window), Some((1, Some(10))));
}

#[test]
fn the_last_event_of_a_transaction_tells_how_many_it_has() {
    let window = Window::default();
    add(&window, 3, Some(10));
    add(&window, 1, None);
    let batch = window.take().now_or_never().unwrap().unwrap();
    let marks: Vec<_> = batch
        .records
        .iter()
        .map(|r| r.headers.get(COMMIT))
        .collect();
    // Each record of these tests is the fourth of its transaction.
    assert!(matches!(marks[..], [None, None, Some("4")]));
}

#[test]
fn a_batch_of_single_events_is_told_from_one_that_must_appear_together() {
    let window = Window::default();
    add(&window, 1, Some(10));
    add(&window, 0, Some(20));
    add(&window, 1, Some(30));
    assert!(window.take().now_or_never().unwrap().unwrap().is_of_singles);
    add(&window, 1, Some(40));
    add(&window, 2, Some(50));
    assert!(!window.take().now_or_never().unwrap().unwrap().is_of_singles);
}

#[test]
fn a_batch_is_taken_ahead_only_once_it_is_full() {
    let window = Window::default();
    add(&window, BATCH_RECORDS_MAX - 1, Some(10));
    add(&window, 1, Some(20));
    assert!(window.take_full().now_or_never().is_none());
    add(&window, 1, Some(30));
    let batch = window.take_full().now_or_never().unwrap();
    assert_eq!(batch.records.len(), BATCH_RECORDS_MAX);
    assert_eq!(take(&window), Some((1, Some(30))));
}

#[test]
fn a_closed_window_gives_what_is_whole_and_ends() {
    let window = Window::default();
    add(&window, 1, Some(10));
    add(&window, 1, None);
    window.close();
    assert_eq!(take(&window), Some((1, Some(10))));
    assert!(window.take().now_or_never().unwrap().is_none());
}
