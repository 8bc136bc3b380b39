//! The operator: does what the web listener is asked to do.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::watcher::Order;
use crate::history::Board;
use crate::web::control::{Asked, Control, Fault, Pending, Refused};

/// The program behind the web listener.
#[derive(Debug)]
pub struct Operator {
    orders: mpsc::Sender<Order>,
    shown: Arc<RwLock<String>>,
}

impl Operator {
    /// One that passes orders on to the watcher, and shows the configuration in force.
    pub fn new(orders: mpsc::Sender<Order>, shown: Arc<RwLock<String>>) -> Operator {
        Operator { orders, shown }
    }
}

impl Control for Operator {
    fn config(&self) -> String {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reload(&self) -> Pending<String> {
        let orders = self.orders.clone();
        Box::pin(async move {
            let (order, done) = oneshot::channel();
            let full =
                |_| Refused::new(Fault::TooMuch, "many reloads wait already, and one of them will read what is there now; ask again later");
            orders.try_send(order).map_err(full)?;
            match done.await {
                Ok(Ok(told)) => Ok(told),
                Ok(Err(why)) => Err(Refused::new(Fault::Ours, format!("not reloaded, all stays as it was:\n{why}"))),
                Err(_) => Err(Refused::new(Fault::Ours, "not reloaded: this monitor is about to end")),
            }
        })
    }

    fn probe(&self, _asked: Asked) -> Pending<Arc<Board>> {
        Box::pin(async { Err(Refused::new(Fault::Unknown, "there is no template")) })
    }
}
