//! What Git does not keep of a file: the metadata records below `.backupbot/meta`.
