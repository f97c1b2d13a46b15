//! The map behind the directory: a hash trie whose nodes are shared with snapshots and copied one by one when written.
//!
//! The first bits of a key's hash say the way from the root, four a level; a leaf holds a few dozen items. A write
//! behind a snapshot copies the nodes on its way and nothing else, whatever the number of keys. Items go out by
//! ascending hash, then key: the order follows from the contents alone, however the nodes are cut.

use std::cmp::Ordering;
use std::hash::Hasher as _;
use std::iter::repeat_n;
use std::sync::Arc;

use bytes::Bytes;
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

/// A key with its value, and its share in the sum of hashes, kept so that an old value need not be read again.
#[derive(Clone)]
pub(crate) struct Item {
    hash: u64,
    key_len: u32,
    share: u128,
    /// The key and the value behind it.
    pair: Arc<[u8]>,
}

impl Item {
    /// # Panics
    /// If the key is 4 GiB or longer; the directory takes none of more than 512 KiB.
    pub(crate) fn new(key: &[u8], value: &[u8], share: u128) -> Self {
        let mut pair: Arc<[u8]> = repeat_n(0, key.len() + value.len()).collect();
        let bytes = Arc::get_mut(&mut pair).expect("nobody else has it yet");
        bytes[..key.len()].copy_from_slice(key);
        bytes[key.len()..].copy_from_slice(value);
        let key_len = u32::try_from(key.len()).expect("a key is less than 4 GiB long");
        Self { hash: key_hash(key), key_len, share, pair }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.pair[..self.key_len as usize]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.pair[self.key_len as usize..]
    }

    pub(crate) fn share(&self) -> u128 {
        self.share
    }

    /// The key and the value behind it.
    pub(crate) fn pair(&self) -> &[u8] {
        &self.pair
    }

    /// The value without a copy: it keeps the item's bytes alive. None if these are many more than the value is.
    pub(crate) fn shared_value(&self) -> Option<Bytes> {
        let value = self.key_len as usize;
        let is_most = self.pair.len() - value >= value;
        is_most.then(|| Bytes::from_owner(Arc::clone(&self.pair)).slice(value..))
    }

    fn order(&self, hash: u64, key: &[u8]) -> Ordering {
        self.hash.cmp(&hash).then_with(|| self.key().cmp(key))
    }
}

type Leaf = Arc<Vec<Item>>;

#[derive(Clone)]
enum Node {
    Leaf(Leaf),
    Branch(Arc<Branch>),
}

/// It has more items below than half a leaf: with fewer it becomes a leaf again.
#[derive(Clone, Default)]
struct Branch {
    len: usize,
    children: [Option<Node>; WIDTH],
}

/// The map. Its clone shares all nodes and is made in O(1).
#[derive(Clone)]
pub(crate) struct Map<const LEAF_MAX: usize = LEAF_ITEMS> {
    root: Option<Node>,
    work: u64,
}

impl<const LEAF_MAX: usize> Map<LEAF_MAX> {
    pub(crate) fn new() -> Self {
        Self { root: None, work: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.root.as_ref().map_or(0, Node::len)
    }

    /// Nominal nanoseconds of copies and allocations since it was made; a clone starts from its original's.
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Item> {
        self.get_hashed(key_hash(key), key)
    }

    fn get_hashed(&self, hash: u64, key: &[u8]) -> Option<&Item> {
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
    pub(crate) fn insert(&mut self, item: Item) -> Option<Item> {
        self.work += NODE_WORK;
        insert::<LEAF_MAX>(&mut self.root, item, 0, &mut self.work)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Item> {
        self.remove_hashed(key_hash(key), key)
    }

    fn remove_hashed(&mut self, hash: u64, key: &[u8]) -> Option<Item> {
        // Without such a key nothing is copied.
        self.get_hashed(hash, key)?;
        remove::<LEAF_MAX>(&mut self.root, hash, key, 0, &mut self.work)
    }

    /// The items by ascending hash, then key.
    pub(crate) fn into_items(self) -> Items {
        Items { nodes: self.root.into_iter().collect(), leaf: None }
    }
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Branch(branch) => branch.len,
        }
    }
}

/// Puts the item below `place`; answers the one that was there with its key.
fn insert<const LEAF_MAX: usize>(
    place: &mut Option<Node>,
    item: Item,
    depth: u32,
    work: &mut u64,
) -> Option<Item> {
    let Some(node) = place else {
        *work += NODE_WORK;
        *place = Some(Node::Leaf(Arc::new(vec![item])));
        return None;
    };
    let items = match node {
        Node::Branch(branch) => {
            let branch = own(branch, WIDTH, work);
            let place = &mut branch.children[child(item.hash, depth)];
            let old = insert::<LEAF_MAX>(place, item, depth + 1, work);
            branch.len += usize::from(old.is_none());
            return old;
        }
        Node::Leaf(items) => items,
    };
    let count = items.len();
    let items = own(items, count, work);
    match find(items, item.hash, item.key()) {
        Ok(index) => Some(std::mem::replace(&mut items[index], item)),
        Err(index) => {
            items.insert(index, item);
            if items.len() > LEAF_MAX && depth * BITS < u64::BITS {
                let items = std::mem::take(items);
                *node = Node::Branch(Arc::new(split::<LEAF_MAX>(items, depth, work)));
            }
            None
        }
    }
}

/// A branch of the items of a leaf that is too large.
fn split<const LEAF_MAX: usize>(items: Vec<Item>, depth: u32, work: &mut u64) -> Branch {
    *work += NODE_WORK + COPY_WORK * items.len() as u64;
    let mut branch = Branch { len: items.len(), ..Branch::default() };
    let mut leaves: [Vec<Item>; WIDTH] = Default::default();
    for item in items {
        leaves[child(item.hash, depth)].push(item);
    }
    for (place, items) in branch.children.iter_mut().zip(leaves) {
        if items.is_empty() {
            continue;
        }
        *work += NODE_WORK;
        *place = Some(if items.len() > LEAF_MAX && (depth + 1) * BITS < u64::BITS {
            Node::Branch(Arc::new(split::<LEAF_MAX>(items, depth + 1, work)))
        } else {
            Node::Leaf(Arc::new(items))
        });
    }
    branch
}

/// Takes the item of `key` out below `place`, and the nodes that are needed no more.
fn remove<const LEAF_MAX: usize>(
    place: &mut Option<Node>,
    hash: u64,
    key: &[u8],
    depth: u32,
    work: &mut u64,
) -> Option<Item> {
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
            let item = remove::<LEAF_MAX>(below, hash, key, depth + 1, work)?;
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
fn own<'a, T: Clone>(node: &'a mut Arc<T>, count: usize, work: &mut u64) -> &'a mut T {
    if Arc::strong_count(node) > 1 {
        *work += NODE_WORK + COPY_WORK * count as u64;
    }
    Arc::make_mut(node)
}

