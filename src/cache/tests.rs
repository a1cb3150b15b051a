//! What makes the cache right, shown.
