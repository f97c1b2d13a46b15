//! The tree behind maps: a hash trie whose nodes are shared with snapshots and copied one by one when written.
//!
//! The first bits of a key's hash say the way from the root, four a level; a leaf holds a few dozen items. A write
//! behind a snapshot copies the nodes on its way and nothing else, whatever the number of keys. Items go out by
//! ascending hash, then key: the order follows from the contents alone, however the nodes are cut.

use std::cmp::Ordering;
use std::hash::Hasher as _;
use std::sync::Arc;

use mainstay_base::Fingerprinter;

/// Bits of the hash that a branch looks at.
const BITS: u32 = 4;
/// Children of a branch.
const WIDTH: usize = 1 << BITS;
/// Most items of a leaf, unless all bits of their hashes are equal. More copy longer, fewer take more memory.
const LEAF_ITEMS: usize = 64;

/// What the allocation of a node counts as work, in nominal nanoseconds.
const NODE_WORK: u64 = 50;
/// What an item or a pointer counts that is copied since a snapshot has the node, in nominal nanoseconds: in a large state its
/// count of references is in no cache.
const COPY_WORK: u64 = 80;

/// What a [`Trie`] holds: a key with whatever belongs to it. Its clone is cheap: a pointer or two.
pub trait Item: Clone {
    /// What it is found by.
    type Key: Ord + ?Sized;

    /// The hash of its key, as [`hash_of`] or another function of the key alone gives it. It must be the same on all sites.
    fn hash(&self) -> u64;

    /// Its key.
    fn key(&self) -> &Self::Key;
}

fn order<T: Item>(item: &T, hash: u64, key: &T::Key) -> Ordering {
    item.hash().cmp(&hash).then_with(|| item.key().cmp(key))
}

/// The hash of a key's bytes: the same on all sites.
#[must_use]
pub fn hash_of(key: &[u8]) -> u64 {
    let mut hasher = Fingerprinter::new();
    hasher.write(key);
    hasher.finish()
}

type Leaf<T> = Arc<Vec<T>>;

#[derive(Clone)]
enum Node<T> {
    Leaf(Leaf<T>),
    Branch(Arc<Branch<T>>),
}

/// It has more items below than half a leaf: with fewer it becomes a leaf again.
#[derive(Clone)]
struct Branch<T> {
    len: usize,
    children: [Option<Node<T>>; WIDTH],
}

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Self { len: 0, children: Default::default() }
    }
}

/// Items by their keys. Its clone shares all nodes and is made in O(1).
#[derive(Clone)]
pub struct Trie<T, const LEAF_MAX: usize = LEAF_ITEMS> {
    root: Option<Node<T>>,
    work: u64,
}

impl<T: Item, const LEAF_MAX: usize> Default for Trie<T, LEAF_MAX> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Item, const LEAF_MAX: usize> Trie<T, LEAF_MAX> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: None, work: 0 }
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.root.as_ref().map_or(0, Node::len)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Nominal nanoseconds of copies and allocations since it was made; a clone starts from its original's.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work
    }

    /// The item of `key`, whose hash is `hash`.
    #[must_use]
    pub fn get(&self, hash: u64, key: &T::Key) -> Option<&T> {
        let (mut node, mut depth) = (self.root.as_ref()?, 0);
        loop {
            match node {
                Node::Leaf(items) => {
                    return find(items, hash, key).ok().map(|index| &items[index]);
                }
                Node::Branch(branch) => node = branch.children[child(hash, depth)].as_ref()?,
            }
            depth += 1;
        }
    }

    /// Puts an item in the place of the one with its key, which comes back.
    pub fn insert(&mut self, item: T) -> Option<T> {
        self.work += NODE_WORK;
        insert::<T, LEAF_MAX>(&mut self.root, item, 0, &mut self.work)
    }

    /// Takes the item of `key` out, whose hash is `hash`.
    pub fn remove(&mut self, hash: u64, key: &T::Key) -> Option<T> {
        // Without such a key nothing is copied.
        self.get(hash, key)?;
        remove::<T, LEAF_MAX>(&mut self.root, hash, key, 0, &mut self.work)
    }

    /// The items by ascending hash, then key, to be read.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { nodes: self.root.iter().collect(), leaf: [].iter() }
    }

    /// The items by ascending hash, then key.
    #[must_use]
    pub fn into_items(self) -> Items<T> {
        Items { nodes: self.root.into_iter().collect(), leaf: None }
    }
}

