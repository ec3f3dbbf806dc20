//! The roles of a service's database, made by the statements that deployments make them with.

use std::fmt;

use anyhow::{Context, Result};

use crate::postgres::Postgres;
use crate::system::Side;

/// As the image of Postgres runs them by psql.
const ROLES: &str = include_str!("../../deploy/overlays/kind/postgres/server/roles.sql");

/// Who uses the database of a [`Side`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Owns the tables, migrates and grants.
    Owner,
    /// The service as it runs.
    Service,
    /// The relay.
    Relay,
    /// Who reads the books.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Service, Self::Relay, Self::Auditor];

    /// Its name, of the side's database.
    #[must_use]
    pub fn of(self, side: Side) -> String {
        match self {
            Self::Owner => side.database().to_owned(),
            _ => format!("{}_{self}", side.database()),
        }
    }
}

/// The variable of `roles.sql`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Service => "service",
            Self::Relay => "relay",
            Self::Auditor => "auditor",
        })
    }
}

/// Makes the database of `side` and its roles, with the cluster's password.
pub(crate) async fn create_database(postgres: &Postgres, side: Side) -> Result<()> {
    postgres.create_database(side.database()).await?;
    let commands = |line: &&str| !line.starts_with('\\');
    let mut statements: Vec<&str> = ROLES.lines().filter(commands).collect();
    statements.push("");
    let mut script = statements
        .join("\n")
        .replace(":\"DBNAME\"", &format!("\"{}\"", side.database()));
    for role in Role::ALL {
        script = script
            .replace(&format!(":\"{role}\""), &format!("\"{}\"", role.of(side)))
            .replace(
                &format!(":'{role}_password'"),
                &format!("'{}'", postgres.password()),
            );
    }
    let superuser = postgres.connect(side.database()).await?;
    superuser
        .batch_execute(&script)
        .await
        .context("cannot make the roles of roles.sql")
}
