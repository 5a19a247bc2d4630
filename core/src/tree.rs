//! Editing a Git tree: only the directories on a changed path are read and written.
