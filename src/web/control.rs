//! Control: what the program behind the listener can be asked to do. The listener itself knows neither plan nor engine.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::history::Board;

/// An answer that takes its time.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Refused>> + Send>>;

/// The program behind the listener.
pub trait Control: fmt::Debug + Send + Sync {
    /// The configuration in force, as it was read, without its secrets.
    fn config(&self) -> String;

    /// Reads the configuration again; the answer, a line for people, comes when it is in force.
    fn reload(&self) -> Pending<String>;

    /// Runs the recipe of a template against a target, and gives the board with its record.
    fn probe(&self, asked: Asked) -> Pending<Arc<Board>>;
}

/// What `/probe` is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The name of the check.
    pub check: String,
    /// The target, in the form of the check's kind.
    pub target: String,
    /// What is not done in this time is unproven.
    pub limit: Duration,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whose fault it is.
    pub whose: Fault,
    /// What is wrong and what to do, for people.
    pub why: String,
}

/// Whose fault it is that something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no such thing.
    Unknown,
    /// What was asked cannot be.
    Asked,
    /// It may not be.
    Forbidden,
    /// It is too much at present.
    TooMuch,
    /// Ours, or the configuration's.
    Ours,
}

impl Refused {
    /// A refusal with its words.
    pub fn new(whose: Fault, why: impl Into<String>) -> Refused {
        Refused { whose, why: why.into() }
    }
}
