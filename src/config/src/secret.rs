//! Text that must never be shown.
//!
//! Owns the one type through which passwords, tokens and keys travel. Invariant: neither `Debug` nor
//! `Display` reveals it; the only way to the text is `reveal`, which is easy to search for.

use std::fmt;

/// A password, token or key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What a secret looks like wherever it is printed (Prometheus' own placeholder).
    pub const MASK: &'static str = "<secret>";

    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the moment it goes on the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::MASK)
    }
}

/// A URL whose password, if it holds one, is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MaskedUrl(String);

impl MaskedUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole URL, password included, for connecting.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for MaskedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(mask_url(&self.0).as_deref().unwrap_or(&self.0))
    }
}

impl fmt::Debug for MaskedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `scheme://user:password@host` with the password masked; `None` when there is none.
pub(crate) fn mask_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (login, _) = authority.rsplit_once('@')?;
    let (user, _) = login.split_once(':')?;
    Some(format!("{scheme}://{user}:{}@{}", Secret::MASK, &rest[login.len() + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_printed() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s} {s:?}"), "<secret> <secret>");
        assert_eq!(s.reveal(), "hunter2");
    }

    #[test]
    fn url_passwords_are_masked() {
        assert_eq!(mask_url("http://u:p@h/x@y").unwrap(), "http://u:<secret>@h/x@y");
        assert_eq!(mask_url("http://h/p:q@r"), None);
        assert_eq!(mask_url("plain"), None);
        let url = MaskedUrl::new("http://u:p@h");
        assert_eq!(
            format!("{url} {url:?} {}", url.reveal()),
            "http://u:<secret>@h http://u:<secret>@h http://u:p@h"
        );
    }
}
