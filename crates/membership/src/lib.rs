//! Agreed views of the working sites: failure detector and view manager after Birman and Joseph.
