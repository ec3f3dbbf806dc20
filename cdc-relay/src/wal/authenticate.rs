//! Start-up and authentication: trust, clear text, MD5 and SCRAM-SHA-256.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::{
        backend::{AuthenticationSaslBody, Message},
        frontend,
    },
};
use tokio::io::AsyncWriteExt as _;
use tokio_postgres::Config;

use super::connection::{Wire, server_error};
use crate::error::{Error, Result};

const DURING: &str = "connect for replication";

/// Sends the start-up message and answers what the server asks, until it is ready for commands.
pub(super) async fn authenticate(
    wire: &mut Wire,
    config: &Config,
    parameters: &[(&str, &str)],
) -> Result<()> {
    let user = config.get_user().ok_or_else(|| {
        Error::definite("DATABASE_URL names no user: postgres://user@host/database")
    })?;
    let database = config.get_dbname().unwrap_or(user);
    let own = [
        ("user", user),
        ("database", database),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        // Dates and numbers in the one form that the decoder and the log expect.
        ("datestyle", "ISO"),
    ];
    let mut out = BytesMut::new();
    let all = own.iter().chain(parameters).copied();
    frontend::startup_message(all, &mut out).map_err(|e| Error::io(DURING, &e))?;
    send(wire, &out).await?;

    loop {
        match next(wire).await? {
            Message::AuthenticationOk => break,
            Message::AuthenticationCleartextPassword => {
                send_password(wire, password(config)?).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(user.as_bytes(), password(config)?, body.salt());
                send_password(wire, hash.as_bytes()).await?;
            }
            Message::AuthenticationSasl(body) => scram(wire, &body, password(config)?).await?,
            Message::ErrorResponse(body) => return Err(server_error(DURING, &body)),
            Message::NoticeResponse(_) => {}
            _ => {
                return Err(Error::definite(
                    "Postgres asks for a way of authentication that the relay does not speak (it \
                     speaks trust, password, md5 and scram-sha-256): change pg_hba.conf for this user",
                ));
            }
        }
    }
    loop {
        match next(wire).await? {
            Message::ReadyForQuery(_) => return Ok(()),
            Message::ErrorResponse(body) => return Err(server_error(DURING, &body)),
            // ParameterStatus, BackendKeyData, notices.
            _ => {}
        }
    }
}

fn password(config: &Config) -> Result<&[u8]> {
    config
        .get_password()
        .ok_or_else(|| Error::definite("Postgres asks for a password and DATABASE_URL has none"))
}

async fn scram(wire: &mut Wire, body: &AuthenticationSaslBody, password: &[u8]) -> Result<()> {
    let offered = body
        .mechanisms()
        .any(|mechanism| Ok(mechanism == SCRAM_SHA_256));
    if !offered.map_err(|e| Error::io(DURING, &e))? {
        return Err(Error::definite(
            "Postgres offers no SASL mechanism that the relay speaks (SCRAM-SHA-256)",
        ));
    }
    let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)
        .map_err(|e| Error::io(DURING, &e))?;
    send(wire, &out).await?;

    let challenge = match next(wire).await? {
        Message::AuthenticationSaslContinue(body) => body,
        Message::ErrorResponse(body) => return Err(server_error(DURING, &body)),
        _ => return Err(unexpected()),
    };
    scram
        .update(challenge.data())
        .map_err(|e| Error::io(DURING, &e))?;
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).map_err(|e| Error::io(DURING, &e))?;
    send(wire, &out).await?;

    match next(wire).await? {
        Message::AuthenticationSaslFinal(body) => {
            scram.finish(body.data()).map_err(|e| Error::io(DURING, &e))
        }
        Message::ErrorResponse(body) => Err(server_error(DURING, &body)),
        _ => Err(unexpected()),
    }
}

async fn send_password(wire: &mut Wire, password: &[u8]) -> Result<()> {
    let mut out = BytesMut::new();
    frontend::password_message(password, &mut out).map_err(|e| Error::io(DURING, &e))?;
    send(wire, &out).await
}

async fn send(wire: &mut Wire, bytes: &[u8]) -> Result<()> {
    let sent = wire.source().write_all(bytes).await;
    sent.map_err(|e| Error::io(DURING, &e))
}

async fn next(wire: &mut Wire) -> Result<Message> {
    wire.next_message().await.map_err(|e| Error::io(DURING, &e))
}

fn unexpected() -> Error {
    Error::definite(
        "Postgres broke off the SCRAM exchange: is DATABASE_URL that of a Postgres server?",
    )
}
