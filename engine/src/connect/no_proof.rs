//! In place of `proof.rs` in a build without the feature `nkeys`: nothing can be signed.

use async_nats::{Auth, AuthError};

use crate::config::ConnectOptions;
use crate::error::{Error, ErrorKind, Result};

/// Nothing to sign with.
pub(crate) struct Proof;

impl Proof {
    /// # Errors
    /// [`ErrorKind::Config`] if the options name something to sign with.
    pub(crate) fn of(options: &ConnectOptions) -> Result<Self> {
        if options.credentials.is_none() && options.nkey_seed.is_none() {
            return Ok(Self);
        }
        let text =
            "This build cannot use `credentials` or `nkey_seed`: build the crate with its feature `nkeys`.";
        Err(Error::new(ErrorKind::Config, text))
    }

    pub(crate) fn is_all(&self) -> bool {
        false
    }

    pub(crate) fn answer(&self, _nonce: &[u8]) -> Result<Auth, AuthError> {
        Ok(Auth::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_signed_with_is_refused_where_nothing_can_be_signed() {
        let options = ConnectOptions::default();
        for options in [options.clone().credentials("billing.creds"), options.nkey_seed("SU")] {
            let error = Proof::of(&options).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("feature `nkeys`"), "{error}");
        }
    }
}
