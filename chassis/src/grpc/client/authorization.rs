//! The header `authorization` of each call, where there is a token.

use anyhow::Context as _;
use tonic::{Request, metadata::AsciiMetadataValue};

use crate::config::Secret;

/// What is shown with each call; it is never printed.
#[derive(Clone, Debug)]
pub struct Authorization(Option<AsciiMetadataValue>);

impl Authorization {
    /// Of the whole value, such as `Bearer …`; none without one.
    ///
    /// # Errors
    /// When it cannot stand in a header.
    pub fn new(value: Option<&Secret>) -> anyhow::Result<Self> {
        let parsed = value.map(|value| value.expose().parse());
        let mut parsed: Option<AsciiMetadataValue> = parsed.transpose().context("the token")?;
        if let Some(header) = &mut parsed {
            header.set_sensitive(true);
        }
        Ok(Self(parsed))
    }

    /// The message as a request that shows it.
    pub fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(header) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", header.clone());
        }
        request
    }
}
