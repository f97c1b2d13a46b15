//! Ordered multicast in virtually synchronous groups: FIFO and total order, levels of delivery, flush.
