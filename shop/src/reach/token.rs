//! Who calls: the bearer token that each request carries, where the services ask for one.

use std::path::PathBuf;

use chassis::config::{self, Secret};
use clap::Args;

/// Given by its value or by a file. What is set to nothing is not set.
#[derive(Args, Clone, Debug)]
pub(crate) struct Token {
    /// The token to call with, a JWT. Whoever can list this machine's processes sees it here: rather set the
    /// variable, or --token-file
    #[arg(id = "SHOP_TOKEN", long = "token", env = "SHOP_TOKEN", value_name = "JWT",
          hide_env_values = true, value_parser = secret)]
    token: Option<Secret>,
    /// A file that holds the token
    #[arg(
        id = "SHOP_TOKEN_FILE",
        long = "token-file",
        env = "SHOP_TOKEN_FILE",
        value_name = "FILE"
    )]
    file: Option<PathBuf>,
}

fn secret(given: &str) -> Result<Secret, String> {
    Ok(Secret::from(given.to_owned()))
}

impl Token {
    /// The header `Authorization`, if there is a token.
    ///
    /// # Errors
    /// When the file cannot be read, or there is something else in it; without its content.
    pub(super) fn authorization(&self) -> anyhow::Result<Option<Secret>> {
        config::bearer(self.token.as_ref(), self.file.as_deref())
    }
}
