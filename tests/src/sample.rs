//! Durations measured, and what is said of them.

use std::time::Duration;

/// Durations of one kind of work.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Adds one.
    pub fn push(&mut self, duration: Duration) {
        let at = self.0.partition_point(|other| *other <= duration);
        self.0.insert(at, duration);
    }

    /// The duration that `percent` of a hundred do not exceed; zero of an empty sample.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// The median.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_an_element_of_the_sample() {
        let mut sample = Sample::default();
        for millis in [5, 1, 4, 2, 3] {
            sample.push(Duration::from_millis(millis));
        }
        assert_eq!(sample.median(), Duration::from_millis(3));
        assert_eq!(sample.percentile(99), Duration::from_millis(5));
        assert_eq!(Sample::default().median(), Duration::ZERO);
    }
}
