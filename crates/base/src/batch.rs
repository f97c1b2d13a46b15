//! Many small things that one node says to another, in one message: the items as serde writes them, and their bodies end to end as its raw part.

use bytes::{Bytes, BytesMut};

/// One thing said, that may have a body.
pub trait Item {
    /// About how many bytes it takes at most, its body included.
    fn bytes(&self) -> usize;

    /// Bytes of its body.
    fn len(&self) -> usize;

    /// It has no body.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// With so many bytes a batch is sent over a link; a larger body travels alone and is not copied.
pub const BYTES_MAX: usize = 16 << 10;

/// Items on their way into a message.
///
/// ```
/// use bytes::Bytes;
/// use mainstay_base::batch::{self, Batch, Item};
///
/// struct Word(usize);
///
/// impl Item for Word {
///     fn bytes(&self) -> usize { 8 + self.0 }
///     fn len(&self) -> usize { self.0 }
/// }
///
/// let mut batch = Batch::default();
/// for word in ["a", "", "few"] {
///     batch.push(Word(word.len()), Bytes::from(word));
/// }
/// let (items, bodies) = batch.take();
/// assert!(batch.is_empty() && batch::fits(&items, &bodies));
/// let words: Vec<Bytes> = batch::split(items, bodies).map(|(_, body)| body).collect();
/// assert_eq!(words, ["a", "", "few"]);
/// ```
#[derive(Clone, Hash, Debug)]
pub struct Batch<I> {
    items: Vec<I>,
    bodies: Vec<Bytes>,
    bytes: usize,
}

impl<I> Default for Batch<I> {
    fn default() -> Self {
        Self { items: Vec::new(), bodies: Vec::new(), bytes: 0 }
    }
}

impl<I: Item> Batch<I> {
    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the item belongs into a batch of its own: this one has some, and would have more than `bytes_max` with it.
    #[must_use]
    pub fn is_full_for(&self, item: &I, bytes_max: usize) -> bool {
        !self.items.is_empty() && self.bytes + item.bytes() > bytes_max
    }

    /// Puts an item in, whose [`len`](Item::len) is that of the body.
    pub fn push(&mut self, item: I, body: Bytes) {
        debug_assert_eq!(item.len(), body.len());
        self.bytes += item.bytes();
        self.items.push(item);
        if !body.is_empty() {
            self.bodies.push(body);
        }
    }

    /// The items, and their bodies end to end; a single body is not copied. The batch is empty afterwards.
    pub fn take(&mut self) -> (Vec<I>, Bytes) {
        let Self { items, bodies, .. } = std::mem::take(self);
        let bodies = match <[Bytes; 1]>::try_from(bodies) {
            Ok([body]) => body,
            Err(bodies) => {
                let mut whole = BytesMut::with_capacity(bodies.iter().map(Bytes::len).sum());
                bodies.iter().for_each(|body| whole.extend_from_slice(body));
                whole.freeze()
            }
        };
        (items, bodies)
    }
}

/// Whether the bodies are those of the items: what came from a peer is not [split] before.
#[must_use]
pub fn fits<I: Item>(items: &[I], bodies: &Bytes) -> bool {
    let left = items.iter().try_fold(bodies.len(), |left, item| left.checked_sub(item.len()));
    left == Some(0)
}

/// The items, each with its body.
///
/// # Panics
/// If the bodies do not [fit](fits).
pub fn split<I: Item>(items: Vec<I>, mut bodies: Bytes) -> impl Iterator<Item = (I, Bytes)> {
    items.into_iter().map(move |item| {
        let body = bodies.split_to(item.len());
        (item, body)
    })
}
