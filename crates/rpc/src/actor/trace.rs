//! What a call is a part of: a trace that crosses nodes with it.
//!
//! The context of a call travels as nothing, if it is empty; as a byte 0 and the bytes of the caller; or as a byte 1, the trace (16 bytes), the span (8 bytes) and the bytes of the
//! caller. So it crosses nodes that have no spans.

use std::fmt;
#[cfg(feature = "tracing")]
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::config::TRACE_BYTES;

#[cfg(feature = "tracing")]
use super::handle::Shared;
#[cfg(feature = "tracing")]
use super::seams::CallInfo;

/// A trace, and the span in it in which something is done: ids as those of W3C Trace Context. Displayed as a `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Trace {
    /// Of the trace: the same in all calls that a call leads to.
    pub trace: u128,
    /// Of the span.
    pub span: u64,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

/// What travels.
pub(super) fn pack(trace: Option<Trace>, context: &Bytes) -> Bytes {
    if trace.is_none() && context.is_empty() {
        return Bytes::new();
    }
    let mut packed = BytesMut::with_capacity(TRACE_BYTES + context.len());
    match trace {
        None => packed.put_u8(0),
        Some(Trace { trace, span }) => {
            packed.put_u8(1);
            packed.put_u128(trace);
            packed.put_u64(span);
        }
    }
    packed.put_slice(context);
    packed.freeze()
}

/// What came. Bytes that are neither are those of a peer that has another way: nothing is known of them.
pub(super) fn unpack(mut packed: Bytes) -> (Option<Trace>, Bytes) {
    match packed.first() {
        Some(0) => (None, packed.slice(1..)),
        Some(1) if packed.len() >= TRACE_BYTES => {
            let head = packed.split_to(TRACE_BYTES);
            let mut trace = [0; 16];
            trace.copy_from_slice(&head[1..17]);
            let mut span = [0; 8];
            span.copy_from_slice(&head[17..]);
            let trace = Trace { trace: u128::from_be_bytes(trace), span: u64::from_be_bytes(span) };
            (Some(trace), packed)
        }
        _ => (None, Bytes::new()),
    }
}

/// Something that is done for a call: in its span, if there are spans.
#[cfg(feature = "tracing")]
pub(super) fn within<F: Future>(
    span: &tracing::Span,
    work: F,
) -> tracing::instrument::Instrumented<F> {
    tracing::Instrument::instrument(work, span.clone())
}

#[cfg(feature = "tracing")]
macro_rules! span {
    ($name:literal, $parent:expr, $other:ident, $info:expr) => {
        tracing::info_span!(
            target: "mainstay_rpc",
            parent: $parent,
            $name,
            procedure = $info.procedure,
            $other = %$info.node,
            semantics = ?$info.semantics,
            trace = tracing::field::Empty,
            span = tracing::field::Empty,
            parent = tracing::field::Empty,
        )
    };
}

/// The span of a call at its caller, and what goes along: the span is a part of the one that is entered.
#[cfg(feature = "tracing")]
pub(super) fn calling(
    shared: &Shared,
    info: &CallInfo,
    above: Option<Trace>,
) -> (tracing::Span, Option<Trace>) {
    let span = span!("rpc.call", tracing::Span::current(), server, info);
    enter(shared, span, above)
}

/// The span of an execution at its server.
#[cfg(feature = "tracing")]
pub(super) fn executing(
    shared: &Shared,
    info: &CallInfo,
    above: Option<Trace>,
) -> (tracing::Span, Option<Trace>) {
    let span = span!("rpc.execute", None, client, info);
    enter(shared, span, above)
}

/// Names a span, if anybody wants to see it. Else what goes along is what came.
#[cfg(feature = "tracing")]
fn enter(
    shared: &Shared,
    span: tracing::Span,
    above: Option<Trace>,
) -> (tracing::Span, Option<Trace>) {
    if span.is_disabled() {
        return (span, above);
    }
    let trace = above.map_or_else(
        || u128::from(shared.draw()) << 64 | u128::from(shared.draw()),
        |above| above.trace,
    );
    let it = Trace { trace, span: shared.draw() };
    span.record("trace", tracing::field::display(format_args!("{:032x}", it.trace)));
    span.record("span", tracing::field::display(format_args!("{:016x}", it.span)));
    if let Some(above) = above {
        span.record("parent", tracing::field::display(format_args!("{:016x}", above.span)));
    }
    (span, Some(it))
}

#[cfg(feature = "tracing")]
impl Shared {
    /// An id that no other one is like: of the node, its start and a number, none of them 0.
    fn draw(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.me, self.started, self.next_token()).hash(&mut hasher);
        hasher.finish().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let trace = Some(Trace { trace: u128::MAX - 1, span: 7 });
        for context in [Bytes::new(), Bytes::from_static(b"\x01context"), vec![1; 99].into()] {
            for trace in [None, trace] {
                assert_eq!(unpack(pack(trace, &context)), (trace, context.clone()));
            }
        }
        for bad in [&[2, 7][..], &[1, 0, 0], &[1; 24]] {
            assert_eq!(unpack(Bytes::copy_from_slice(bad)), (None, Bytes::new()));
        }
        let text = "00-fffffffffffffffffffffffffffffffe-0000000000000007-01";
        assert_eq!(trace.map(|it| it.to_string()).as_deref(), Some(text));
    }
}
