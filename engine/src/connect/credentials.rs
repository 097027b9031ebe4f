//! A credentials file, read anew for every connection: what it holds expires, and is renewed in its place.

use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

/// Options that sign in with the file at `path`.
///
/// # Errors
/// When the file cannot be read now, or holds no credentials. Later it may: then the next try counts.
pub(crate) fn sign_in(path: &Path) -> io::Result<async_nats::ConnectOptions> {
    read(path)?;
    let path = PathBuf::from(path);
    Ok(async_nats::ConnectOptions::with_auth_callback(move |nonce| ready(answer(&path, &nonce))))
}

fn answer(path: &Path, nonce: &[u8]) -> Result<Auth, AuthError> {
    let (token, key) = read(path).map_err(AuthError::new)?;
    let mut auth = Auth::new();
    auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
    auth.jwt = Some(token);
    Ok(auth)
}

/// The user's token and the key that proves it.
fn read(path: &Path) -> io::Result<(String, KeyPair)> {
    parse(&std::fs::read_to_string(path)?)
}

/// Two decorated parts: the token, and the seed of the key.
fn parse(text: &str) -> io::Result<(String, KeyPair)> {
    let mut lines = text.lines().map(str::trim);
    let mut part = |what: &str| {
        let is_begin = |line: &str| line.starts_with("---") && line.contains("BEGIN") && line.contains(what);
        lines.by_ref().find(|line| is_begin(line))?;
        lines.by_ref().find(|line| !line.is_empty()).map(str::to_owned)
    };
    let unfit = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let token = part("JWT").ok_or_else(|| unfit("it holds no JWT"))?;
    let seed = part("SEED").ok_or_else(|| unfit("it holds no seed"))?;
    // The error may repeat what it was given.
    let key = KeyPair::from_seed(&seed).map_err(|_| unfit("its seed is malformed"))?;
    Ok((token, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_file_panics_and_no_error_repeats_it(
            parts in prop::collection::vec(
                prop::sample::select(vec!["-----BEGIN NATS USER JWT-----", "-----BEGIN USER NKEY SEED-----", "\n", "---", "SUhunter2"]),
                0..12,
            ),
            noise in any::<String>(),
        ) {
            for text in [parts.concat(), parts.join("\n"), noise] {
                let error = parse(&text).map(drop).unwrap_err().to_string();
                prop_assert!(error.starts_with("it") && !error.contains("hunter2"));
            }
        }
    }

    fn text(seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.c2ln\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn token_and_key_are_found_between_their_decorations() {
        let key = KeyPair::new_user();
        let (token, found) = parse(&text(&key.seed().unwrap())).unwrap();
        assert_eq!(token, "eyJ0.eyJq.c2ln");
        assert_eq!(found.public_key(), key.public_key());
    }

    #[test]
    fn what_is_renewed_in_the_file_counts_at_the_next_connection() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let used = || answer(file.path(), b"nonce").unwrap().signature;
        std::fs::write(&file, text(&KeyPair::new_user().seed().unwrap())).unwrap();
        let first = used();
        assert_eq!(used(), first);
        std::fs::write(&file, text(&KeyPair::new_user().seed().unwrap())).unwrap();
        assert_ne!(used(), first);
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused_without_a_word_of_it() {
        for wrong in ["", "SUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLM", &text("SUnonsense")] {
            let error = parse(wrong).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("SU"), "{error}");
        }
    }
}
