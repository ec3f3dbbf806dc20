use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use harness::{Guard, certificates::Authority};

use super::*;

const DAY: i64 = 24 * 3600;

#[test]
fn times_are_read_as_certificates_write_them() {
    // `date -u -d … +%s`
    for (tag, text, expected) in [
        (0x17, "700101000000Z", Some(0)),
        (0x17, "240229235959Z", Some(1_709_251_199)),
        (0x17, "491231235959Z", Some(2_524_607_999)),
        (0x17, "500101000000Z", Some(-631_152_000)),
        (0x18, "20500101000000Z", Some(2_524_608_000)),
        (0x18, "21000301000000Z", Some(4_107_542_400)),
        (0x18, "99991231235959Z", Some(253_402_300_799)),
        (0x17, "20500101000000Z", None),
        (0x18, "500101000000Z", None),
        (0x17, "2402292359590", None),
        (0x17, "24022923595-Z", None),
        (0x17, "", None),
    ] {
        assert_eq!(seconds(tag, text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn it_is_told_in_the_last_fortnight_or_fifth() {
    let year = Validity {
        not_before: 0,
        not_after: 365 * DAY,
    };
    let day = Validity {
        not_before: 0,
        not_after: DAY,
    };
    for (validity, left, expected) in [
        (year, 15 * DAY, State::Good),
        (year, 14 * DAY - 1, State::Expiring),
        (year, 1, State::Expiring),
        (year, 0, State::Expired),
        (year, -1, State::Expired),
        (day, DAY / 4, State::Good),
        (day, DAY / 5 - 1, State::Expiring),
    ] {
        let state = validity.state(validity.not_after - left);
        assert_eq!(state, expected, "{validity:?}, {left} left");
    }
}

fn read(file: &Path, use_of: Use) -> Option<i64> {
    let file = file.to_owned();
    let watched = Watched {
        setting: "TEST",
        file,
        use_of,
    };
    watched.validity().map(|validity| validity.not_after)
}

#[test]
fn a_chain_is_as_good_as_its_first_end_and_trust_as_its_last() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let now = now();
    let [sooner, later] = [10, 20].map(|days| now + days * DAY);
    let long_ago = now - 100 * DAY;
    let mut both = String::new();
    for (name, until) in [("later", later), ("sooner", sooner)] {
        let signed = authority.sign_for(&[name], long_ago..until)?;
        assert_eq!(read(&signed.certificate, Use::Shown), Some(until));
        both += &fs::read_to_string(&signed.certificate)?;
    }
    let chain = guard.directory().join("chain.pem");
    fs::write(&chain, both)?;
    assert_eq!(read(&chain, Use::Shown), Some(sooner));
    assert_eq!(read(&chain, Use::Trusted), Some(later));
    let far = authority.sign_for(&["far"], now..now + 100 * 365 * DAY)?;
    let expected = now + 100 * 365 * DAY;
    assert_eq!(read(&far.certificate, Use::Shown), Some(expected));
    Ok(())
}

#[test]
fn what_is_no_certificate_tells_nothing() -> Result<()> {
    let guard = Guard::start()?;
    assert_eq!(read(Path::new("/nowhere.pem"), Use::Shown), None);
    let authority = Authority::new(&guard, "authority")?;
    assert!(read(authority.certificate(), Use::Trusted).is_some());
    let whole = certificates("it", authority.certificate())?;
    let whole = whole.first().context("none")?;
    // What stands behind the validity is not looked at.
    let end = whole.len() / 4;
    for end in 0..end {
        assert_eq!(validity(&CertificateDer::from(&whole[..end])), None);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn it_is_told_once_a_day_and_again_when_it_has_expired() -> Result<()> {
    let guard = Guard::start()?;
    let authority = Authority::new(&guard, "authority")?;
    let mut told = Told::new();
    let times = |told: &Told| {
        told.get("GRPC_TLS_CERT")
            .map(|(state, _, at)| (*state, *at))
    };
    let now = now();
    let shown = authority.sign_for(&["shown"], now - 300 * DAY..now + 10 * DAY)?;
    let watched = Watched::shown("GRPC_TLS_CERT", &Some(shown.certificate.clone()));
    let watched = watched.context("it is set")?;
    look(&watched, &mut told);
    let first = times(&told).context("it is not told")?;
    assert_eq!(first.0, State::Expiring);
    sleep(TELL_EVERY - Duration::from_secs(1)).await;
    look(&watched, &mut told);
    assert_eq!(times(&told), Some(first), "it is told twice a day");
    sleep(Duration::from_secs(1)).await;
    look(&watched, &mut told);
    let second = times(&told).context("it is told no more")?;
    assert!(second.1 > first.1, "it is not told again");
    authority.sign_expired(&["other"])?.replace(&shown)?;
    sleep(LOOK_EVERY).await;
    look(&watched, &mut told);
    assert_eq!(times(&told).map(|told| told.0), Some(State::Expired));
    authority.sign(&["third"])?.replace(&shown)?;
    look(&watched, &mut told);
    assert_eq!(times(&told), None, "it was renewed");
    Ok(())
}
