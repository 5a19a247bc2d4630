//! Which paths of a root are left out, and why.
