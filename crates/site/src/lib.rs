//! The Stack: link, detector, membership and all groups of a site as one machine under one actor.