impl<'a, T: Item, const LEAF_MAX: usize> IntoIterator for &'a Trie<T, LEAF_MAX> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Node<T> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Branch(branch) => branch.len,
        }
    }
}

/// Puts the item below `place`; answers the one that was there with its key.
fn insert<T: Item, const LEAF_MAX: usize>(
    place: &mut Option<Node<T>>,
    item: T,
    depth: u32,
    work: &mut u64,
) -> Option<T> {
    let Some(node) = place else {
        *work += NODE_WORK;
        *place = Some(Node::Leaf(Arc::new(vec![item])));
        return None;
    };
    let items = match node {
        Node::Branch(branch) => {
            let branch = own(branch, WIDTH, work);
            let place = &mut branch.children[child(item.hash(), depth)];
            let old = insert::<T, LEAF_MAX>(place, item, depth + 1, work);
            branch.len += usize::from(old.is_none());
            return old;
        }
        Node::Leaf(items) => items,
    };
    let count = items.len();
    let items = own(items, count, work);
    match find(items, item.hash(), item.key()) {
        Ok(index) => Some(std::mem::replace(&mut items[index], item)),
        Err(index) => {
            items.insert(index, item);
            if items.len() > LEAF_MAX && depth * BITS < u64::BITS {
                let items = std::mem::take(items);
                *node = Node::Branch(Arc::new(split::<T, LEAF_MAX>(items, depth, work)));
            }
            None
        }
    }
}

/// A branch of the items of a leaf that is too large.
fn split<T: Item, const LEAF_MAX: usize>(items: Vec<T>, depth: u32, work: &mut u64) -> Branch<T> {
    *work += NODE_WORK + COPY_WORK * items.len() as u64;
    let mut branch = Branch { len: items.len(), ..Branch::default() };
    let mut leaves: [Vec<T>; WIDTH] = Default::default();
    for item in items {
        leaves[child(item.hash(), depth)].push(item);
    }
    for (place, items) in branch.children.iter_mut().zip(leaves) {
        if items.is_empty() {
            continue;
        }
        *work += NODE_WORK;
        *place = Some(if items.len() > LEAF_MAX && (depth + 1) * BITS < u64::BITS {
            Node::Branch(Arc::new(split::<T, LEAF_MAX>(items, depth + 1, work)))
        } else {
            Node::Leaf(Arc::new(items))
        });
    }
    branch
}

/// Takes the item of `key` out below `place`, and the nodes that are needed no more.
fn remove<T: Item, const LEAF_MAX: usize>(
    place: &mut Option<Node<T>>,
    hash: u64,
    key: &T::Key,
    depth: u32,
    work: &mut u64,
) -> Option<T> {
    match place.as_mut()? {
        Node::Leaf(items) => {
            let index = find(items, hash, key).ok()?;
            let count = items.len();
            let item = own(items, count, work).remove(index);
            if count == 1 {
                *place = None;
            }
            Some(item)
        }
        Node::Branch(branch) => {
            let branch = own(branch, WIDTH, work);
            let below = &mut branch.children[child(hash, depth)];
            let item = remove::<T, LEAF_MAX>(below, hash, key, depth + 1, work)?;
            branch.len -= 1;
            // Half a leaf: what is put and taken in turn does not split and join each time.
            if branch.len <= LEAF_MAX / 2 {
                *work += NODE_WORK + COPY_WORK * branch.len as u64;
                let mut items = Vec::with_capacity(branch.len);
                items.extend(Items { nodes: below_in_order(std::mem::take(branch)), leaf: None });
                *place = Some(Node::Leaf(Arc::new(items)));
            }
            Some(item)
        }
    }
}

/// The node's contents, copied first if a snapshot has them, too; they are `count` items or pointers.
fn own<'a, N: Clone>(node: &'a mut Arc<N>, count: usize, work: &mut u64) -> &'a mut N {
    if Arc::strong_count(node) > 1 {
        *work += NODE_WORK + COPY_WORK * count as u64;
    }
    Arc::make_mut(node)
}

/// Where the item is in a leaf, or where it would have to be.
fn find<T: Item>(items: &[T], hash: u64, key: &T::Key) -> Result<usize, usize> {
    items.binary_search_by(|item| order(item, hash, key))
}

