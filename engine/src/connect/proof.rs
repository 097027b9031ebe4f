//! Credentials that are signed with and never sent: a credentials file, or the seed of a key.

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use crate::config::ConnectOptions;
use crate::connect::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};

/// The signer of a server's nonce.
pub(crate) enum Proof {
    None,
    Credentials(Credentials),
    Key(Box<KeyPair>),
}

impl Proof {
    /// Returns the proof that the options name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a seed or a credentials file that cannot be used.
    pub(crate) fn of(options: &ConnectOptions) -> Result<Self> {
        if let Some(credentials) = Credentials::of(options)? {
            return Ok(Self::Credentials(credentials));
        }
        let Some(seed) = &options.nkey_seed else { return Ok(Self::None) };
        // The error may repeat what it was given.
        let key = KeyPair::from_seed(seed.reveal().trim()).map_err(|_| {
            Error::new(
                ErrorKind::Config,
                "The seed of the nkey is malformed: compare it with the one that was issued.",
            )
        })?;
        Ok(Self::Key(key.into()))
    }

    /// Whether a server is told nothing else: no password, no token.
    pub(crate) fn is_all(&self) -> bool {
        matches!(self, Self::Credentials(_))
    }

    /// The answer to the server that sent this nonce.
    pub(crate) fn answer(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        match self {
            Self::Credentials(credentials) => credentials.answer(nonce),
            Self::Key(key) => signed(key, nonce),
            Self::None => Ok(Auth::new()),
        }
    }
}

fn signed(key: &KeyPair, nonce: &[u8]) -> Result<Auth, AuthError> {
    let mut auth = Auth::new();
    auth.nkey = Some(key.public_key());
    auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
    Ok(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_with_a_line_end_is_a_seed_and_a_malformed_one_is_refused_without_a_word_of_it() {
        let proof = |text: String| Proof::of(&ConnectOptions::default().nkey_seed(text));
        let text = KeyPair::new_user().seed().unwrap();
        assert!(proof(format!("{text}\r\n")).is_ok());
        let error = proof(format!("{text}X")).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains(&text));
    }
}
