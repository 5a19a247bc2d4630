//! Numbers in sentences for people.

/// `1 file`, `0 files`, `7 files`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// [`counted`] for files, which are counted most.
pub fn files(count: u64) -> String {
    counted(count, "file", "files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([files(0), files(1), files(2)], ["0 files", "1 file", "2 files"]);
        assert_eq!(counted(1, "directory", "directories"), "1 directory");
    }
}
