//! A recipient's certificate (public key), as `gpg --export` writes it, and whether one may encrypt to it now.
//!
//! The rules are gpg's: the newest self-signature says until when the key lives; one revocation ends it; of the
//! subkeys that may encrypt and are in force the newest is taken. A signature that does not verify counts as absent.
//! rPGP parses and verifies; the rules are here, because it has none.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pgp::composed::{EncryptionSeipdV1, MessageBuilder, PublicOrSecret, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{PublicKey, PublicKeyEncryptedSessionKey, PublicSubkey, Signature, SignatureType};
use pgp::types::{KeyDetails, KeyVersion, Tag};
use rand::rngs::StdRng;

use crate::error::{Error, Kind, Result};

/// No certificate is larger; many hundred signatures and a photograph fit in.
pub const LARGEST: u64 = 4 * 1024 * 1024;
/// How far ahead of this clock another may have been when a key was made.
const CLOCK_TOLERANCE: u64 = 24 * 3600;

/// Which part of a certificate is encrypted to.
enum Part {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

/// Somebody to encrypt to. Was good at the time that [`Recipient::parse`] was told.
pub struct Recipient {
    part: Part,
    fingerprint: String,
    key_id: [u8; 8],
    user_id: String,
    expires: Option<u64>,
    place: String,
}

impl Recipient {
    /// Reads the one certificate in a file, armored or not, and looks whether one may encrypt to it at `now`, seconds since
    /// 1970. `place` says in messages where it is from.
    ///
    /// # Errors
    /// [`Kind::EncryptionKey`], with the place, what is wrong and what to do about it.
    pub fn parse(bytes: &[u8], place: &str, now: u64) -> Result<Self> {
        let wrong =
            |why: &str| Error::new(Kind::EncryptionKey, format!("the OpenPGP certificate {place} {why}"));
        let mut found = read_keys(bytes, LARGEST).map_err(|why| wrong(&why))?;
        let certificate = match (found.pop(), found.is_empty()) {
            (Some(PublicOrSecret::Public(certificate)), true) => certificate,
            (Some(PublicOrSecret::Secret(_)), true) => {
                return Err(wrong(
                    "is a private key, which must not be on this machine: give the file that `gpg --export` writes",
                ));
            }
            (Some(_), false) => {
                return Err(wrong("has more than one key in it: export each into a file of its own"));
            }
            (None, _) => {
                return Err(wrong("has no certificate in it: give the file that `gpg --export` writes"));
            }
        };
        catch_unwind(AssertUnwindSafe(|| choose(&certificate, place, now)))
            .unwrap_or_else(|_| Err(wrong("makes its reader fail: export it again")))
    }

    /// The fingerprint of the certificate, in upper-case hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The id of the (sub)key that is encrypted to, as it stands in a message's header.
    pub fn key_id(&self) -> [u8; 8] {
        self.key_id
    }

    /// Whose it is, as the certificate says.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// When it stops being good, seconds since 1970; `None` for never.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// Where it is from.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Makes it one of those a message is for.
    pub(super) fn add_to<R: std::io::Read>(
        &self,
        builder: &mut MessageBuilder<'_, R, EncryptionSeipdV1>,
        random: &mut StdRng,
    ) -> Result<()> {
        let added = match &self.part {
            Part::Primary(key) => builder.encrypt_to_key(random, key),
            Part::Subkey(key) => builder.encrypt_to_key(random, key),
        };
        added.map(|_| ()).map_err(|error| self.refused(&error))
    }

