"""Makes a checkout of a BackupBot repository what the backed-up directories were.

    python3 -I put_back.py [--names-only] [--git-crypt-key=FILE] DIRECTORY...

Each DIRECTORY holds one checkout. What git-lfs brought encrypted is decrypted by git-crypt, with the key named before the
DIRECTORY; what is encrypted with gpg, by gpg, which asks for the passphrase. Escaped names are undone; empty directories, hard links, attributes, modes, times
and, for root, owners come back from .backupbot/meta, which is removed then. Nothing outside of DIRECTORY is touched.
Ends with 1 if something was told on the way. Nothing but Python 3.6 is needed; docs/format.md is the format.
"""
import base64, filecmp, grp, json, os, pwd, shutil, stat, subprocess, sys

ESCAPE, RECORDS = b"_bb_", b"_bb_meta"
LARGEST, DEEPEST = 16 << 20, 42
ENCRYPTED, NONCE_BYTES = b"\0GITCRYPT\0", 12
GPG = object()
KINDS = {"file": stat.S_ISREG, "symlink": stat.S_ISLNK, "dir": stat.S_ISDIR}
told = others = 0


def tell(path, what):
    global told
    told += 1
    print(ascii(os.fsdecode(path)) + ": " + str(what), file=sys.stderr)


def is_directory(path):
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def plain(name):
    if not name.startswith(ESCAPE):
        return name
    return name[len(ESCAPE):].replace(b"%5C", b"\\").replace(b"%25", b"%")


def undo_names(directory):
    # The shorter first: of "git~1" and "_bb_git~1" the latter's name in Git is free only when the former's is undone.
    for name in sorted(os.listdir(directory), key=len):
        path, new = os.path.join(directory, name), plain(name)
        if name == b".gitattributes":
            os.unlink(path)  # BackupBot's: one that was backed up is called _bb_.gitattributes
        elif new != name and (new in (b"", b".", b"..") or os.path.lexists(os.path.join(directory, new))):
            tell(path, "its name cannot be undone")
        elif new != name:
            os.rename(path, os.path.join(directory, new))


def records(place, depth=0):
    if is_directory(place) and depth < DEEPEST:
        for name in sorted(os.listdir(place)):
            yield from records(os.path.join(place, name), depth + 1)
    elif os.path.lexists(place):
        found = os.lstat(place)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise ValueError("is no metadata")
        with open(place, encoding="utf-8", newline="\n") as lines:
            if json.loads(lines.readline()).get("backupbot") != 1:
                raise ValueError("is metadata of another version")
            for line in lines:
                yield json.loads(line)


def number(lookup, name, otherwise):
    try:
        return lookup(name)[2]
    except (KeyError, TypeError, ValueError):
        return otherwise


def own(path, found, record):
    """Whether the owner is, or is now, the one that is recorded: its name counts, then its number."""
    global others
    uid = number(pwd.getpwnam, record.get("user"), record["uid"])
    gid = number(grp.getgrnam, record.get("group"), record["gid"])
    if (found.st_uid, found.st_gid) == (uid, gid):
        return True
    if os.geteuid() != 0:
        others += 1
        return False
    os.chown(path, uid, gid, follow_symlinks=False)
    return True


def nanoseconds(text):
    whole, _, rest = text.lstrip("-").partition(".")
    return (int(whole) * 10**9 + int(rest)) * (-1 if text.startswith("-") else 1)


def attributes(path, record):
    pairs = [(name.encode("utf-8"), value) for name, value in record.get("xattrs", {}).items()]
    pairs += [(base64.b64decode(name), value) for name, value in record.get("xattrs_b64", {}).items()]
    for name, value in pairs:
        try:
            os.setxattr(path, name, base64.b64decode(value), follow_symlinks=False)
        except (OSError, AttributeError) as error:
            tell(path, "attribute %a: %s" % (name, error))


def decrypt(path, record, key, spare):
    """Decrypts a file that is longer than recorded: by exactly what git-crypt adds, or as a message to somebody."""
    overhead, size = len(ENCRYPTED) + NONCE_BYTES, os.lstat(path).st_size
    if key is None or record["kind"] != "file" or not stat.S_ISREG(os.lstat(path).st_mode):
        return
    if key is GPG and size > record["size"]:
        subprocess.run([b"gpg", b"--quiet", b"--yes", b"--output", spare, b"--decrypt", b"--", path], check=True)
        shutil.copymode(path, spare)
        os.rename(spare, path)
    if key is GPG:
        return
    # The program reads on where this ends: nothing may be read ahead.
    with open(path, "rb", buffering=0) as stored:
        is_encrypted = stored.read(len(ENCRYPTED)) == ENCRYPTED
        if not is_encrypted or os.fstat(stored.fileno()).st_size != record["size"] + overhead:
            return
        stored.seek(0)
        with open(spare, "wb") as plain:
            subprocess.run([b"git-crypt", b"smudge", b"--key-file=" + key], stdin=stored, stdout=plain, check=True)
    shutil.copymode(path, spare)
    os.rename(spare, path)


