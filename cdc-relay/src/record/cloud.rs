//! CloudEvents in binary content mode, after the NATS protocol binding: an attribute a header, the
//! payload as it is.

use std::fmt::Write as _;

use async_nats::{HeaderValue, header::HeaderName};

use super::{
    Headers, Row,
    layout::{AGGREGATE_ID, Cloud, ID, TYPE},
};

/// Adds the attributes. A row's own `ce-…` headers stay, as extensions, where no attribute has their name.
pub(super) fn add(headers: &mut Headers, cloud: &Cloud, row: &Row<'_>) {
    headers.push_own("ce-specversion", "1.0");
    headers.add(&HeaderName::from_static("ce-source"), &cloud.source);
    let text = |at: usize| row.texts.get(at).and_then(Option::as_deref);
    let attributes = [
        ("ce-id", text(ID)),
        ("ce-type", text(TYPE)),
        ("ce-subject", text(AGGREGATE_ID)),
        ("ce-time", cloud.time.and_then(text)),
        (
            "ce-datacontenttype",
            row.is_json.then_some("application/json"),
        ),
    ];
    for (name, value) in attributes {
        if let Some(value) = value.and_then(|value| encoded(value).parse::<HeaderValue>().ok()) {
            headers.add(&HeaderName::from_static(name), &value);
        }
    }
}

/// Percent-encodes what the binding does not let stand in a header.
fn encoded(value: &str) -> std::borrow::Cow<'_, str> {
    let stays = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'%';
    if value.bytes().all(stays) {
        return value.into();
    }
    let mut text = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        if stays(byte) {
            text.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _written = write!(text, "%{byte:02X}");
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn what_a_header_cannot_hold_is_percent_encoded_as_the_binding_says() {
        assert_eq!(encoded("orders.v1.Made"), "orders.v1.Made");
        assert_eq!(encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encoded("100%\""), "100%25%22");
    }
}