/// Where the item is in a leaf, or where it would have to be.
fn find(items: &[Item], hash: u64, key: &[u8]) -> Result<usize, usize> {
    items.binary_search_by(|item| item.order(hash, key))
}

/// Which child of a branch at `depth` has a hash; the highest bits come first.
fn child(hash: u64, depth: u32) -> usize {
    (hash >> (u64::BITS - BITS * (depth + 1))) as usize % WIDTH
}

/// Depends on the key alone, so that equal contents have equal orders.
fn key_hash(key: &[u8]) -> u64 {
    let mut hasher = Fingerprinter::new();
    hasher.write(key);
    hasher.finish()
}

/// The children of a branch, the first one last.
fn below_in_order(branch: Branch) -> Vec<Node> {
    branch.children.into_iter().rev().flatten().collect()
}

/// The items of a map on their way out. It lets go of the nodes that it has passed: they are freed as soon as the map
/// has others in their place.
pub(crate) struct Items {
    /// What is still to come, the next one last: at most fifteen nodes a level.
    nodes: Vec<Node>,
    leaf: Option<(Leaf, usize)>,
}

impl Iterator for Items {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Weak;

    use mainstay_base::Rng;
    use proptest::prelude::*;

    use super::*;

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
                map.insert(Item::new(&number.to_le_bytes(), b"value", 0));
            } else {
                map.remove(&rng.below(keys).to_le_bytes());
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

    fn nodes(place: Option<&Node>) -> usize {
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
            map.insert(Item::new(&number.to_le_bytes(), b"", 0));
        }
        assert!(nodes(map.root.as_ref()) > 500);
        for number in 0..20_000_u64 {
            map.remove(&number.to_le_bytes()).unwrap();
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
            map.insert(Item::new(&number.to_le_bytes(), b"", 0));
        }
        let mut items = map.clone().into_items();
        drop(map);
        let mut given: Vec<Weak<[u8]>> = Vec::new();
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
                    let item = Item::new(&key, &number.to_le_bytes(), 0);
                    map.insert(Item { hash, ..item });
                    model.insert((hash, key), number);
                } else {
                    let gone = map.remove_hashed(hash, &key).map(|item| item.value().to_vec());
                    let wanted = model.remove(&(hash, key)).map(|number| number.to_le_bytes().to_vec());
                    prop_assert_eq!(gone, wanted);
                }
                prop_assert_eq!(map.len(), model.len());
            }
            frozen.push((map, model));
            for (map, model) in frozen {
                for ((hash, key), number) in &model {
                    let item = map.get_hashed(*hash, key).unwrap();
                    prop_assert_eq!(item.value(), number.to_le_bytes());
                }
                let items: Vec<_> = map.into_items().map(|item| {
                    ((item.hash, <[u8; 2]>::try_from(item.key()).unwrap()), item.value().to_vec())
                }).collect();
                let wanted: Vec<_> = model.into_iter().map(|(key, number)| (key, number.to_le_bytes().to_vec())).collect();
                prop_assert_eq!(items, wanted);
            }
        }
    }
}
