//! Request methods an API may be defined for.

use std::{fmt, str::FromStr};

/// A request method, or `ANY` (Ref §4.1). `CONNECT` and `TRACE` are refused by the gateway and so cannot be named.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Method {
    /// Every method the gateway accepts.
    Any,
    /// RFC 9110 §9.3.1.
    Get,
    /// RFC 9110 §9.3.2.
    Head,
    /// RFC 9110 §9.3.3.
    Post,
    /// RFC 9110 §9.3.4.
    Put,
    /// RFC 9110 §9.3.5.
    Delete,
    /// RFC 5789.
    Patch,
    /// RFC 9110 §9.3.7.
    Options,
}

/// Why a text is not a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a supported method: use GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS or ANY")]
pub struct InvalidMethod(String);

// === impl Method ===

impl Method {
    /// As written on the request line; `ANY` for [`Method::Any`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "ANY",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
        }
    }

    /// The concrete method of a request line; `None` for anything the gateway refuses (`ANY` included).
    pub fn of_request(text: &str) -> Option<Self> {
        Some(match text {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "PATCH" => Self::Patch,
            "OPTIONS" => Self::Options,
            _ => return None,
        })
    }

    /// Whether an API defined for `self` answers a request made with `request`.
    pub fn accepts(self, request: Self) -> bool {
        self == Self::Any || self == request
    }
}

impl FromStr for Method {
    type Err = InvalidMethod;

    fn from_str(text: &str) -> Result<Self, InvalidMethod> {
        match text {
            "ANY" => Ok(Self::Any),
            other => Self::of_request(other)
                .ok_or_else(|| InvalidMethod(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
