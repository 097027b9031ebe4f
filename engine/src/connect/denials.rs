//! Hears what the server denies while somebody waits for its answer.

use std::collections::HashSet;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::connect::denial::{Denial, Permission};
use crate::connect::link::ConnectionEvent;

/// Hears what the server denies, from when it was made.
#[derive(Debug)]
pub(crate) struct Denials(Option<Receiver<ConnectionEvent>>);

impl Denials {
    pub(crate) fn new(happenings: Option<Receiver<ConnectionEvent>>) -> Self {
        Self(happenings)
    }

    /// Waits until this permission is denied for one of the subjects; forever if the connection is closed.
    pub(crate) async fn about(&mut self, permission: Permission, subjects: &[&str]) -> Denial {
        let Some(happenings) = &mut self.0 else { return std::future::pending().await };
        loop {
            match happenings.recv().await.map(|happening| read(&happening)) {
                Ok(Some(denial))
                    if denial.permission == permission && subjects.contains(&denial.subject.as_str()) =>
                {
                    return denial;
                }
                Err(RecvError::Closed) => return std::future::pending().await,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
            }
        }
    }

    /// Waits until something is denied; forever if the connection is closed.
    pub(crate) async fn any(&mut self) {
        let Some(happenings) = &mut self.0 else { return std::future::pending().await };
        loop {
            match happenings.recv().await.map(|happening| read(&happening)) {
                Ok(Some(_)) => return,
                Err(RecvError::Closed) => return std::future::pending().await,
                Ok(None) | Err(RecvError::Lagged(_)) => {}
            }
        }
    }

    /// All that were heard of until now and not asked for before.
    pub(crate) fn so_far(&mut self) -> HashSet<Denial> {
        let mut denials = HashSet::new();
        let Some(happenings) = &mut self.0 else { return denials };
        loop {
            match happenings.try_recv() {
                Ok(happening) => denials.extend(read(&happening)),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return denials,
            }
        }
    }
}

fn read(happening: &ConnectionEvent) -> Option<Denial> {
    match happening {
        ConnectionEvent::Error(text) => Denial::read(text),
        _ => None,
    }
}
