//! Cancel, deadline and budgets of one running query.
//!
//! The engine has no clock: whoever starts a query lends it a question "is it over?". It is asked every few
//! thousand samples, so a cancelled query stops well within 100 ms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{EvalError, Limits};

/// Shared with a running evaluation.
#[derive(Clone, Default)]
pub struct Control {
    cancel: Arc<AtomicBool>,
    expired: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Control {
    /// No deadline, not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a question that answers true once the deadline has passed.
    pub fn with_deadline(expired: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { expired: Some(Arc::new(expired)), ..Self::default() }
    }

    /// Asks the evaluation to stop.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// `Canceled` or `Timeout`.
    pub fn check(&self) -> Result<(), EvalError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(EvalError::Canceled);
        }
        if self.expired.as_ref().is_some_and(|f| f()) {
            return Err(EvalError::Timeout);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

/// Bytes that one resident sample is charged with.
const SAMPLE_BYTES: u64 = 16;

/// Counts what is resident and refuses more than the limits allow.
#[derive(Debug)]
pub struct Budget {
    samples: AtomicU64,
    /// Bytes of what is no sample, above all long label values.
    bytes: AtomicU64,
    peak: AtomicU64,
    samples_max: u64,
    bytes_max: u64,
}

impl Budget {
    /// From the limits of a query.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            samples: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            samples_max: limits.samples_max,
            bytes_max: limits.bytes_max,
        })
    }

    /// Takes `samples` until the charge is dropped.
    ///
    /// # Errors
    /// `TooManySamples` or `TooManyBytes`; nothing is taken then.
    pub fn charge(self: &Arc<Self>, samples: u64) -> Result<Charge, EvalError> {
        let mut charge = Charge { budget: self.clone(), samples: 0, bytes: 0 };
        charge.add(samples)?;
        Ok(charge)
    }

    /// Most samples resident at one time so far.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    samples: u64,
    bytes: u64,
}

impl Charge {
    /// Takes more.
    ///
    /// # Errors
    /// As `Budget::charge`.
    pub fn add(&mut self, samples: u64) -> Result<(), EvalError> {
        let now = self.budget.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        self.samples += samples;
        self.budget.peak.fetch_max(now, Ordering::Relaxed);
        if now > self.budget.samples_max {
            return Err(EvalError::TooManySamples);
        }
        self.weigh(now, self.budget.bytes.load(Ordering::Relaxed))
    }

    /// Takes bytes that are no samples.
    ///
    /// # Errors
    /// `TooManyBytes`.
    pub fn add_bytes(&mut self, bytes: u64) -> Result<(), EvalError> {
        let now = self.budget.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.bytes += bytes;
        self.weigh(self.budget.samples.load(Ordering::Relaxed), now)
    }

    fn weigh(&self, samples: u64, bytes: u64) -> Result<(), EvalError> {
        if samples.saturating_mul(SAMPLE_BYTES).saturating_add(bytes) > self.budget.bytes_max {
            return Err(EvalError::TooManyBytes(self.budget.bytes_max));
        }
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.samples.fetch_sub(self.samples, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_given_back() {
        let budget = Budget::new(&Limits { samples_max: 10, ..Limits::default() });
        let a = budget.charge(8).unwrap();
        assert_eq!(budget.charge(3).unwrap_err(), EvalError::TooManySamples);
        drop(a);
        assert!(budget.charge(10).is_ok());
        assert_eq!(budget.peak(), 11);
    }

    #[test]
    fn bytes_and_samples_share_one_bound() {
        let budget = Budget::new(&Limits { bytes_max: 1000, ..Limits::default() });
        let mut a = budget.charge(50).unwrap();
        assert!(a.add_bytes(200).is_ok());
        assert_eq!(a.add_bytes(1).unwrap_err(), EvalError::TooManyBytes(1000));
        drop(a);
        assert!(budget.charge(62).is_ok());
    }

    #[test]
    fn control_says_why() {
        let c = Control::with_deadline(|| true);
        assert_eq!(c.check(), Err(EvalError::Timeout));
        c.clone().cancel();
        assert_eq!(c.check(), Err(EvalError::Canceled));
    }
}
