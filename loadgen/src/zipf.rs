//! Which customer: the k-th of them with a chance in proportion to 1/k^s, as popularity is distributed.

/// The distribution, by its cumulated chances.
#[derive(Clone, Debug)]
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    /// Of so many, at least one.
    pub(crate) fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (1..=count.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        up_to.iter_mut().for_each(|part| *part /= sum);
        Self(up_to)
    }

    /// The index that belongs to a number from 0 to 1.
    pub(crate) fn draw(&self, number: f64) -> usize {
        let index = self.0.partition_point(|up_to| *up_to <= number);
        index.min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn counts(exponent: f64) -> Vec<u32> {
        let zipf = Zipf::new(1000, exponent);
        let mut random = StdRng::seed_from_u64(3);
        let mut counts = vec![0; 1000];
        for _ in 0..200_000 {
            counts[zipf.draw(random.random())] += 1;
        }
        counts
    }

    #[test]
    fn chances_fall_with_the_rank_by_the_exponent() {
        let counts = counts(1.0);
        // The harmonic number of 1000 is 7.485: the first has a share of 13.36%, the tenth a tenth of that.
        let share = |index: usize| f64::from(counts[index]) / 200_000.0;
        assert!((share(0) - 0.1336).abs() < 0.004, "{}", share(0));
        assert!((share(9) - 0.01336).abs() < 0.0015, "{}", share(9));
    }

    #[test]
    fn an_exponent_of_zero_draws_all_alike() {
        let counts = counts(0.0);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(
            least > Some(&130) && most < Some(&275),
            "{least:?} {most:?}"
        );
    }

    #[test]
    fn the_ends_are_inside() {
        let zipf = Zipf::new(3, 1.0);
        assert_eq!((zipf.draw(0.0), zipf.draw(1.0)), (0, 2));
    }
}
