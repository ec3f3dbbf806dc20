//! Who calls, and whether they may: bearer tokens (JWT) with the scopes of a customer or an operator, over
//! gRPC and NATS alike, looked at before a request's body is.
//!
//! Danger: an operation that is not in the table of access is refused, and a server that has one does not
//! start. Neither logs nor errors quote a token.

mod fetch;
mod keyring;
mod keys;
mod signature;
mod token;

use std::{str, sync::Arc};

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use uuid::Uuid;

use self::{
    keyring::{Keyring, Source},
    token::{Claims, Verifier},
};
use crate::{
    config::{self, AuthMode, Jwks, libpq::Roots, set},
    failure,
};

/// The scope of who may do everything.
pub const OPERATOR: &str = "operator";
/// The scope of a customer, who may do what concerns itself.
pub const CUSTOMER: &str = "customer";

/// The scopes that may call an operation, by its gRPC name: `orders.v1.OrderService/CreateOrder`.
pub type Table = &'static [(&'static str, &'static [&'static str])];

/// Who calls. A handler finds it on its request, over gRPC and NATS alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody was asked: `AUTH=off`.
    Anyone,
    Operator,
    /// May deal with what belongs to this customer, and with nothing else.
    Customer(Uuid),
}

impl Caller {
    /// Who has made the request.
    ///
    /// # Errors
    /// It came by no server of this chassis, so that nobody was asked.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let found = request.extensions().get::<Self>().copied();
        found.ok_or_else(|| failure::internal("a request came without its caller"))
    }

    /// A request of this caller, as its server would pass it on.
    pub fn asks<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(self);
        request
    }

    /// The only customer that it may deal with; none if it may with all.
    pub fn only(self) -> Option<Uuid> {
        match self {
            Self::Anyone | Self::Operator => None,
            Self::Customer(customer) => Some(customer),
        }
    }

    /// Whether it may deal with what belongs to this customer.
    pub fn may_deal_with(self, customer: impl Into<Uuid>) -> bool {
        let customer = customer.into();
        self.only().is_none_or(|only| only == customer)
    }

    /// The same, for a request that names the customer itself: the refusal tells nothing of what there is.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn check(self, customer: impl Into<Uuid>) -> Result<(), Status> {
        match self.may_deal_with(customer) {
            true => Ok(()),
            false => Err(Refused::OtherCustomer.told()),
        }
    }
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("no token: send the header `authorization: Bearer <token>`, once")]
    NoToken,
    #[error("the token is too large")]
    TooLarge,
    #[error("the token is not a signed JWT that can be read")]
    Malformed,
    #[error("the token is signed by an unknown key, or in a way that is not taken")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error(
        "the token lacks one of the claims exp, iss and aud, or one of them or nbf is malformed"
    )]
    Claims,
    #[error("the token has expired: get a new one")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is meant for another audience")]
    Audience,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token lacks a scope for this: {0}")]
    Scope(String),
    #[error("the token names no customer: neither customer_id nor sub is a UUID")]
    NoCustomer,
    #[error("the token is of another customer")]
    OtherCustomer,
    #[error("nobody may call this")]
    NoEntry,
}

impl Refused {
    /// The answer, which is counted.
    pub(crate) fn told(&self) -> Status {
        let (reason, is_known) = match self {
            Self::NoToken => ("no token", false),
            Self::TooLarge => ("too large", false),
            Self::Malformed => ("malformed", false),
            Self::UnknownKey => ("unknown key", false),
            Self::Signature => ("signature", false),
            Self::Claims => ("claims", false),
            Self::Expired => ("expired", false),
            Self::NotYetValid => ("not yet valid", false),
            Self::Audience => ("audience", false),
            Self::Issuer => ("issuer", false),
            Self::Scope(_) => ("scope", true),
            Self::NoCustomer => ("no customer", true),
            Self::OtherCustomer => ("other customer", true),
            Self::NoEntry => ("no entry", true),
        };
        metrics::counter!("auth_refusals_total", "reason" => reason).increment(1);
        match is_known {
            true => Status::permission_denied(self.to_string()),
            false => Status::unauthenticated(self.to_string()),
        }
    }
}

/// Stands before every operation of a process.
#[derive(Clone, Debug)]
pub struct Guard {
    table: Table,
    /// None lets everybody in.
    verifier: Option<Arc<Verifier>>,
}

