//! Sizes, times and addresses as people write them.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

/// A number of bytes: `8192`, `8KiB`, `8MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A duration: `500ms`, `10s`, `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

/// Where to listen: an address with a port, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => return Err("write a number of bytes, as in 8192, 8KiB or 8MiB".to_owned()),
        };
        let number: Option<u64> = number.parse().ok();
        let size = number.and_then(|number| number.checked_mul(factor));
        size.filter(|size| *size > 0)
            .map(Self)
            .ok_or_else(|| "write a number of bytes above 0, as in 8192, 8KiB or 8MiB".to_owned())
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HOW: &str = "write a number and a unit, as in 500ms, 10s or 5m";
        let (number, unit) = split(text);
        let number: u64 = number.parse().map_err(|_| HOW.to_owned())?;
        let millis = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            _ if text == "0" => Some(0),
            _ => None,
        };
        millis
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| HOW.to_owned())
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| "write an IP address with a port, as in 127.0.0.1:8080 or [::]:8080 (port 0 takes a free one), or off".to_owned())
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_need_sense() {
        for (text, bytes) in [
            ("8192", 8192),
            ("8KiB", 8192),
            ("8k", 8192),
            ("2MiB", 2 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "0",
            "x",
            "8 KiB",
            "-1",
            "99999999999999999999",
            "9999999999999GiB",
            "1.5M",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Time(Duration::from_millis(millis))),
                "{text}"
            );
        }
        for text in ["", "10", "s", "1h", "-1s", "1.5s"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_listener_is_an_address_or_off() {
        assert_eq!("off".parse(), Ok(Listen(None)));
        assert_eq!(
            "[::1]:0".parse(),
            Ok(Listen(Some("[::1]:0".parse().unwrap())))
        );
        for text in ["", "8080", "localhost:80", "127.0.0.1"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
