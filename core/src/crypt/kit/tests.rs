//! Kits as they come back from paper, and the sheet that stands for itself.

use super::*;
use crate::crypt::gitcrypt::tests::program::GitCrypt;
use crate::crypt::gitcrypt::tests::{encrypt, sample};

fn a_key() -> Key {
    Key::new(KeyFile::generate(None).unwrap(), Path::new("/key")).unwrap()
}

fn kit(keys: &[&Key]) -> String {
    kit_for(keys, &[])
}

fn kit_for(keys: &[&Key], private_keys: &[&str]) -> String {
    let sheet = Sheet {
        made: "2026-11-23".to_owned(),
        instance: "testbox".to_owned(),
        repository: "documents".to_owned(),
        branch: "refs/heads/main".to_owned(),
        remotes: vec![("gitea".to_owned(), "https://git.example.org/me/backup.git".to_owned())],
        has_large: true,
        keys: keys.to_vec(),
        private_keys: private_keys.iter().map(|it| (*it).to_owned()).collect(),
    };
    sheet.text().unwrap().to_string()
}

fn ids(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(|key| key.id().as_str()).collect()
}

fn refused(text: &str) -> String {
    let error = read(text, "kit.txt").unwrap_err();
    assert_eq!(error.kind(), Kind::EncryptionKey);
    error.to_string()
}

#[test]
fn where_contents_are_messages_the_sheet_says_that_it_is_not_enough() {
    let key = a_key();
    let fingerprint = "CFEFD6D6C52F425706F422D167D2D55D192DD4BD";
    let text = kit_for(&[&key], &[fingerprint]);
    assert!(text.contains(fingerprint) && text.contains("NOT ON THIS SHEET"), "{text}");
    assert!(!text.contains("can read the whole") && !text.contains("git-crypt unlock"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 78), "{text}");
    assert_eq!(ids(&read(&text, "kit").unwrap()), [key.id().as_str()]);
}

#[test]
fn every_key_of_a_kit_is_read_again_and_the_text_fits_on_paper() {
    let (new, old) = (a_key(), a_key());
    let text = kit(&[&new, &old]);
    assert!(text.lines().all(|line| line.len() <= 78), "{text}");
    assert!(text.contains("https://git.example.org/me/backup.git") && text.contains("branch main"));
    let read = read(&text, "kit.txt").unwrap();
    assert_eq!(ids(&read), [new.id().as_str(), old.id().as_str()]);
    assert_eq!(*read[0].file().to_bytes(), *new.file().to_bytes());
}

#[test]
fn blanks_case_and_letters_that_look_like_digits_mean_nothing() {
    let key = a_key();
    let text = kit(&[&key]);
    let from = text.find("\nKEY ").unwrap();
    let lines: Vec<&str> = text[from..].lines().filter(|line| !line.is_empty()).collect();
    let typed: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| match at {
            0 => line.replace("KEY ", "key   "),
            1 => format!("1. {}", line.trim()[1..].to_uppercase().replace('0', "O")),
            2 => format!("2) {}", line.trim()[1..].replace(' ', "").replace('1', "l")),
            _ => line.replace(' ', "\t"),
        })
        .collect();
    assert_eq!(ids(&read(&typed.join("\r\n"), "kit.txt").unwrap()), [key.id().as_str()]);
    // Only the lines, in any order.
    let mut loose = typed[1..].to_vec();
    loose.reverse();
    assert_eq!(ids(&read(&loose.join("\n"), "kit.txt").unwrap()), [key.id().as_str()]);
}

#[test]
fn every_wrong_digit_is_found_with_its_line() {
    let key = a_key();
    let text = kit(&[&key]);
    let from = text.find("\nKEY ").unwrap();
    for number in 1..=LINES {
        let start = from + text[from..].find(&format!("\n  {number}  ")).unwrap() + 6;
        for at in start..start + 29 {
            let digit = text.as_bytes()[at];
            if digit == b' ' {
                continue;
            }
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if digit == b'7' { b'3' } else { b'7' };
            let said = refused(std::str::from_utf8(&wrong).unwrap());
            assert!(said.contains(&format!("line {number} is mistyped")), "{said}");
            assert!(!said.contains(';') && said.contains(key.id().as_str()), "{said}");
        }
    }
}

#[test]
fn what_else_may_be_wrong_is_named() {
    let (key, other) = (a_key(), a_key());
    let text = kit(&[&key]);
    let from = text.find("\nKEY ").unwrap();
    let lines: Vec<&str> = text[from..].lines().collect();
    let without = |number: &str| -> String {
        lines.iter().filter(|line| !line.trim().starts_with(number)).map(|line| format!("{line}\n")).collect()
    };
    let said = refused(&without("5 "));
    assert!(said.contains("line 5 is missing"), "{said}");
    let swapped =
        text.replace("\n  3  ", "\n  x  ").replace("\n  4  ", "\n  3  ").replace("\n  x  ", "\n  4  ");
    let said = refused(&swapped);
    assert!(said.contains("line 3 is mistyped") && said.contains("line 4 is mistyped"), "{said}");
    let said = refused(&text.replace("\n  2  ", "\n  2  z"));
    assert!(said.contains("line 2 is mistyped: 'z'"), "{said}");
    let said = refused(&text.replace("\n  2  ", "\n  2  00"));
    assert!(said.contains("it has 30 digits"), "{said}");
    let said = refused(&text.replace(key.id().as_str(), other.id().as_str()));
    assert!(said.contains(key.id().as_str()) && said.contains("another kit"), "{said}");
    assert!(refused("").contains("holds no key"));
    assert!(refused("2026-11-23\nhttps://example.org\n").contains("holds no key"));
    assert!(refused("1. Clone the repository").contains("line 1"));
}

#[test]
fn the_key_is_made_again_by_the_sheet_alone_and_unlocks_a_clone() {
    let key = a_key();
    let text = kit(&[&key, &a_key()]);
    let scratch = tempfile::tempdir().unwrap();
    let begin = text.find("  import hashlib").unwrap();
    let end = text.find("\n\n  python3 key.py").unwrap();
    let script: String =
        text[begin..end].lines().map(|line| format!("{}\n", line.get(2..).unwrap_or(""))).collect();
    std::fs::write(scratch.path().join("key.py"), script).unwrap();
    let from = text.find("\nKEY ").unwrap();
    let until = from + 4 + text[from + 4..].find("\nKEY ").unwrap();
    let typed = text[from..until].replace(key.id().as_str(), "");
    std::fs::write(scratch.path().join("kit.txt"), &typed).unwrap();
    let run = |kit: &str| {
        std::fs::write(scratch.path().join("kit.txt"), kit).unwrap();
        let output =
            std::process::Command::new("python3").arg("key.py").current_dir(scratch.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&typed), "");
    let made = std::fs::read(scratch.path().join("backup.key")).unwrap();
    assert_eq!(made, *key.file().to_bytes());
    let bench = GitCrypt::new();
    let plaintext = sample(5000);
    let clone = bench.clone_of(&[("x".to_owned(), encrypt(key.file(), &plaintext))]);
    bench.unlock_with_key(&clone, &KeyFile::parse(&made, "x").unwrap());
    assert_eq!(std::fs::read(clone.join("x")).unwrap(), plaintext);
    let at = typed.find("\n  6  ").unwrap() + 6;
    let mut wrong = typed.into_bytes();
    wrong[at] = if wrong[at] == b'7' { b'3' } else { b'7' };
    assert_eq!(run(std::str::from_utf8(&wrong).unwrap()), "line 6 is mistyped\n");
}
