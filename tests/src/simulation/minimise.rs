//! Runs a scenario up to its first failure, and shortens a failing one.

use std::panic::{self, AssertUnwindSafe};

use super::cluster::Simulation;
use super::scenario::Scenario;
use super::trace::Trace;

impl Scenario {
    /// Runs the scenario.
    ///
    /// # Errors
    /// The text of the check that failed.
    pub fn run(&self, traced: bool) -> Result<Trace, String> {
        panic::catch_unwind(AssertUnwindSafe(|| Simulation::run(self, traced))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        })
    }

    /// A shorter scenario that fails too. Found by leaving operations out.
    #[must_use]
    pub fn minimised(mut self) -> Self {
        let mut chunk = self.ops.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            let mut is_shorter = false;
            while at < self.ops.len() {
                let mut ops = self.ops.clone();
                ops.drain(at..(at + chunk).min(ops.len()));
                let shorter = Self { policy: self.policy, ops };
                if shorter.run(false).is_err() {
                    self = shorter;
                    is_shorter = true;
                } else {
                    at += chunk;
                }
            }
            if !is_shorter || chunk > 1 {
                chunk /= 2;
            }
        }
        self
    }
}
