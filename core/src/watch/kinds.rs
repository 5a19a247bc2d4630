//! Which file systems tell of every change, and which do not.
//!
//! inotify tells what this kernel does. What another machine, a hypervisor or a program behind FUSE does to the
//! same files it cannot know, so such file systems are polled. The table is the one place where they are listed;
//! the numbers are those of statfs(2), the words those of /proc/self/mountinfo.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

/// File systems that others may change without this kernel's knowledge: the number, and the name for people.
const SILENT: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x564c, "NCP"),
    (0x0102_1997, "9p"),
    (0x786f_4256, "vboxsf"),
    (0xbacb_acbc, "vmhgfs"),
    (0x7c7c_6673, "prl_fs"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0xaad7_aaea, "PanFS"),
];

/// FUSE, virtiofs included: what is behind it only the mount table knows.
const FUSE: u64 = 0x6573_5546;

/// Kinds of FUSE that keep their data on a disk of this machine, where nobody else writes to it. Every other
/// kind is polled: to poll too much costs a little, to watch what does not tell loses changes.
const LOCAL_FUSE: &[&str] = &[
    "fuseblk",
    "fuse.ntfs-3g",
    "fuse.exfat",
    "fuse.fuse2fs",
    "fuse.ext2",
    "fuse.fuse-overlayfs",
    "fuse.apfs",
];

/// The name of the kind of file system that `directory` is on, if that kind does not tell of every change.
pub(super) fn silent(directory: impl AsFd) -> Result<Option<String>, Errno> {
    let number = number_of(&rustix::fs::fstatfs(&directory)?);
    if number != FUSE {
        return Ok(named(number).map(str::to_owned));
    }
    #[allow(clippy::unnecessary_cast, reason = "the widths differ by platform")]
    let device = rustix::fs::fstat(&directory)?.st_dev as u64;
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    Ok(silent_fuse(&mounts, device))
}

/// The same for a path, which is followed.
pub(super) fn silent_at(path: &Path) -> Result<Option<String>, Errno> {
    silent(crate::beneath::open::open_root(path)?)
}

#[allow(clippy::unnecessary_cast, reason = "the widths differ by platform")]
fn number_of(stat: &rustix::fs::StatFs) -> u64 {
    // Some platforms have it as a signed number of 32 bits.
    u64::from(stat.f_type as u32)
}

#[cfg(test)]
thread_local! {
    /// One more kind that does not tell, for a test that has no network.
    pub(super) static PRETEND_SILENT: std::cell::Cell<Option<(u64, &'static str)>> =
        const { std::cell::Cell::new(None) };
}

fn named(number: u64) -> Option<&'static str> {
    #[cfg(test)]
    if let Some((_, name)) = PRETEND_SILENT.get().filter(|(known, _)| *known == number) {
        return Some(name);
    }
    SILENT.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The kind of the FUSE mount with this device number, unless it is a local one.
fn silent_fuse(mounts: &[u8], device: u64) -> Option<String> {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let kind = mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split(' ');
        if fields.nth(2) != Some(number.as_str()) {
            return None;
        }
        // Optional fields end with a dash of their own.
        fields.find(|field| *field == "-")?;
        fields.next().map(str::to_owned)
    });
    let kind = kind.unwrap_or_else(|| "FUSE".to_owned());
    (!LOCAL_FUSE.contains(&kind.as_str())).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_this_machine_tells_and_a_network_does_not() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(silent_at(scratch.path()), Ok(None));
        assert_eq!(silent_at(Path::new("/dev/shm")), Ok(None));
        assert_eq!(silent_at(&scratch.path().join("absent")), Err(Errno::NOENT));
        assert_eq!(named(0x6969), Some("NFS"));
        assert_eq!(named(0xef53), None, "ext4");
        assert_eq!(named(0x794c_7630), None, "overlay");
    }

    #[test]
    fn what_is_behind_fuse_stands_in_the_mount_table() {
        let mounts = b"29 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            31 29 0:44 / /home/me/remote\\040dir rw,nosuid shared:7 master:3 - fuse.sshfs me@host:/ rw\n\
            32 29 8:17 / /mnt/usb rw - fuseblk /dev/sdb1 rw\n\
            33 29 0:45 / /mnt/host rw shared:8 - virtiofs share rw\n\
            short line\n";
        let fuse = |major, minor| silent_fuse(mounts, rustix::fs::makedev(major, minor));
        assert_eq!(fuse(0, 44).as_deref(), Some("fuse.sshfs"));
        assert_eq!(fuse(8, 17), None);
        assert_eq!(fuse(0, 45).as_deref(), Some("virtiofs"));
        assert_eq!(fuse(0, 46).as_deref(), Some("FUSE"), "an unknown kind is polled");
        assert_eq!(silent_fuse(b"", rustix::fs::makedev(8, 17)).as_deref(), Some("FUSE"));
    }
}