    /// Encrypts nothing to the key, to know that it can be encrypted to.
    fn try_out(&self) -> Result<()> {
        let mut random = super::randomness()?;
        let algorithm = SymmetricKeyAlgorithm::AES256;
        let session = algorithm.new_session_key(&mut random);
        let made = match &self.part {
            Part::Primary(key) => {
                PublicKeyEncryptedSessionKey::from_session_key_v3(&mut random, &session, algorithm, key)
            }
            Part::Subkey(key) => {
                PublicKeyEncryptedSessionKey::from_session_key_v3(&mut random, &session, algorithm, key)
            }
        };
        made.map(|_| ()).map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &pgp::errors::Error) -> Error {
        let text = format!(
            "cannot encrypt to the OpenPGP certificate {}: {error}; make an encryption subkey of another kind: \
             gpg --quick-add-key {} rsa4096 encr",
            self.place, self.fingerprint
        );
        Error::new(Kind::EncryptionKey, text)
    }
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipient").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Whose certificate is in a file, good or not: fingerprint and name. Nothing if there is not exactly one.
pub fn identity(bytes: &[u8]) -> Option<(String, String)> {
    let mut found = read_keys(bytes, LARGEST).ok()?;
    let (Some(PublicOrSecret::Public(certificate)), true) = (found.pop(), found.is_empty()) else {
        return None;
    };
    let users = &certificate.details.users;
    let name = users.first().map(|user| crate::path::lossy(user.id.id()));
    Some((format!("{:X}", certificate.primary_key.fingerprint()), name.unwrap_or_default()))
}

/// All keys in a file, or what is wrong with it.
pub(super) fn read_keys(bytes: &[u8], limit: u64) -> std::result::Result<Vec<PublicOrSecret>, String> {
    const ARMOR: &[u8] = b"-----BEGIN PGP ";
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    if bytes.len() as u64 > limit {
        return Err("is too large to be one".to_owned());
    }
    // Only the first block would be read, and whoever is in the second would find out at the restore.
    if bytes.windows(ARMOR.len()).filter(|window| *window == ARMOR).count() > 1 {
        return Err("has more than one key in it: export each into a file of its own".to_owned());
    }
    let read = || -> pgp::errors::Result<Vec<PublicOrSecret>> {
        let (keys, _) = PublicOrSecret::from_reader_many(bytes)?;
        // Two are as wrong as a thousand.
        keys.take(2).collect()
    };
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(keys)) => Ok(keys),
        Ok(Err(error)) => Err(format!("cannot be read as an OpenPGP key: {error}; export it again")),
        Err(_) => Err("makes its reader fail: export it again".to_owned()),
    }
}

fn choose(certificate: &SignedPublicKey, place: &str, now: u64) -> Result<Recipient> {
    let primary = &certificate.primary_key;
    let fingerprint = format!("{:X}", primary.fingerprint());
    let wrong = |why: String| {
        Error::new(Kind::EncryptionKey, format!("the OpenPGP certificate {place} ({fingerprint}) {why}"))
    };
    if primary.version() != KeyVersion::V4 {
        return Err(wrong("is of a version that gpg cannot read: name a key that gpg made".to_owned()));
    }
    let created = seconds(primary.created_at());
    if created > now.saturating_add(CLOCK_TOLERANCE) {
        return Err(wrong(format!(
            "was made on {}, which is in the future: set this machine's clock",
            date_of(created)
        )));
    }
    let is_revoked = certificate.details.revocation_signatures.iter().any(|signature| {
        signature.typ() == Some(SignatureType::KeyRevocation) && signature.verify_key(primary).is_ok()
    });
    if is_revoked {
        return Err(wrong("is revoked: name the certificate that took its place".to_owned()));
    }
    let (own, user_id) = newest_self_signature(certificate, now).ok_or_else(|| {
        wrong(format!(
            "has no self-signature that is in force: export it again: {}",
            export(&fingerprint, place)
        ))
    })?;
    let primary_expires = expiry(created, own);
    if primary_expires.is_some_and(|at| at <= now) {
        return Err(wrong(expired(primary_expires, &fingerprint, place, "")));
    }
    let mut best: Option<(u64, Option<u64>, Part, [u8; 8])> = None;
    // What would have been taken, were it not for this.
    let mut refused: Option<String> = None;
    for subkey in &certificate.public_subkeys {
        let created = seconds(subkey.key.created_at());
        let Some(binding) = binding_of(subkey, primary, now) else { continue };
        if !may_encrypt(binding, subkey.key.algorithm().can_encrypt()) {
            continue;
        }
        if is_subkey_revoked(subkey, primary) {
            refused = Some(format!(
                "has a revoked encryption subkey and no other: make one (gpg --quick-add-key {fingerprint} default \
                 encr) and export it: {}",
                export(&fingerprint, place)
            ));
            continue;
        }
        let expires = expiry(created, binding);
        if expires.is_some_and(|at| at <= now) {
            refused = Some(expired(expires, &fingerprint, place, " '*'"));
            continue;
        }
        if best.as_ref().is_none_or(|(other, ..)| created > *other) {
            best = Some((created, expires, Part::Subkey(subkey.key.clone()), id_of(&subkey.key)));
        }
    }
    if best.is_none() && may_encrypt(own, primary.algorithm().can_encrypt()) && has_flags(own) {
        best = Some((created, None, Part::Primary(primary.clone()), id_of(primary)));
    }
    let Some((_, part_expires, part, key_id)) = best else {
        return Err(wrong(refused.unwrap_or_else(|| {
            format!(
                "has no subkey that may encrypt: make one (gpg --quick-add-key {fingerprint} default encr) and export \
                 it: {}",
                export(&fingerprint, place)
            )
        })));
    };
    let expires = [primary_expires, part_expires].into_iter().flatten().min();
    let recipient = Recipient { part, fingerprint, key_id, user_id, expires, place: place.to_owned() };
    recipient.try_out()?;
    Ok(recipient)
}