/// Which child of a branch at `depth` has a hash; the highest bits come first.
fn child(hash: u64, depth: u32) -> usize {
    (hash >> (u64::BITS - BITS * (depth + 1))) as usize % WIDTH
}

/// The children of a branch, the first one last.
fn below_in_order<T>(branch: Branch<T>) -> Vec<Node<T>> {
    branch.children.into_iter().rev().flatten().collect()
}

/// The items of a map on their way out. It lets go of the nodes that it has passed: they are freed as soon as the map
/// has others in their place.
pub struct Items<T> {
    /// What is still to come, the next one last: at most fifteen nodes a level.
    nodes: Vec<Node<T>>,
    leaf: Option<(Leaf<T>, usize)>,
}

impl<T: Clone> Iterator for Items<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            if let Some((items, at)) = &mut self.leaf {
                if let Some(item) = items.get(*at) {
                    *at += 1;
                    return Some(item.clone());
                }
                self.leaf = None;
            }
            match self.nodes.pop()? {
                Node::Leaf(items) => self.leaf = Some((items, 0)),
                // A branch would keep all its children alive: take its own pointers to them.
                Node::Branch(branch) => {
                    self.nodes.extend(below_in_order(Arc::unwrap_or_clone(branch)));
                }
            }
        }
    }
}

