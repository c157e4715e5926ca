//! A secret on its way over the local socket: wiped when it is dropped, never printed.
//!
//! Not here: what it is. The bytes of a request pass through the buffers of both
//! processes, which only their own user can read.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A text that must not be shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_travels_as_text_and_never_prints() {
        let secret = Secret::new(Zeroizing::new("hidden".into()));
        assert!(!format!("{secret:?}").contains("hidden"));
        let sent = serde_json::to_string(&secret).unwrap();
        let got: Secret = serde_json::from_str(&sent).unwrap();
        assert_eq!(got.expose(), "hidden");
    }
}