fn id_of(key: &impl KeyDetails) -> [u8; 8] {
    let mut id = [0; 8];
    id.copy_from_slice(key.legacy_key_id().as_ref());
    id
}

fn seconds(at: pgp::types::Timestamp) -> u64 {
    u64::from(at.as_secs())
}

/// When a key that was created then ends, by what a signature says; a lifetime of zero is none.
fn expiry(created: u64, signature: &Signature) -> Option<u64> {
    let lifetime = signature.key_expiration_time().map(|lifetime| u64::from(lifetime.as_secs()));
    lifetime.filter(|lifetime| *lifetime > 0).map(|lifetime| created + lifetime)
}

/// When a signature was made, if it is in force at `now`.
fn made_at(signature: &Signature, now: u64) -> Option<u64> {
    let made = seconds(signature.created()?);
    let lifetime = signature.signature_expiration_time().map_or(0, |lifetime| u64::from(lifetime.as_secs()));
    let is_over = lifetime > 0 && made + lifetime <= now;
    (made <= now.saturating_add(CLOCK_TOLERANCE) && !is_over).then_some(made)
}

/// The newest signature of the key over itself or one of its user ids, and the user id to show.
fn newest_self_signature(certificate: &SignedPublicKey, now: u64) -> Option<(&Signature, String)> {
    let primary = &certificate.primary_key;
    let mut newest: Option<(u64, &Signature)> = None;
    let mut shown: Option<(u64, String)> = None;
    let mut take = |made: u64, signature| {
        if newest.is_none_or(|(other, _)| made >= other) {
            newest = Some((made, signature));
        }
    };
    for signature in &certificate.details.direct_signatures {
        if let Some(made) = made_at(signature, now)
            && signature.typ() == Some(SignatureType::Key)
            && signature.verify_key(primary).is_ok()
        {
            take(made, signature);
        }
    }
    for user in &certificate.details.users {
        let verified = user.signatures.iter().filter_map(|signature| {
            let made = made_at(signature, now)?;
            signature.verify_certification(primary, Tag::UserId, &user.id).ok()?;
            Some((made, signature))
        });
        // A user id that was revoked after it was last signed says nothing any more.
        let Some((made, signature)) =
            verified.max_by_key(|(made, signature)| (*made, is_revocation(signature)))
        else {
            continue;
        };
        if is_revocation(signature) {
            continue;
        }
        take(made, signature);
        if signature.is_primary() || shown.as_ref().is_none_or(|(other, _)| made > *other) {
            let rank = if signature.is_primary() { u64::MAX } else { made };
            shown = Some((rank, crate::path::lossy(user.id.id())));
        }
    }
    newest.map(|(_, signature)| (signature, shown.map(|(_, name)| name).unwrap_or_default()))
}

fn is_revocation(signature: &Signature) -> bool {
    signature.typ() == Some(SignatureType::CertRevocation)
}

/// The newest signature that binds a subkey.
fn binding_of<'s>(subkey: &'s SignedPublicSubKey, primary: &PublicKey, now: u64) -> Option<&'s Signature> {
    let bindings = subkey.signatures.iter().filter_map(|signature| {
        let made = made_at(signature, now)?;
        let binds = signature.typ() == Some(SignatureType::SubkeyBinding)
            && signature.verify_subkey_binding(primary, &subkey.key).is_ok();
        binds.then_some((made, signature))
    });
    bindings.max_by_key(|(made, _)| *made).map(|(_, signature)| signature)
}

fn is_subkey_revoked(subkey: &SignedPublicSubKey, primary: &PublicKey) -> bool {
    subkey.signatures.iter().any(|signature| {
        signature.typ() == Some(SignatureType::SubkeyRevocation)
            && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
    })
}

fn has_flags(signature: &Signature) -> bool {
    let flags = signature.key_flags();
    flags.encrypt_comms() || flags.encrypt_storage()
}

/// Whether a key may encrypt by its flags; old keys have none, and may do what their algorithm can.
fn may_encrypt(signature: &Signature, algorithm_can: bool) -> bool {
    let flags = signature.key_flags();
    let has_any = flags.certify() || flags.sign() || flags.authentication() || has_flags(signature);
    algorithm_can && (has_flags(signature) || !has_any)
}

fn expired(at: Option<u64>, fingerprint: &str, place: &str, which: &str) -> String {
    format!(
        "expired on {}: give it more time (gpg --quick-set-expire {fingerprint} 2y{which}) and export it again: {}",
        date_of(at.unwrap_or_default()),
        export(fingerprint, place)
    )
}

fn export(fingerprint: &str, place: &str) -> String {
    format!("gpg --armor --export {fingerprint} > {place}")
}

fn date_of(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    moment.map_or_else(|| "an unknown date".to_owned(), |moment| moment.strftime("%Y-%m-%d").to_string())
}
