//! Start-up and authentication: trust, certificate, clear text, MD5 and SCRAM-SHA-256, bound to the TLS
//! channel (SCRAM-SHA-256-PLUS) where both sides can.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::{
        backend::{AuthenticationSaslBody, Message},
        frontend,
    },
};
use tokio_postgres::{Config, config};

use super::connection::{self, Wire, server_error};
use crate::error::{Error, Result};

const DURING: &str = "connect for replication";

/// Sends the start-up message and answers what the server asks, until it is ready for commands.
/// `end_point` is the hash of the server's certificate.
pub(super) async fn authenticate(
    wire: &mut Wire,
    config: &Config,
    end_point: Option<Vec<u8>>,
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
    let options = config.get_options().map(|options| ("options", options));
    let mut out = BytesMut::new();
    let all = own.iter().chain(parameters).copied().chain(options);
    frontend::startup_message(all, &mut out).map_err(|e| Error::io(DURING, &e))?;
    send(wire, &out).await?;

    prove(wire, config, user, end_point).await?;
    loop {
        match next(wire).await? {
            Message::ReadyForQuery(_) => return Ok(()),
            Message::ErrorResponse(body) => return Err(server_error(DURING, &body)),
            // ParameterStatus, BackendKeyData, notices.
            _ => {}
        }
    }
}

/// Proves who the relay is, in the way that the server chooses.
async fn prove(
    wire: &mut Wire,
    config: &Config,
    user: &str,
    end_point: Option<Vec<u8>>,
) -> Result<()> {
    let mut binding = Binding::of(config, end_point);
    loop {
        match next(wire).await? {
            // Who is let in without having been asked could be led into anything.
            Message::AuthenticationOk => return binding.demanded(),
            Message::AuthenticationCleartextPassword => {
                binding.demanded()?;
                send_password(wire, password(config)?).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                binding.demanded()?;
                let hash = md5_hash(user.as_bytes(), password(config)?, body.salt());
                send_password(wire, hash.as_bytes()).await?;
            }
            Message::AuthenticationSasl(body) => {
                scram(wire, &body, password(config)?, &mut binding).await?;
            }
            Message::ErrorResponse(body) => return Err(server_error(DURING, &body)),
            Message::NoticeResponse(_) => {}
            _ => {
                return Err(Error::definite(
                    "Postgres asks for a way of authentication that the relay does not speak (it \
                     speaks trust, cert, password, md5 and scram-sha-256): change pg_hba.conf for this user",
                ));
            }
        }
    }
}

/// The channel binding that is possible, and whether it is demanded.
struct Binding {
    end_point: Option<Vec<u8>>,
    is_required: bool,
}

impl Binding {
    fn of(config: &Config, end_point: Option<Vec<u8>>) -> Self {
        let mode = config.get_channel_binding();
        Self {
            end_point: end_point.filter(|_| mode != config::ChannelBinding::Disable),
            is_required: mode == config::ChannelBinding::Require,
        }
    }

    /// Refuses to go on unbound where that is not allowed.
    fn demanded(&self) -> Result<()> {
        if self.is_required {
            return Err(Error::definite(
                "channel_binding=require, and this connection cannot be bound: that takes TLS and a \
                 password that Postgres checks by scram-sha-256",
            ));
        }
        Ok(())
    }
}

fn password(config: &Config) -> Result<&[u8]> {
    config
        .get_password()
        .ok_or_else(|| Error::definite("Postgres asks for a password, and DATABASE_URL has none: put it there, or into DATABASE_PASSWORD_FILE"))
}

async fn scram(
    wire: &mut Wire,
    body: &AuthenticationSaslBody,
    password: &[u8],
    binding: &mut Binding,
) -> Result<()> {
    let offers = |name: &str| {
        let found = body.mechanisms().any(|mechanism| Ok(mechanism == name));
        found.map_err(|e| Error::io(DURING, &e))
    };
    let (plain, plus) = (offers(SCRAM_SHA_256)?, offers(SCRAM_SHA_256_PLUS)?);
    let (mechanism, channel) = match binding.end_point.take() {
        Some(hash) if plus => {
            binding.is_required = false;
            (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(hash),
            )
        }
        // Tells the server that we could: it finds out if somebody has hidden that it can.
        Some(_) if plain => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None if plain => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => {
            return Err(Error::definite(
                "Postgres offers no SASL mechanism that the relay speaks (SCRAM-SHA-256)",
            ));
        }
    };
    binding.demanded()?;
    let mut scram = ScramSha256::new(password, channel);
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut out)
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
    let sent = connection::send(wire, bytes).await;
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
