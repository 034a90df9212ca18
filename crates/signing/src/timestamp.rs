//! `X-Ca-Timestamp` against a clock that the caller brings (Ref §1.5).
//!
//! Only this header is a time stamp here. `Date` is a line of the string to sign and nothing more: browsers cannot set
//! it and proxies rewrite it, so a request with `Date` alone is neither refused for its age nor made younger by it, and
//! one with both is judged by `X-Ca-Timestamp`.

/// How far a time stamp may lie from the server's clock, either way: 15 minutes, in milliseconds.
pub const TIMESTAMP_WINDOW_MS: u64 = 15 * 60 * 1000;

/// Values of fewer digits than this are seconds (Ref §1.5): 13 digits of milliseconds began in 2001.
const MILLISECOND_DIGITS: usize = 13;

/// An `X-Ca-Timestamp` that does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimestamp {
    /// Empty, or anything but decimal digits.
    #[error("X-Ca-Timestamp must be decimal digits: milliseconds since 1970-01-01 UTC")]
    Malformed,
    /// Outside the window, before or after.
    #[error("X-Ca-Timestamp is expired")]
    Expired,
}

/// Checks that a time stamp is at most `window_ms` away from `now_ms`, both in milliseconds since the epoch; normally
/// with [`TIMESTAMP_WINDOW_MS`]. A request without the header is not checked at all (the header is optional).
pub fn timestamp_within(value: &[u8], now_ms: u64, window_ms: u64) -> Result<(), InvalidTimestamp> {
    let stamp = parse(value)?;
    match stamp.abs_diff(u128::from(now_ms)) <= u128::from(window_ms) {
        true => Ok(()),
        false => Err(InvalidTimestamp::Expired),
    }
}

/// How far a time stamp lies ahead of `now_ms`, in milliseconds; 0 for one that is past or malformed. By so much longer than the
/// window has its request's nonce to be remembered: until then the time stamp counts.
pub fn timestamp_ahead(value: &[u8], now_ms: u64) -> u64 {
    let ahead = parse(value).map_or(0, |stamp| stamp.saturating_sub(u128::from(now_ms)));
    u64::try_from(ahead).unwrap_or(u64::MAX)
}

/// Milliseconds since the epoch. What no 128 bits hold is as good as expired.
fn parse(value: &[u8]) -> Result<u128, InvalidTimestamp> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(InvalidTimestamp::Malformed);
    }
    if value.len() > 30 {
        return Err(InvalidTimestamp::Expired);
    }
    let number = value
        .iter()
        .fold(0, |sum: u128, digit| sum * 10 + u128::from(digit - b'0'));
    Ok(if value.len() < MILLISECOND_DIGITS {
        number * 1000
    } else {
        number
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn check(value: &str) -> Result<(), InvalidTimestamp> {
        timestamp_within(value.as_bytes(), NOW, TIMESTAMP_WINDOW_MS)
    }

    #[test]
    fn fifteen_minutes_either_way_pass() {
        for stamp in [NOW, NOW - TIMESTAMP_WINDOW_MS, NOW + TIMESTAMP_WINDOW_MS] {
            assert_eq!(check(&stamp.to_string()), Ok(()), "{stamp}");
        }
        for stamp in [NOW - TIMESTAMP_WINDOW_MS - 1, NOW + TIMESTAMP_WINDOW_MS + 1] {
            assert_eq!(
                check(&stamp.to_string()),
                Err(InvalidTimestamp::Expired),
                "{stamp}"
            );
        }
    }

    #[test]
    fn only_the_future_is_ahead() {
        let ahead = |value: &str| timestamp_ahead(value.as_bytes(), NOW);
        assert_eq!(ahead(&(NOW + 7).to_string()), 7);
        assert_eq!(ahead("1700000005"), 5000);
        assert_eq!(
            [ahead(&(NOW - 7).to_string()), ahead(""), ahead("x")],
            [0; 3]
        );
        assert_eq!(ahead(&"9".repeat(30)), u64::MAX);
    }

    #[test]
    fn fewer_than_thirteen_digits_are_seconds() {
        assert_eq!(check("1700000000"), Ok(()));
        assert_eq!(check("1700000901"), Err(InvalidTimestamp::Expired));
        assert_eq!(check("0"), Err(InvalidTimestamp::Expired));
    }

    #[test]
    fn anything_but_digits_is_malformed() {
        for wrong in [
            "",
            " 1700000000000",
            "-1700000000000",
            "+1700000000000",
            "1.7e12",
            "2023-11-14T22:13:20Z",
            "１",
        ] {
            assert_eq!(check(wrong), Err(InvalidTimestamp::Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn absurd_lengths_are_expired_and_nothing_overflows() {
        for digits in [14, 19, 20, 30, 31, 39, 40, 1000] {
            assert_eq!(
                check(&"9".repeat(digits)),
                Err(InvalidTimestamp::Expired),
                "{digits}"
            );
        }
        assert_eq!(timestamp_within(b"0", u64::MAX, u64::MAX), Ok(()));
    }
}