impl Guard {
    /// As configured, and says in the log which way. Waits for a URL's keys, and keeps them up to date until
    /// the token is cancelled.
    ///
    /// # Errors
    /// When a setting is missing, or the file of keys cannot be used.
    pub async fn start(
        config: &config::Auth,
        table: Table,
        token: CancellationToken,
    ) -> anyhow::Result<Self> {
        if config.mode == AuthMode::Off {
            tracing::warn!(
                "AUTH=off: callers are not authenticated, and everybody may do everything"
            );
            return Ok(Self::off(table));
        }
        describe();
        let issuer = required("AUTH_ISSUER", &config.issuer)?;
        let audience = required("AUTH_AUDIENCE", &config.audience)?;
        let source = match &config.jwks {
            None | Some(Jwks::Unset) => return Err(missing("AUTH_JWKS")),
            Some(Jwks::File(path)) => Source::File(path.clone()),
            Some(Jwks::Url(url)) => {
                if url.scheme_str() != Some("https") {
                    tracing::warn!(
                        "AUTH_JWKS is asked for without TLS: who is on the way can replace the keys"
                    );
                }
                let roots = set(&config.jwks_ca).map_or(Roots::System, Roots::File);
                Source::Url(url.clone(), roots)
            }
        };
        let keyring = Keyring::load(source).await.map_err(|why| anyhow!(why));
        let keyring = Arc::new(keyring.context("AUTH_JWKS cannot be used")?);
        let (jwks, keys) = (
            config.jwks.as_ref().map(Jwks::to_string),
            keyring.keys().len(),
        );
        tracing::info!(
            jwks,
            keys,
            issuer,
            audience,
            "callers are authenticated, by bearer tokens"
        );
        tokio::spawn(Arc::clone(&keyring).watch(token));
        let verifier = Verifier::new(keyring, issuer, audience);
        let verifier = Some(Arc::new(verifier));
        Ok(Self { table, verifier })
    }

    /// One that lets everybody in.
    pub fn off(table: Table) -> Self {
        let verifier = None;
        Self { table, verifier }
    }

    /// Whether these operations, by their gRPC names, are in the table.
    pub(crate) fn knows<'a>(
        &self,
        mut operations: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<()> {
        match operations.find(|operation| self.scopes(operation).is_none()) {
            None => Ok(()),
            Some(operation) => bail!("{operation} is not in the table of who may call what"),
        }
    }

    /// Whether who has sent these headers `authorization` may call the operation, and who it is.
    pub(crate) async fn admit(&self, operation: &str, given: Vec<&[u8]>) -> Result<Caller, Status> {
        let Some(verifier) = &self.verifier else {
            return Ok(Caller::Anyone);
        };
        let admitted = async {
            let claims = verifier.verify(bearer(&given)?).await?;
            let scopes = self.scopes(operation).ok_or(Refused::NoEntry)?;
            caller(&claims, scopes)
        };
        admitted.await.map_err(|refused| refused.told())
    }

    fn scopes(&self, operation: &str) -> Option<&'static [&'static str]> {
        let found = self.table.iter().find(|(name, _)| *name == operation);
        found.map(|(_, scopes)| *scopes)
    }
}

fn describe() {
    metrics::describe_counter!(
        "auth_refusals_total",
        "Requests that were not let in on account of their token, by reason"
    );
    metrics::describe_counter!(
        "auth_keys_failures_total",
        "Looks at AUTH_JWKS that failed, so that the keys as they were went on being used"
    );
    metrics::counter!("auth_keys_failures_total").increment(0);
}

fn required<'a>(name: &str, given: &'a Option<String>) -> anyhow::Result<&'a str> {
    let given = given.as_deref().unwrap_or_default();
    ensure!(!given.is_empty(), missing(name));
    Ok(given)
}

fn missing(name: &str) -> anyhow::Error {
    anyhow!(
        "{name} is not set: callers are authenticated by bearer tokens, which needs AUTH_JWKS, AUTH_ISSUER and \
         AUTH_AUDIENCE; AUTH=off lets everybody do everything instead"
    )
}

/// The token of `Bearer <token>` (RFC 6750), sent once.
fn bearer<'a>(given: &[&'a [u8]]) -> Result<&'a str, Refused> {
    let [one] = given else {
        return Err(Refused::NoToken);
    };
    let text = str::from_utf8(one).map_err(|_| Refused::NoToken)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refused::NoToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::NoToken);
    }
    Ok(token.trim())
}

/// Who that is for an operation of these scopes. The wider scope counts, if a token has both.
fn caller(claims: &Claims, scopes: &[&str]) -> Result<Caller, Refused> {
    let has = |wanted| {
        let mut given = claims.scope.split(' ');
        scopes.contains(&wanted) && given.any(|scope| scope == wanted)
    };
    if has(OPERATOR) {
        return Ok(Caller::Operator);
    }
    if !has(CUSTOMER) {
        return Err(Refused::Scope(scopes.join(" or ")));
    }
    let named = claims.customer_id.as_ref().or(claims.sub.as_ref());
    let customer = named.and_then(|named| Uuid::try_parse(named).ok());
    customer.map(Caller::Customer).ok_or(Refused::NoCustomer)
}
