//! Billing: what an order is, what may fail, and what becomes of the message then.

use std::sync::Arc;
use std::time::Duration;

use nats_consumer::{Context, HandlerError, Json, Outcome, Outgoing, Publisher, State};
use serde::{Deserialize, Serialize};

/// State of the handlers.
pub(crate) struct Shop {
    /// None in tests.
    pub(crate) publisher: Option<Publisher>,
}

#[derive(Deserialize)]
pub(crate) struct Order {
    id: u64,
    amount: u64,
}

#[derive(Serialize)]
struct Invoice {
    order: u64,
    amount: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BillError {
    #[error("order {0} has no amount")]
    NoAmount(u64),
    #[error("the bank is busy")]
    BankIsBusy,
}

/// Decides about a message that could not be billed; other errors are left to the retry policy.
pub(crate) fn classify(error: &HandlerError) -> Option<Outcome> {
    match error.downcast_ref()? {
        BillError::NoAmount(_) => Some(Outcome::DeadLetter { reason: error.to_string() }),
        BillError::BankIsBusy => Some(Outcome::Retry { after: Some(Duration::from_secs(60)) }),
    }
}

pub(crate) async fn bill(
    State(shop): State<Arc<Shop>>,
    Json(order): Json<Order>,
    context: Context,
) -> Result<(), HandlerError> {
    let invoice = charge(&order)?;
    println!("order {}: {} (attempt {})", invoice.order, invoice.amount, context.attempt());
    if let Some(publisher) = &shop.publisher {
        // The stream stores one message with this id, however often the order is delivered.
        let id = format!("invoice-{}", invoice.order);
        let outgoing = Outgoing::json(&format!("invoices.{}", invoice.order), &invoice)?.id(&id)?;
        publisher.publish(outgoing, None).await?;
    }
    Ok(())
}

fn charge(order: &Order) -> Result<Invoice, BillError> {
    match order.amount {
        0 => Err(BillError::NoAmount(order.id)),
        1_000_000.. => Err(BillError::BankIsBusy),
        amount => Ok(Invoice { order: order.id, amount }),
    }
}
