//! Lists: one page, or all of them.

use serde::Serialize;

use crate::failure::Failure;
use crate::show::{Out, Shown};

/// Which part of a list.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Paging {
    /// How many on a page, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) page_size: i32,
    /// The page behind the one that gave this
    #[arg(long, value_name = "TOKEN", conflicts_with = "all")]
    page_token: Option<String>,
    /// All pages, one after the other
    #[arg(long)]
    all: bool,
}

/// A service's answer with a page.
pub(crate) trait Page: Serialize {
    type Item: Shown;
    fn items(&self) -> &[Self::Item];
    fn next_page_token(&self) -> &str;
}

/// Prints what is asked for; `ask` gets the page of a token.
pub(crate) async fn print<P: Page>(
    paging: &Paging,
    out: &mut Out,
    ask: impl AsyncFn(String) -> Result<P, Failure>,
) -> Result<(), Failure> {
    let mut page = ask(paging.page_token.clone().unwrap_or_default()).await?;
    if !paging.all {
        return out.page(&page, page.items(), page.next_page_token());
    }
    loop {
        out.items(page.items())?;
        match page.next_page_token() {
            "" => return Ok(()),
            token => page = ask(token.to_owned()).await?,
        }
    }
}
