//! A credentials file, read again for every connection: its contents expire and are renewed in place.

use std::io;
use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use crate::config::ConnectOptions;
use crate::connect::failure::unreadable;
use crate::error::Result;

/// The files of a user's token and of the seed that signs for it: one file, or two.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    token: PathBuf,
    seed: Option<PathBuf>,
}

impl Credentials {
    /// Returns the credentials that the options name, if they name a file.
    ///
    /// # Errors
    /// When a file cannot be read now, or holds no credentials. Later it may: then the next try counts.
    pub(crate) fn of(options: &ConnectOptions) -> Result<Option<Self>> {
        let Some(path) = &options.credentials else { return Ok(None) };
        let credentials = Self { token: path.clone(), seed: options.credentials_seed.clone() };
        credentials.read().map_err(|(path, error)| unreadable("The credentials file", path, error))?;
        Ok(Some(credentials))
    }

    /// The answer to a server that sent this nonce.
    pub(crate) fn answer(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let (token, key) = self.read().map_err(|(_, error)| AuthError::new(error))?;
        let mut auth = Auth::new();
        auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
        auth.jwt = Some(token);
        Ok(auth)
    }

    /// The user's token and the key that proves it; the path of the file that is at fault.
    fn read(&self) -> Result<(String, KeyPair), (&Path, io::Error)> {
        let text = read_file(&self.token)?;
        let Some(path) = &self.seed else { return parse(&text).map_err(|error| (&*self.token, error)) };
        let seed = read_file(path)?;
        let seed = part(&mut lines(&seed), "SEED").unwrap_or_else(|| seed.trim().to_owned());
        let token = part(&mut lines(&text), "JWT").unwrap_or_else(|| text.trim().to_owned());
        Ok((token, key(&seed).map_err(|error| (&**path, error))?))
    }
}

fn read_file(path: &Path) -> Result<String, (&Path, io::Error)> {
    std::fs::read_to_string(path).map_err(|error| (path, error))
}

/// Two decorated parts: the token, and the seed of the key.
fn parse(text: &str) -> io::Result<(String, KeyPair)> {
    let mut lines = lines(text);
    let token = part(&mut lines, "JWT").ok_or_else(|| unfit("it holds no JWT"))?;
    let seed = part(&mut lines, "SEED").ok_or_else(|| unfit("it holds no seed"))?;
    Ok((token, key(&seed)?))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim)
}

/// The line below the one that begins the part.
fn part<'a>(lines: &mut impl Iterator<Item = &'a str>, what: &str) -> Option<String> {
    let is_begin = |line: &str| line.starts_with("---") && line.contains("BEGIN") && line.contains(what);
    lines.find(|line| is_begin(line))?;
    lines.find(|line| !line.is_empty()).map(str::to_owned)
}

fn key(seed: &str) -> io::Result<KeyPair> {
    // The error may repeat what it was given.
    KeyPair::from_seed(seed).map_err(|_| unfit("its seed is malformed"))
}

fn unfit(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
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
        let credentials = Credentials { token: file.path().into(), seed: None };
        let used = || credentials.answer(b"nonce").unwrap().signature;
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

    #[test]
    fn token_and_seed_are_found_in_a_file_each_with_or_without_decorations() {
        let (token, seed) =
            (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let key = KeyPair::new_user();
        let whole = text(&key.seed().unwrap());
        for (of_token, of_seed) in
            [("eyJ0.eyJq.c2ln\n", key.seed().unwrap() + "\n"), (&*whole, whole.clone())]
        {
            std::fs::write(&token, of_token).unwrap();
            std::fs::write(&seed, of_seed).unwrap();
            let credentials = Credentials { token: token.path().into(), seed: Some(seed.path().into()) };
            let (found, proof) = credentials.read().unwrap();
            assert_eq!((found.as_str(), proof.public_key()), ("eyJ0.eyJq.c2ln", key.public_key()));
        }
    }
}
