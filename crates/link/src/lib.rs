//! Inter-site layer: lossless FIFO channels between site incarnations, hello, and the word that a site is dead.
