//! Histories: runs them, and makes a failing one as short as it gets.

use super::coverage::Coverage;
use super::world::{World, WorldSettings};
use crate::random::Random;

/// A history of a world. The same history always goes the same way.
#[derive(Debug, Clone)]
pub struct History {
    /// Draws the world.
    pub world: u64,
    /// One for each step.
    pub steps: Vec<u64>,
}

/// What did not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The history that ends with it.
    pub history: History,
    /// What did not hold.
    pub what: String,
}

impl History {
    /// The most steps that a history from bytes has.
    pub const MAX_STEPS: usize = 600;

    /// The history of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (world, steps) = (random.bits(), 100 + random.below(500));
        Self { world, steps: (0..steps).map(|_| random.bits()).collect() }
    }

    /// The history that these bytes describe: eight draw the world, and each two after them are a step. Steps
    /// beyond [`History::MAX_STEPS`] do not count.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (world, steps) = bytes.split_at(bytes.len().min(8));
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        Self { world: number(world), steps: steps.chunks(2).take(Self::MAX_STEPS).map(number).collect() }
    }

    /// Runs the history, then lets the world come to rest.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn run(&self) -> Result<Coverage, Violation> {
        self.go(false)
    }

    /// As [`History::run`], and prints everything that happens.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn print(&self) -> Result<Coverage, Violation> {
        self.go(true)
    }

    fn go(&self, prints: bool) -> Result<Coverage, Violation> {
        let mut random = Random::new(self.world);
        let settings = WorldSettings::random(&mut random);
        let mut world = World::new(settings, &mut random);
        world.prints = prints;
        for (index, bits) in self.steps.iter().enumerate() {
            if let Err(what) = world.step(*bits) {
                let history = Self { world: self.world, steps: self.steps[..=index].to_vec() };
                return Err(Violation { history, what });
            }
        }
        match world.settle() {
            Ok(()) => Ok(world.coverage),
            Err(what) => Err(Violation { history: self.clone(), what }),
        }
    }
}

impl Violation {
    /// A history in which the same kind of thing does not hold, and no step can be left out.
    #[must_use]
    pub fn minimised(self) -> Self {
        let kind = |what: &str| what.split(':').next().map(str::to_owned);
        let wanted = kind(&self.what);
        let mut best = self;
        let mut size = best.history.steps.len().div_ceil(2);
        loop {
            let mut at = 0;
            let before = best.history.steps.len();
            while at < best.history.steps.len() {
                let mut shorter = best.history.clone();
                shorter.steps.drain(at..(at + size).min(shorter.steps.len()));
                match shorter.run() {
                    Err(found) if kind(&found.what) == wanted => best = found,
                    _ => at += size,
                }
            }
            if size == 1 && best.history.steps.len() == before {
                return best;
            }
            size = size.div_ceil(2).max(1);
        }
    }
}
