//! Statements that Postgres parses and plans once a connection, and not each time: half of what small
//! transactions cost it otherwise, above all inserts into partitioned tables.
//!
//! Danger: a pooler between the service and Postgres has to keep prepared statements apart by session, as
//! PgBouncer does from 1.21 on (`max_prepared_statements`).

use deadpool_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row, Statement};

/// A parameter, with the type that it has in SQL.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Runs a statement of which there is a constant text; returns how many rows it changed.
///
/// # Errors
/// Postgres refused it, or the connection is lost.
pub async fn execute(
    tx: &Transaction<'_>,
    sql: &'static str,
    parameters: &[Parameter<'_>],
) -> Result<u64, Error> {
    let statement = statement(tx, sql, parameters).await?;
    let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
    tx.execute(&statement, &values).await
}

/// Runs a query of which there is a constant text.
///
/// # Errors
/// As [`execute`].
pub async fn query(
    tx: &Transaction<'_>,
    sql: &'static str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, Error> {
    let statement = statement(tx, sql, parameters).await?;
    let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
    tx.query(&statement, &values).await
}

async fn statement(
    tx: &Transaction<'_>,
    sql: &'static str,
    parameters: &[Parameter<'_>],
) -> Result<Statement, Error> {
    let types: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
    tx.prepare_typed_cached(sql, &types).await
}
