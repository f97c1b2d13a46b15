//! The side of the store: what it does for a worker, and what the log has of it.

use crate::event::Event;
use crate::store::{JobStore, StoreError};
use crate::worker::{Reply, Request};

/// Does what a worker asks for.
pub(crate) fn serve(store: &mut JobStore, by: usize, request: Request) -> (Reply, Option<Event>) {
    let (token, done) = match request {
        Request::Fence(token) => (token, store.fence(token)),
        Request::Put(effect) => (effect.token, store.put(effect)),
    };
    match (done, request) {
        (Ok(()), Request::Fence(token)) => (Reply::Done, Some(Event::Fenced { token, by })),
        (Ok(()), Request::Put(effect)) => {
            let (job, result) = (effect.job, effect.result);
            (Reply::Done, Some(Event::Effect { job, result, token, by }))
        }
        // Whoever wrote it could not say so before it died.
        (Err(StoreError::Done(_)), _) => (Reply::Done, None),
        (Err(error @ StoreError::Fenced { .. }), _) => {
            (Reply::Fenced, Some(Event::Refused { token, by, why: error.to_string() }))
        }
        (Err(error), _) => {
            (Reply::Failed, Some(Event::Refused { token, by, why: error.to_string() }))
        }
    }
}
