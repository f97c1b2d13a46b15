//! Datagrams of services outside the connections: whose one is, in front of what it says.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use mainstay_base::codec;
use mainstay_base::service::Address;

pub(super) fn encode(of: Address, meta: &[u8], payload: &[u8]) -> BytesMut {
    let head = codec::encode(&(of, meta.len() as u32));
    let mut body = BytesMut::with_capacity(1 + head.len() + meta.len() + payload.len());
    body.put_u8(head.len() as u8);
    body.put_slice(&head);
    body.put_slice(meta);
    body.put_slice(payload);
    body
}

/// For whom it is, and both parts; `None` if it is of nothing that was encoded.
pub(super) fn decode(mut body: Bytes) -> Option<(Address, Bytes, Bytes)> {
    let length = usize::from(body.try_get_u8().ok()?);
    let head = (length <= body.len()).then(|| body.split_to(length))?;
    let (of, meta): (Address, u32) = codec::decode(&head).ok()?;
    let meta = (meta as usize <= body.len()).then(|| body.split_to(meta as usize))?;
    Some((of, meta, body))
}
