//! Words and comments of a POSIX shell, made of text that is whatever a person called things.

use backupbot_core::path::lossy;

/// A word that the shell takes as exactly this text; without quotes where none are needed.
pub fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '+' | ','));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Text that stays within its comment.
pub fn comment(text: &str) -> String {
    lossy(text.as_bytes())
}

/// The value of an option of ssh's configuration; `None` where there is no way to write it down.
pub fn ssh_value(text: &str) -> Option<String> {
    // Variables are put in for `${`, which nothing prevents.
    if text.contains("${") || text.chars().any(|c| c.is_control() || c == '"') {
        return None;
    }
    Some(format!("\"{}\"", text.replace('\\', r"\\").replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_shell_reads_what_was_quoted() {
        let texts = [
            "plain/path.git",
            "",
            "two words",
            "it's",
            "'",
            "''",
            "a\nb\n\nc",
            "$HOME `id` \\ \"x\" !",
            "-n",
            "*",
            "~",
            "ž",
            "a=b",
            "#x",
            "\t",
        ];
        let words: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        let script = format!("for word in {}; do printf '%s\\001' \"$word\"; done", words.join(" "));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let expected: String = texts.iter().map(|text| format!("{text}\u{1}")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert_eq!(quoted("/mnt/usb/documents.git"), "/mnt/usb/documents.git");
    }

    #[test]
    fn ssh_itself_reads_what_was_written_for_it() {
        for path in ["/a b", "/it's", "/100%", "/back\\slash", "/plain"] {
            let option = format!("IdentityFile={}", ssh_value(path).unwrap());
            let option = ["-F", "/dev/null", "-G", "-o", &option, "nas"];
            let output = Command::new("ssh").args(option).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let expected = format!("identityfile {}", path.replace('%', "%%"));
            assert!(text.lines().any(|line| line == expected), "{path}: {text}");
        }
        for path in ["/a${HOME}", "/a\nb", "/a\"b"] {
            assert_eq!(ssh_value(path), None, "{path}");
        }
    }

    #[test]
    fn a_comment_ends_where_it_should() {
        assert_eq!(comment("a\nrm -rf /\r"), "a\\nrm -rf /\\r");
    }
}
