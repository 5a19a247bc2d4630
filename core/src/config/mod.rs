//! The configuration: one model, read from YAML or TOML, every mistake reported at once.
