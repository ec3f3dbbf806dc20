//! Finds the quarantine stream, or makes it.

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        stream::{Config, DiscardPolicy, Info, StorageType, Stream},
    },
};

use super::{key::Subjects, store::Store};
use crate::error::{Error, Result};

/// Whose quarantine it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The stream that the events go to.
    pub stream: String,
    /// The stream that takes what cannot go there.
    pub quarantine: String,
    pub replicas: usize,
    /// Whether it may be made.
    pub create: bool,
}

/// The quarantine, if there is one.
///
/// # Errors
/// [`Error::Definite`] when the stream is not one that a quarantine can stand in.
pub async fn find(client: &Client, settings: &Settings) -> Result<Option<Store>> {
    let during = "find the quarantine stream";
    let jetstream = jetstream::new(client.clone());
    let stream = match jetstream.get_stream(&settings.quarantine).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                GetStreamErrorKind::JetStream(refused)
                    if refused.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(Error::transient(during, &error)),
            };
        }
    };
    let subjects = Subjects::of(&settings.stream);
    check(stream.cached_info(), &subjects)?;
    Ok(Some(store(client, settings, stream)))
}

/// The same, made where it is missing.
///
/// # Errors
/// [`Error::Definite`] when JetStream refuses to make it.
pub async fn find_or_create(client: &Client, settings: &Settings) -> Result<Store> {
    if let Some(store) = find(client, settings).await? {
        return Ok(store);
    }
    if !settings.create {
        return Err(Error::Definite(format!(
            "there is no stream {0}, and CDC_STREAM_CREATE is `never`: `nats stream add {0} --subjects '{1}' \
             --allow-rollup --discard new --defaults`",
            settings.quarantine,
            Subjects::of(&settings.stream).all()
        )));
    }
    let during = "create the quarantine stream";
    let wanted = Config {
        name: settings.quarantine.clone(),
        description: Some(format!(
            "Rows that could not be published to {}, with the reason",
            settings.stream
        )),
        subjects: vec![Subjects::of(&settings.stream).all()],
        storage: StorageType::File,
        num_replicas: settings.replicas,
        // Unlimited; and if an operator sets a limit, it refuses rather than forgets.
        discard: DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        ..Config::default()
    };
    let created = jetstream::new(client.clone()).create_stream(wanted).await;
    match created {
        Ok(stream) => Ok(store(client, settings, stream)),
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(refused) if refused.code() < 500 => {
                Err(Error::Definite(format!(
                    "{during} {}: JetStream refuses: {refused}. Mend that, or choose another \
                     CDC_QUARANTINE_STREAM",
                    settings.quarantine
                )))
            }
            _ => Err(Error::transient(during, &error)),
        },
    }
}

fn store(client: &Client, settings: &Settings, stream: Stream<Info>) -> Store {
    let subjects = Subjects::of(&settings.stream);
    Store::new(client.clone(), stream, &settings.quarantine, subjects)
}

fn check(info: &Info, subjects: &Subjects) -> Result<()> {
    let config = &info.config;
    let wanted = subjects.all();
    let mend = if !config.subjects.contains(&wanted) {
        format!(
            "it does not take {wanted}: `nats stream edit {} --subjects '{wanted}'`",
            config.name
        )
    } else if !config.allow_rollup {
        format!(
            "it does not allow rollups: `nats stream edit {} --allow-rollup`",
            config.name
        )
    } else {
        return Ok(());
    };
    Err(Error::Definite(format!(
        "stream {} cannot hold the quarantine, because {mend}; or choose another CDC_QUARANTINE_STREAM",
        config.name
    )))
}
