//! Lists of events, and what follows from them.
