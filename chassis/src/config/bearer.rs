//! Who calls: the bearer token that a client's requests carry, where the services ask for one.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::Secret;

/// The header `Authorization` of a token that is given by its value or by a file; none where neither is. What
/// is set to nothing is not set.
///
/// # Errors
/// When both are set, the file cannot be read, or what is given is no token; without the token itself.
pub fn bearer(token: Option<&Secret>, file: Option<&Path>) -> anyhow::Result<Option<Secret>> {
    let given = token.map(Secret::expose).filter(|token| !token.is_empty());
    let token = match (given, file.filter(|path| !path.as_os_str().is_empty())) {
        (Some(_), Some(_)) => {
            bail!("--token and --token-file are both set: leave one of them out")
        }
        (None, None) => return Ok(None),
        (Some(token), None) => token.to_owned(),
        (None, Some(path)) => {
            fs::read_to_string(path).with_context(|| format!("--token-file {}", path.display()))?
        }
    };
    let token = token.trim();
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(&byte);
    ensure!(
        !token.is_empty() && token.bytes().all(is_of_token),
        "--token or --token-file holds no token: one line such as eyJhbGciOi….eyJzdWIiOi….c2lnbmF0"
    );
    Ok(Some(Secret::from(format!("Bearer {token}"))))
}
