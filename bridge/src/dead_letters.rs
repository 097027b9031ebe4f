//! Dead letters for the command line and the admin: plain blocking calls, the GIL released.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use nats_consumer::dead_letters::{delete, get};
use nats_consumer::replay::{replay, replay_many};
use nats_consumer::{
    Connection as Engine, DeadLetters as Open, Error, PublishAck, Selection, StoredLetter as Letter,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Mutex;

use crate::host::error::to_python;
use crate::host::future::wait_for;
use crate::host::process::Owned;
use crate::host::seconds::seconds;
use crate::options::ConnectOptions;

/// Time limit for the last messages when the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Mirror of `nats_consumer.dead_letters.Selection`.
#[derive(FromPyObject)]
pub(crate) struct SelectionOptions {
    consumer: Option<String>,
    reason: Option<String>,
    older_than: Option<f64>,
    newer_than: Option<f64>,
}

impl SelectionOptions {
    fn into_selection(self) -> PyResult<Selection> {
        let duration = |name, value: Option<f64>| value.map(|value| seconds(name, value)).transpose();
        let mut selection = Selection::default();
        selection.older_than = duration("older_than", self.older_than)?;
        selection.newer_than = duration("newer_than", self.newer_than)?;
        selection.consumer = self.consumer;
        selection.reason = self.reason;
        Ok(selection)
    }
}

/// A connection to the dead letters of a server.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct DeadLetters {
    engine: Owned<Engine>,
}

#[pymethods]
impl DeadLetters {
    #[new]
    fn new(py: Python<'_>, options: ConnectOptions) -> PyResult<Self> {
        let options = options.into_options()?;
        let engine = wait_for(py, async move { Engine::open(&options).await })?;
        Ok(Self { engine: Owned::new(engine) })
    }

    #[getter]
    fn server(&self) -> String {
        self.engine.peek().server()
    }

    /// An iterator of the selected ones that are there now, oldest or newest first.
    #[pyo3(signature = (stream, selection, newest_first=false))]
    fn select(
        &self,
        py: Python<'_>,
        stream: String,
        selection: SelectionOptions,
        newest_first: bool,
    ) -> PyResult<StoredLetters> {
        let selection = selection.into_selection()?;
        let open = self.wait(py, async move |engine| Open::open(&engine, &stream, selection).await)?;
        let open = if newest_first { open.newest_first() } else { open };
        Ok(StoredLetters { open: Owned::new(Arc::new(Mutex::new(open))) })
    }

    fn get(&self, py: Python<'_>, stream: String, number: u64) -> PyResult<Option<StoredLetter>> {
        let found = self.wait(py, async move |engine| get(&engine, &stream, number).await)?;
        Ok(found.map(|letter| StoredLetter { letter }))
    }

    /// Publishes the message again, then deletes the dead letter; the stream that took it, and its number.
    fn replay(&self, py: Python<'_>, letter: &StoredLetter) -> PyResult<(String, u64)> {
        let letter = letter.letter.clone();
        let ack = self.wait(py, async move |engine| replay(&engine, &letter).await)?;
        Ok((ack.stream, ack.sequence))
    }

    /// `replay` of each, in their order, without waiting for each: what it returns, or the error that it raises.
    fn replay_many(&self, py: Python<'_>, letters: Vec<PyRef<'_, StoredLetter>>) -> PyResult<Vec<Py<PyAny>>> {
        let letters = cloned(&letters);
        let answers = self.wait(py, async move |engine| replay_many(&engine, &letters).await)?;
        let answer = |answer: Result<PublishAck, Error>| match answer {
            Ok(ack) => (ack.stream, ack.sequence).into_py_any(py),
            Err(error) => Ok(to_python(&error).into_value(py).into_any()),
        };
        answers.into_iter().map(answer).collect()
    }

    fn delete(&self, py: Python<'_>, letter: &StoredLetter) -> PyResult<()> {
        let letter = letter.letter.clone();
        self.wait(py, async move |engine| delete(&engine, &letter).await)
    }

    /// `delete` of each, without waiting for each.
    fn delete_many(&self, py: Python<'_>, letters: Vec<PyRef<'_, StoredLetter>>) -> PyResult<()> {
        let letters = cloned(&letters);
        self.wait(py, async move |engine| {
            // One that fails does not stop the others.
            join_all(letters.iter().map(|letter| delete(&engine, letter))).await.into_iter().collect()
        })
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, async move |engine| {
            engine.close(CLOSE_TIMEOUT).await;
            Ok(())
        })
    }
}

impl DeadLetters {
    fn wait<T: Send + 'static, F>(&self, py: Python<'_>, work: impl FnOnce(Engine) -> F) -> PyResult<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        wait_for(py, work(self.engine.get()?.clone()))
    }
}

fn cloned(letters: &[PyRef<'_, StoredLetter>]) -> Vec<Letter> {
    letters.iter().map(|each| each.letter.clone()).collect()
}

/// The dead letters of one stream.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct StoredLetters {
    open: Owned<Arc<Mutex<Open>>>,
}

#[pymethods]
impl StoredLetters {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<StoredLetter>> {
        let open = self.open.get()?.clone();
        let next = wait_for(py, async move { open.lock().await.next().await })?;
        Ok(next.map(|letter| StoredLetter { letter }))
    }
}

/// A dead letter as it is stored.
#[pyclass(frozen, module = "nats_consumer._native")]
pub(crate) struct StoredLetter {
    pub(crate) letter: Letter,
}

#[pymethods]
impl StoredLetter {
    #[getter]
    fn kept_in(&self) -> &str {
        &self.letter.kept_in
    }

    #[getter]
    fn number(&self) -> u64 {
        self.letter.number
    }

    #[getter]
    fn stored(&self) -> SystemTime {
        self.letter.stored
    }

    #[getter]
    fn stream(&self) -> &str {
        &self.letter.stream
    }

    #[getter]
    fn sequence(&self) -> u64 {
        self.letter.sequence
    }

    #[getter]
    fn subject(&self) -> &str {
        &self.letter.subject
    }

    #[getter]
    fn consumer(&self) -> &str {
        &self.letter.consumer
    }

    #[getter]
    fn reason(&self) -> &str {
        &self.letter.reason
    }

    #[getter]
    fn error(&self) -> Option<&str> {
        self.letter.error.as_deref()
    }

    #[getter]
    fn deliveries(&self) -> u64 {
        self.letter.deliveries
    }

    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        self.letter.headers.clone()
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.letter.payload.as_ref().map(|payload| PyBytes::new(py, payload))
    }
}
