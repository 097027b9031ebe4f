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
    pub(crate) fn new(events: Option<Receiver<ConnectionEvent>>) -> Self {
        Self(events)
    }

    /// Waits until this permission is denied for one of the subjects; forever if the connection is closed.
    pub(crate) async fn about(&mut self, permission: Permission, subjects: &[&str]) -> Denial {
        let Some(events) = &mut self.0 else { return std::future::pending().await };
        loop {
            match events.recv().await.map(|event| read(&event)) {
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
    pub(crate) async fn any(&mut self) -> Denial {
        let Some(events) = &mut self.0 else { return std::future::pending().await };
        loop {
            match events.recv().await.map(|event| read(&event)) {
                Ok(Some(denial)) => return denial,
                Err(RecvError::Closed) => return std::future::pending().await,
                Ok(None) | Err(RecvError::Lagged(_)) => {}
            }
        }
    }

    /// All that were heard of until now and not asked for before.
    pub(crate) fn so_far(&mut self) -> HashSet<Denial> {
        let mut denials = HashSet::new();
        let Some(events) = &mut self.0 else { return denials };
        loop {
            match events.try_recv() {
                Ok(event) => denials.extend(read(&event)),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return denials,
            }
        }
    }
}

fn read(event: &ConnectionEvent) -> Option<Denial> {
    match event {
        ConnectionEvent::Error(text) => Denial::read(text),
        _ => None,
    }
}
