//! A page of metrics under construction: one family after the other, each with all its
//! series. A family without any is left out.

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// See the module's page.
pub(super) struct Page {
    registry: Registry,
}

impl Page {
    pub(super) fn new() -> Self {
        Self {
            registry: Registry::default(),
        }
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.gauges(name, help, None, [(vec![], value as f64)]);
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        if !family.is_empty() {
            self.register(name, help, unit, family);
        }
    }

    /// A counter without labels; its name is given without `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: u64) {
        self.counters(name, help, unit, [(vec![], value)]);
    }

    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        if !family.is_empty() {
            self.register(name, help, unit, family);
        }
    }

    /// A counter of seconds, which has fractions.
    pub(super) fn seconds(&mut self, name: &str, help: &str, secs: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(secs);
        self.register(name, help, Some(Unit::Seconds), counter);
    }

    pub(super) fn info(&mut self, name: &str, help: &str, labels: Labels) {
        self.register(name, help, None, Info::new(labels));
    }

    fn register(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        metric: impl prometheus_client::registry::Metric,
    ) {
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
            None => self.registry.register(name, help, metric),
        }
    }

    pub(super) fn finish(self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}
