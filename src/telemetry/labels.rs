//! Metrics with a label. The label's values come from the code and never from a peer, so that a client cannot
//! create time series.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::RwLock;

use super::counter::Counter;
use super::source::{Kind, Metric, Point, Source};

/// An enum whose variants are the values of a label. Implemented with [`label!`].
pub trait Label {
    /// The name of each variant, in the order of [`Label::index`].
    const NAMES: &'static [&'static str];

    /// Returns the position of this variant in [`Label::NAMES`].
    fn index(&self) -> usize;

    /// Returns the name of this variant.
    fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// Implements [`Label`] for an enum: `label!(Direction { In = "in", Out = "out" })`. A missing variant is a
/// compile error. The fields of variants are ignored.
macro_rules! label {
    ($label:ty { $($variant:ident = $name:expr),+ $(,)? }) => {
        impl $crate::telemetry::Label for $label {
            const NAMES: &'static [&'static str] = &[$($name),+];

            fn index(&self) -> usize {
                enum Index { $($variant),+ }
                match self {
                    $(Self::$variant { .. } => Index::$variant as usize,)+
                }
            }
        }
    };
}
pub(crate) use label;

/// One metric for each value of a label. Looking one up costs no more than indexing an array.
pub struct By<L, M, const N: usize> {
    metrics: [M; N],
    label: PhantomData<fn(L)>,
}

impl<L: Label, M, const N: usize> By<L, M, N> {
    /// Creates the table from one metric for each name of the label.
    pub const fn new(metrics: [M; N]) -> Self {
        assert!(N == L::NAMES.len(), "one metric for each value of the label");
        Self { metrics, label: PhantomData }
    }

    /// Returns the metric of one value of the label.
    pub fn of(&self, label: impl Borrow<L>) -> &M {
        &self.metrics[label.borrow().index()]
    }

    /// Returns an iterator over the values of the label and their metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &M)> {
        L::NAMES.iter().copied().zip(&self.metrics)
    }
}

impl<L: Label, const N: usize> By<L, Counter, N> {
    /// Returns the sum over all values of the label.
    pub fn total(&self) -> u64 {
        self.metrics.iter().map(Counter::get).sum()
    }
}

impl<L: Label, M: Metric, const N: usize> Source for By<L, M, N> {
    fn kind(&self) -> Kind {
        M::KIND
    }

    fn points(&self) -> Vec<Point> {
        self.iter().map(|(label, metric)| Point { label: Some(label), value: metric.value() }).collect()
    }
}

impl<L: Label, M: fmt::Debug, const N: usize> fmt::Debug for By<L, M, N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// One metric for each name that the code registers, for example of an event. For names that are known
/// at compile time, use an enum and [`By`] instead.
#[derive(Debug, Default)]
pub struct Open<M>(RwLock<BTreeMap<&'static str, Arc<M>>>);

impl<M: Default> Open<M> {
    /// Creates an empty table.
    pub const fn new() -> Self {
        Self(RwLock::new(BTreeMap::new()))
    }

    /// Returns the metric of `label`. The lookup takes a lock, so hot paths should store the metric.
    pub fn child(&self, label: &'static str) -> Arc<M> {
        if let Some(child) = self.0.read().get(label) {
            return child.clone();
        }
        self.0.write().entry(label).or_default().clone()
    }
}

impl<M: Metric> Source for Open<M> {
    fn kind(&self) -> Kind {
        M::KIND
    }

    fn points(&self) -> Vec<Point> {
        let children = self.0.read();
        children.iter().map(|(label, child)| Point { label: Some(*label), value: child.value() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(dead_code, reason = "what a variant carries does not matter")]
    enum Answer {
        Plain,
        WithText(String),
    }
    label!(Answer { Plain = "plain", WithText = "with_text" });

    #[test]
    fn every_variant_has_a_metric_of_its_own_name() {
        let answers: By<Answer, Counter, 2> = By::new([const { Counter::new() }; 2]);
        answers.of(Answer::WithText("x".into())).add(2);
        answers.of(&Answer::Plain).increment();
        let shown: Vec<_> = answers.iter().map(|(name, counter)| (name, counter.get())).collect();
        assert_eq!(shown, [("plain", 1), ("with_text", 2)]);
        assert_eq!((answers.total(), Answer::WithText(String::new()).name()), (3, "with_text"));
    }

    #[test]
    fn an_open_label_has_one_metric_per_name() {
        let open: Open<Counter> = Open::new();
        open.child("a").increment();
        open.child("a").increment();
        assert_eq!(open.points().len(), 1);
        assert_eq!(open.child("a").get(), 2);
    }
}
