//! Options of async-nats that are none of ours.

use std::sync::Arc;

use crate::config::{ConnectOptions, Custom};

type Function = Box<dyn Fn(async_nats::ConnectOptions) -> async_nats::ConnectOptions + Send + Sync>;

impl ConnectOptions {
    /// Has `function` change the options of the client underneath: a TLS configuration of your own, TLS before the
    /// server's first word, another callback for signing in. What the engine needs is set after it: events, reconnecting,
    /// the reply subjects, timeouts, and what other options say.
    ///
    /// ```
    /// use nats_consumer::ConnectOptions;
    ///
    /// let connect = ConnectOptions::to(["tls://a.example.com"]).customize(|client| client.tls_first());
    /// ```
    #[must_use]
    pub fn customize(
        mut self,
        function: impl Fn(async_nats::ConnectOptions) -> async_nats::ConnectOptions + Send + Sync + 'static,
    ) -> Self {
        let function: Function = Box::new(function);
        self.custom = Some(Custom(Arc::new(function)));
        self
    }
}

pub(super) fn customized(
    options: &ConnectOptions,
    client: async_nats::ConnectOptions,
) -> async_nats::ConnectOptions {
    match options.custom.as_ref().and_then(|custom| custom.0.downcast_ref::<Function>()) {
        Some(function) => function(client),
        None => client,
    }
}
