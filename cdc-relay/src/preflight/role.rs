//! What the relay's role may do.

use tokio_postgres::Client;

use super::{Report, failed};
use crate::{error::Result, wal::quote};

const RIGHTS: &str = "\
    SELECT current_user::text, r.rolsuper OR r.rolreplication, current_database()::text, \
           has_database_privilege(current_database(), 'CREATE'), \
           has_database_privilege(current_database(), 'TEMP') \
    FROM pg_roles r WHERE r.rolname = current_user";

/// What the later looks need to know.
#[derive(Debug)]
pub(super) struct Rights {
    pub(super) user: String,
    /// May create objects in the database, a publication among them.
    pub(super) creates: bool,
}

pub(super) async fn look(sql: &Client, report: &mut Report) -> Result<Rights> {
    let row = sql.query_one(RIGHTS, &[]).await;
    let row = row.map_err(|e| failed(&e))?;
    let flag = |at: usize| row.try_get::<_, bool>(at).map_err(|e| failed(&e));
    let user: String = row.try_get(0).map_err(|e| failed(&e))?;
    let database: String = row.try_get(2).map_err(|e| failed(&e))?;
    let (role, quoted) = (quote(&user), quote(&database));
    if flag(1)? {
        report.ok("REPLICATION", format!("{user} has it"));
    } else {
        let mend = format!("ALTER ROLE {role} REPLICATION");
        report.wrong("REPLICATION", format!("{user} lacks it"), mend);
    }
    if flag(4)? {
        report.ok("TEMP", format!("{user} has it on {database}"));
    } else {
        report.wrong(
            "TEMP",
            format!("{user} lacks it on {database}, and the first copy compares table and stream with it"),
            format!("GRANT TEMPORARY ON DATABASE {quoted} TO {role}"),
        );
    }
    Ok(Rights {
        user,
        creates: flag(3)?,
    })
}
