//! Packs: written in one stream, indexed, and read entry by entry.
