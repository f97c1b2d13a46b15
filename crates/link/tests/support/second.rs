//! A second process under the name of a node that lives.

use mainstay_base::Rng;

use super::{Configure, Nasty, Site, World, ms};

impl World {
    /// Starts another boot of the node of site `of`, as from another directory and at another address: the others dial
    /// the first one. Answers its place.
    fn start_second(&mut self, of: usize) -> usize {
        let site = self.boot(of, 100);
        self.sites.push(site);
        self.sites.len() - 1
    }

    /// The process takes no turn any more; its connections stand.
    fn stop(&mut self, index: usize) {
        self.sites[index].backlog = Some(Vec::new());
    }

    /// It goes on, with what came meanwhile.
    fn resume(&mut self, index: usize) {
        let backlog = self.sites[index].backlog.take().unwrap_or_default();
        for input in backlog {
            self.input(index, Some(input));
        }
    }

    /// Runs until it holds.
    fn await_that(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        for _ in 0..400 {
            self.run(ms(10));
            if let Some(violation) = &self.violation {
                return Err(violation.clone());
            }
            if holds(self) {
                return Ok(());
            }
        }
        Err(format!("{:?}: in vain: {what}", self.now))
    }

    /// Whether all others are connected with the boot at `index` and no other of its node, and it with them.
    fn is_in(&self, index: usize) -> bool {
        let boot = self.sites[index].boot;
        let link = &self.sites[index].link;
        self.sites.iter().filter(|site| site.boot.node != boot.node).all(
            |Site { boot: of, link: it, .. }| {
                it.boot(boot.node) == Some(boot)
                    && it.is_connected(boot.node)
                    && link.boot(of.node) == Some(*of)
                    && link.is_connected(of.node)
            },
        )
    }

    /// Whether it is turned away by both others, and connected with none.
    fn is_out(&self, index: usize) -> bool {
        let Site { boot, link, .. } = &self.sites[index];
        link.refused_by().count() == 2
            && self.ids.iter().all(|node| *node == boot.node || !link.is_connected(*node))
    }
}

/// Three nodes; beside one of them a second process starts under its name, and later the first one dies or stands still.
pub(crate) fn second(seed: u64, configure: Configure) -> Result<(), String> {
    let mut rng = Rng::new(seed).stream("second");
    let nasty = Nasty { loss: rng.below(30), delay_max_ms: 1 + rng.below(20), ..Nasty::default() };
    let mut world = World::new(seed, 3, nasty, configure);
    world.await_that("the first is in", |world| (0..3).all(|index| world.is_in(index)))?;
    let first = rng.below(3) as usize;
    let second = world.start_second(first);
    world.await_that("the second is turned away", |world| world.is_out(second))?;
    world.run(ms(rng.below(2_000)));
    world.await_that("the first is in still", |world| world.is_in(first))?;
    let crashes = rng.chance(1, 2);
    if crashes {
        world.crash(first);
    } else {
        world.stop(first);
    }
    world.await_that("the second takes the place", |world| world.is_in(second))?;
    if !crashes {
        let told = world.sites[first].generation;
        world.resume(first);
        world.await_that("MB-7: the first is told that it is dead", |world| {
            world.sites[first].generation > told
        })?;
        world.await_that("its next boot is turned away", |world| world.is_out(first))?;
        world.await_that("the second is in still", |world| world.is_in(second))?;
    }
    Ok(())
}