/// The items of a [`Trie`], to be read.
pub struct Iter<'a, T> {
    /// What is still to come, the next one last.
    nodes: Vec<&'a Node<T>>,
    leaf: std::slice::Iter<'a, T>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(item) = self.leaf.next() {
                return Some(item);
            }
            match self.nodes.pop()? {
                Node::Leaf(items) => self.leaf = items.iter(),
                Node::Branch(branch) => self.nodes.extend(branch.children.iter().rev().flatten()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Weak;

    use mainstay_base::Rng;
    use proptest::prelude::*;

    use super::*;

    /// Two bytes or eight as key, and a value behind it.
    #[derive(Clone)]
    struct Pair {
        hash: u64,
        pair: Arc<(Vec<u8>, u64)>,
    }

    impl Pair {
        fn new(key: &[u8], value: u64) -> Self {
            Self { hash: hash_of(key), pair: Arc::new((key.to_vec(), value)) }
        }
    }

    impl Item for Pair {
        type Key = [u8];

        fn hash(&self) -> u64 {
            self.hash
        }

        fn key(&self) -> &[u8] {
            &self.pair.0
        }
    }

    type Map<const LEAF_MAX: usize> = Trie<Pair, LEAF_MAX>;

    /// More than one write may count as work, in nominal nanoseconds.
    const WRITE_WORK_MAX: u64 = 20_000;

    /// Writes `keys` random keys, some of them away again, while snapshots are taken and dropped at random times; the
    /// work of the most expensive write.
    fn worst_write<const LEAF_MAX: usize>(keys: u64, seed: u64) -> u64 {
        let (mut map, mut rng) = (Map::<LEAF_MAX>::new(), Rng::new(seed));
        let mut snapshots = Vec::new();
        let mut worst = 0;
        for number in 0..keys + keys / 4 {
            if rng.chance(1, 1_000) {
                snapshots.truncate(rng.below(3) as usize);
                snapshots.push(map.clone());
            }
            let before = map.work();
            if number < keys || rng.chance(1, 2) {
                map.insert(Pair::new(&number.to_le_bytes(), 0));
            } else {
                let key = rng.below(keys).to_le_bytes();
                map.remove(hash_of(&key), &key);
            }
            worst = worst.max(map.work() - before);
        }
        worst
    }

    /// A write behind a snapshot copies a bounded number of items, however many there are; a map whose leaves grow
    /// without bound is found out.
    #[test]
    fn a_write_never_costs_more_than_a_constant() {
        for seed in 0..3 {
            let worst = worst_write::<LEAF_ITEMS>(200_000, seed);
            assert!((1_000..WRITE_WORK_MAX).contains(&worst), "seed {seed}: {worst}");
        }
        assert!(worst_write::<{ usize::MAX }>(5_000, 0) > WRITE_WORK_MAX);
    }

    fn nodes(place: Option<&Node<Pair>>) -> usize {
        match place {
            None => 0,
            Some(Node::Leaf(_)) => 1,
            Some(Node::Branch(branch)) => {
                1 + branch.children.iter().map(|child| nodes(child.as_ref())).sum::<usize>()
            }
        }
    }

    /// What is taken out takes its nodes with it: at no time are there many more nodes than the items need.
    #[test]
    fn nodes_go_with_their_items() {
        let mut map = Map::<LEAF_ITEMS>::new();
        for number in 0..20_000_u64 {
            map.insert(Pair::new(&number.to_le_bytes(), 0));
        }
        assert!(nodes(map.root.as_ref()) > 500);
        for number in 0..20_000_u64 {
            let key = number.to_le_bytes();
            map.remove(hash_of(&key), &key).unwrap();
            let (len, nodes) = (map.len(), nodes(map.root.as_ref()));
            if number % 100 == 0 || len < 200 {
                assert!(nodes <= 1 + len, "{nodes} nodes for {len} items");
                assert!(len > LEAF_ITEMS / 2 || nodes <= 1, "{nodes} nodes for {len} items");
            }
        }
        assert!(map.root.is_none());
    }

    /// A snapshot that is read lets go of what it has given out, but for the leaf that it stands in.
    #[test]
    fn what_was_given_out_is_let_go() {
        let mut map = Map::<LEAF_ITEMS>::new();
        for number in 0..10_000_u64 {
            map.insert(Pair::new(&number.to_le_bytes(), 0));
        }
        let mut items = map.clone().into_items();
        drop(map);
        let mut given: Vec<Weak<(Vec<u8>, u64)>> = Vec::new();
        while let Some(item) = items.next() {
            given.push(Arc::downgrade(&item.pair));
            drop(item);
            let alive = given.iter().rev().take_while(|pair| pair.strong_count() > 0).count();
            assert!(alive <= LEAF_ITEMS);
            assert!(items.nodes.len() < 16 * 8, "a small stack");
        }
        assert_eq!(given.len(), 10_000);
        assert!(given.iter().all(|pair| pair.strong_count() == 0));
    }

    /// Keys with hashes of the test's choice: many that differ late or not at all.
    fn operations() -> impl Strategy<Value = Vec<(bool, u64, u16)>> {
        let hash = prop_oneof![
            Just(7),
            (0..40_u64).prop_map(|low| 0xabcd_0000_0000_0000 | low),
            any::<u64>().prop_map(|hash| hash & 0xff0f_0000_0000_000f),
        ];
        prop::collection::vec((prop::bool::weighted(0.7), hash, 0..4_u16), 0..600)
    }

    proptest! {
        /// Checks MB-80. It is a map, its order follows from its contents, and clones stand still; with leaves of four
        /// items, so that nodes are split and joined all the time.
        #[test]
        fn it_is_a_map_whose_order_follows_from_its_contents(all in operations(), seed: u64) {
            let (mut map, mut model) = (Map::<4>::new(), BTreeMap::new());
            let (mut rng, mut frozen) = (Rng::new(seed), Vec::new());
            for (number, (put, hash, key)) in all.into_iter().enumerate() {
                let key = key.to_be_bytes();
                if rng.chance(1, 8) {
                    frozen.push((map.clone(), model.clone()));
                }
                if put {
                    map.insert(Pair { hash, ..Pair::new(&key, number as u64) });
                    model.insert((hash, key), number as u64);
                } else {
                    let gone = map.remove(hash, &key).map(|item| item.pair.1);
                    prop_assert_eq!(gone, model.remove(&(hash, key)));
                }
                prop_assert_eq!(map.len(), model.len());
            }
            frozen.push((map, model));
            for (map, model) in frozen {
                for ((hash, key), number) in &model {
                    prop_assert_eq!(map.get(*hash, key).unwrap().pair.1, *number);
                }
                let pair = |item: &Pair| ((item.hash, <[u8; 2]>::try_from(item.key()).unwrap()), item.pair.1);
                let read: Vec<_> = map.iter().map(pair).collect();
                let items: Vec<_> = map.into_items().map(|item| pair(&item)).collect();
                let wanted: Vec<_> = model.into_iter().collect();
                prop_assert_eq!(&read, &wanted);
                prop_assert_eq!(items, wanted);
            }
        }
    }
}
