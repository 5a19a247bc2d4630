//! Watching a root: backends tell where something changed, never what.
