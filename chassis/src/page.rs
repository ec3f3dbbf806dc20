//! Pages of a list (AIP-158): how many rows, and the opaque token that says after which row the next
//! page begins.
//!
//! A token is base64url of the last row's id and a checksum over the list's name, the filter and
//! that id. So a token that was damaged, or that another list or another filter gave, is refused
//! instead of answered with the wrong page. The checksum guards against mistakes, not against
//! forgery: whoever makes up a token sees nothing that a token of their own would not show.
//!
//! Paging by key, not by offset: rows that are inserted in between shift nothing.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Rows on a page when the request does not say.
const PAGE_SIZE_DEFAULT: usize = 100;
/// Rows on a page at most: keeps a reply of the longest rows in protobuf near 1 MiB. In JSON it can be
/// larger than NATS carries; the caller is then told to ask for less.
const PAGE_SIZE_MAX: usize = 1000;

const ID_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// A page size below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not be negative; 0 stands for 100, and 1000 is the most")]
pub struct NegativeSize;

/// A token that this list did not give for this filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not the next_page_token of a request with the same other fields; \
     leave it empty to begin at the first page"
)]
pub struct BadToken;

/// Rows to put on a page that was asked for with `page_size`.
pub fn size(page_size: i32) -> Result<usize, NegativeSize> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => Err(NegativeSize),
    }
}

/// The token of the page that begins after the row `last`. `list` names the list, `filter` is what
/// else the request asked for.
pub fn token(list: &str, filter: &[u8], last: [u8; ID_BYTES]) -> String {
    let mut bytes = [0; ID_BYTES + CHECKSUM_BYTES];
    bytes[..ID_BYTES].copy_from_slice(&last);
    bytes[ID_BYTES..].copy_from_slice(&checksum(list, filter, last));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The row that a token's page begins after; none for the empty token of the first page.
pub fn after(list: &str, filter: &[u8], token: &str) -> Result<Option<[u8; ID_BYTES]>, BadToken> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken)?;
    let (last, sum) = bytes.split_first_chunk::<ID_BYTES>().ok_or(BadToken)?;
    if sum == checksum(list, filter, *last) {
        Ok(Some(*last))
    } else {
        Err(BadToken)
    }
}

/// FNV-1a: the same in every version of the service, so that tokens outlive a rolling upgrade.
fn checksum(list: &str, filter: &[u8], last: [u8; ID_BYTES]) -> [u8; CHECKSUM_BYTES] {
    let parts = [list.as_bytes(), &[0], filter, &[0], &last];
    let sum = parts
        .into_iter()
        .flatten()
        .fold(0x811c_9dc5_u32, |sum, byte| {
            (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    sum.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: [u8; 16] = *b"0123456789abcdef";

    #[test]
    fn a_token_leads_back_to_its_row() {
        let given = token("rows", b"filter", LAST);
        assert_eq!(after("rows", b"filter", &given), Ok(Some(LAST)));
        assert_eq!(after("rows", b"filter", ""), Ok(None));
    }

    #[test]
    fn a_token_of_another_list_or_filter_is_refused() {
        let given = token("rows", b"filter", LAST);
        assert_eq!(after("lines", b"filter", &given), Err(BadToken));
        assert_eq!(after("rows", b"", &given), Err(BadToken));
        assert_eq!(after("rows", b"other", &given), Err(BadToken));
    }

    #[test]
    fn a_damaged_token_is_refused() {
        let given = token("rows", b"", LAST);
        for at in 0..given.len() {
            let mut damaged = given.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert_eq!(after("rows", b"", &damaged), Err(BadToken), "{damaged}");
        }
        for damaged in ["?", "AAAA", &given[1..], &format!("{given}AAAA"), "ÄÖÜ"] {
            assert_eq!(after("rows", b"", damaged), Err(BadToken), "{damaged}");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_bound() {
        let sizes = [0, 1, 1000, 1001, i32::MAX].map(|asked| size(asked).unwrap());
        assert_eq!(sizes, [100, 1, 1000, 1000, 1000]);
        assert_eq!(size(-1), Err(NegativeSize));
        assert_eq!(size(i32::MIN), Err(NegativeSize));
    }
}