def key_of(begun, given):
    """What opens contents, as the checkout says."""
    place = os.path.join(begun, b"encryption")
    if not os.path.isfile(place):
        return given
    with open(place, "rb") as file:
        return GPG if json.loads(file.read(LARGEST).decode("utf-8")).get("method") == "gpg" else given


def apply(path, record):
    found, kind = os.lstat(path), record["kind"]
    if not KINDS[kind](found.st_mode):
        raise ValueError("was a " + kind)
    if kind == "file" and record["size"] != found.st_size:
        raise ValueError("has %d bytes, and had %d" % (found.st_size, record["size"]))
    mode = int(record["mode"], 8) & 0o7777
    # Set-id bits mean the owner: under another one they would be somebody else's rights.
    if not own(path, found, record):
        mode &= 0o1777
    if kind != "symlink":
        attributes(path, record)
        os.chmod(path, mode)
    time = nanoseconds(record["mtime"])
    os.utime(path, ns=(time, time), follow_symlinks=False)


def link(first, path, spare):
    """Makes `path` another name of the file `first`."""
    are_files = all(stat.S_ISREG(os.lstat(name).st_mode) for name in (first, path))
    if not are_files or not filecmp.cmp(first, path, shallow=False):
        raise ValueError("is not the same as its other name")
    os.link(first, spare)
    os.rename(spare, path)


def put_back(target, with_metadata, key):
    with open(os.path.join(target, b".backupbot/format"), "rb") as file:
        if file.read(16) != b"1\n":
            raise ValueError("is of another version of the format")
    # Names must not be undone twice, so that it was begun is seen even if it never ends.
    begun = os.path.join(target, b".backupbot.begun")
    os.rename(os.path.join(target, b".backupbot"), begun)
    if os.path.lexists(os.path.join(begun, b"encryption")) and is_directory(os.path.join(target, b".git-crypt")):
        shutil.rmtree(os.path.join(target, b".git-crypt"))
    key = key_of(begun, key)
    pending = [(target, os.path.join(begun, b"meta") if with_metadata else None, None)]
    directories, first_names = [], {}
    while pending:
        directory, meta, root = pending.pop()
        children = {}
        try:
            undo_names(directory)
            for name in os.listdir(directory):
                if is_directory(os.path.join(directory, name)) and os.path.join(directory, name) != begun:
                    children[name] = None
            if meta and is_directory(meta):
                for name in os.listdir(meta):
                    if name != RECORDS and plain(name) not in (b"", b".", b"..") \
                            and is_directory(os.path.join(meta, name)):
                        children[plain(name)] = os.path.join(meta, name)
        except OSError as error:
            tell(directory, error.strerror)
        for name, place in children.items():
            path = os.path.join(directory, name)
            try:
                if not os.path.lexists(path):
                    os.mkdir(path)
                if is_directory(path):
                    pending.append((path, place, root or name))
            except OSError as error:
                tell(path, error.strerror)
        try:
            present = set(os.listdir(directory))
            for record in records(os.path.join(meta, RECORDS)) if meta else ():
                encoded = record.get("name_b64")
                name = record["name"].encode("utf-8") if encoded is None else base64.b64decode(encoded)
                path = os.path.join(directory, name)
                if name == b".":
                    directories.append((directory, record))
                elif record["kind"] not in KINDS:
                    print("%a was a %a, which is not made" % (os.fsdecode(path), record["kind"]))
                elif name not in present:
                    tell(path, "is recorded, and is not there")
                else:
                    try:
                        first = first_names.setdefault((root, record.get("hard_link") or path), path)
                        decrypt(path, record, key, os.path.join(begun, b"decrypted"))
                        if first != path:
                            link(first, path, os.path.join(begun, b"link"))
                        apply(path, record)
                    except Exception as error:
                        tell(path, error)
        except Exception as error:
            tell(directory, "its metadata: %s" % error)
    # A directory's time and mode are its last: what is made in it changes the one and may need the other.
    for path, record in reversed(directories):
        try:
            apply(path, record)
        except Exception as error:
            tell(path, error)
    shutil.rmtree(begun)


def main():
    key = None
    for target in sys.argv[1:]:
        if target == "--names-only":
            continue
        if target.startswith("--git-crypt-key="):
            key = os.fsencode(target.partition("=")[2])
            continue
        try:
            put_back(os.fsencode(target), "--names-only" not in sys.argv, key)
        except (OSError, ValueError) as error:
            tell(os.fsencode(target), "not put back: %s (check it out again into a new directory)" % error)
    if others:
        print("%d files and directories belonged to others; owners come back where root runs this" % others)
    sys.exit(1 if told else 0)


main()
