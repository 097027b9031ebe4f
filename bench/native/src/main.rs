//! `bench-native VERB TASK`: the harness's publishers, and consuming without Python.
//!
//! TASK is the JSON that the contestants in Python get too. A consumer prints `ready`, waits for a
//! line, consumes until SIGTERM and prints a report.

mod consume;
mod engine;
mod publish;
mod task;
mod work;

use task::{BoxError, Task};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(verb), Some(task)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bench-native fill|pace|sequential|pipelined|consume|engine TASK".into());
    };
    let task: Task = serde_json::from_str(&task)?;
    match verb.as_str() {
        "fill" => publish::fill(&task).await,
        "pace" => publish::pace(&task).await,
        "sequential" => publish::sequential(&task).await,
        "pipelined" => publish::pipelined(&task).await,
        "consume" => consume::run(&task).await,
        "engine" => engine::run(&task).await,
        other => Err(format!("there is no verb {other}").into()),
    }
}
