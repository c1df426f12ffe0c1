//! A handle as typed becomes the one form under which it is known. Source: `spec/01-encoding.md`,
//! section 6.

use comity_protocol::{
    name::{Handle, ParseHandleError},
    session::{Code, WireError},
};
use precis_profiles::{UsernameCaseMapped, precis_core::profile::Profile};
use unicode_normalization::UnicodeNormalization;
use unicode_security::{MixedScript, RestrictionLevel, RestrictionLevelDetection, skeleton};

/// Bytes looked at: twice a handle's limit leaves room for forms that become shorter.
const TYPED_BYTES_MAX: usize = 2 * comity_protocol::limits::HANDLE_BYTES_MAX;
/// Times that the profile is applied until its result stays (RFC 8264, section 7).
const PASSES_MAX: usize = 4;
/// Bytes kept of the hash of a skeleton: a collision would refuse a free handle, no more.
const SKELETON_BYTES: usize = 16;

/// Why a handle is not given out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// Not a username by PRECIS.
    #[error("a handle is made of letters and digits, with . _ + - between them")]
    Profile,
    /// Not a handle by the protocol.
    #[error(transparent)]
    Shape(#[from] ParseHandleError),
    /// Letters of scripts that are not written together, as in imitations.
    #[error("the handle mixes letters of different scripts")]
    Mixed,
    /// Somebody has it, in this form or another.
    #[error("the handle is taken")]
    Taken,
    /// It looks like one that somebody has.
    #[error("the handle looks like one that is taken")]
    Confusable,
}

impl HandleError {
    /// The code that clients see.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Profile | Self::Shape(_) | Self::Mixed => Code::InvalidName,
            Self::Taken => Code::Conflict,
            Self::Confusable => Code::HandleConfusable,
        }
    }
}

impl From<HandleError> for WireError {
    fn from(error: HandleError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The one form of a handle as typed: PRECIS UsernameCaseMapped, Normalization Form C, and the
/// protocol's own rules.
///
/// # Errors
///
/// [`HandleError::Profile`] and [`HandleError::Shape`].
pub fn canonical(typed: &str) -> Result<Handle, HandleError> {
    if typed.len() > TYPED_BYTES_MAX {
        return Err(ParseHandleError::TooLong.into());
    }
    // The profile checks before it composes, maps case letter by letter and is not idempotent.
    // Composing first, lower-casing by context (the final sigma) and repeating until nothing
    // changes gives each handle one form.
    let profile = UsernameCaseMapped::new();
    let composed: String = typed.nfc().collect();
    let mut text = composed.to_lowercase();
    for _ in 0..PASSES_MAX {
        let next = profile
            .enforce(text.as_str())
            .map_err(|_| HandleError::Profile)?
            .into_owned();
        if next == text {
            return Ok(text.parse::<Handle>()?);
        }
        text = next;
    }
    Err(HandleError::Profile)
}

/// Refuses letters of scripts that are not written together: whoever is first to register such an
/// imitation of a name would otherwise keep the true one from being registered.
pub(super) fn check_scripts(handle: &Handle) -> Result<(), HandleError> {
    // Digits and marks belong to every script; the protocol's ASCII marks are not all identifier
    // characters, which would count as the lowest level.
    let letters: String = handle
        .as_str()
        .chars()
        .filter(|c| !c.is_ascii() || c.is_ascii_alphabetic())
        .collect();
    let together = letters.as_str().is_single_script()
        || letters
            .as_str()
            .check_restriction_level(RestrictionLevel::HighlyRestrictive);
    if together {
        Ok(())
    } else {
        Err(HandleError::Mixed)
    }
}

/// What a text looks like: texts that are confusable (Unicode TR 39), also after lower-casing what
/// they are confused with, have the same look.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Look([u8; SKELETON_BYTES]);

impl Look {
    pub(super) fn of(text: &str) -> Self {
        // The skeleton of `0` is `O`: lower case once more, or `b0b` would pass beside `bob`.
        let once: String = skeleton(text).collect();
        let lower = once.to_lowercase().replace('ς', "σ");
        let twice: String = skeleton(&lower).collect();
        let hash = blake3::hash(twice.as_bytes());
        let mut bytes = [0; SKELETON_BYTES];
        bytes.copy_from_slice(&hash.as_bytes()[..SKELETON_BYTES]);
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(typed: &str) -> Result<String, HandleError> {
        canonical(typed).map(|handle| handle.to_string())
    }

    #[test]
    fn every_way_to_type_a_handle_gives_one_form() {
        for typed in [
            "jos\u{e9}",
            "jose\u{301}",
            "JOS\u{c9}",
            "JOSE\u{301}",
            "Jose\u{301}",
        ] {
            assert_eq!(form(typed).unwrap(), "jos\u{e9}", "{typed}");
        }
        assert_eq!(form("\u{ff21}lice").unwrap(), "alice", "full width");
        for typed in ["ΣΊΣΥΦΟΣ", "Σίσυφος"] {
            assert_eq!(form(typed).unwrap(), "σίσυφος");
        }
    }

    #[test]
    fn form_of_a_form_is_itself() {
        for typed in [
            "Alice",
            "jose\u{301}",
            "ΣΊΣΥΦΟΣ",
            "İstanbul",
            "\u{1e9e}",
            "日本語",
            "עברית",
        ] {
            if let Ok(once) = form(typed) {
                assert_eq!(form(&once), Ok(once), "{typed}");
            }
        }
    }

    #[test]
    fn what_is_no_username_is_refused() {
        for typed in [
            "",
            " ",
            "a b",
            "a\u{202e}b",
            "\u{2066}a",
            "a\u{200b}b",
            "a\u{ad}b",
            "☃",
            "a\0",
        ] {
            assert!(form(typed).is_err(), "{typed:?}");
        }
        assert_eq!(form("a@b"), Err(ParseHandleError::Character('@').into()));
        assert_eq!(
            form(&"a".repeat(1_000_000)),
            Err(ParseHandleError::TooLong.into())
        );
    }

    #[test]
    fn scripts_written_together_pass_and_imitations_do_not() {
        let scripts = |typed: &str| check_scripts(&canonical(typed).unwrap());
        for typed in [
            "user-1",
            "алиса",
            "josé.2",
            "日本語",
            "日本語abc",
            "カナ漢字ひら",
            "한국어",
            "42",
        ] {
            assert_eq!(scripts(typed), Ok(()), "{typed}");
        }
        for typed in ["us\u{435}r", "p\u{430}ypal", "\u{3b1}lice"] {
            assert_eq!(scripts(typed), Err(HandleError::Mixed), "{typed}");
        }
    }

    #[test]
    fn confusable_texts_have_one_look() {
        let same = |a, b| Look::of(a) == Look::of(b);
        assert!(same("user", "us\u{435}r"));
        assert!(same("coco", "\u{441}\u{43e}\u{441}\u{43e}"));
        assert!(same("bob", "b0b"));
        assert!(same("alice1", "alicel"));
        assert!(same("σίσυφος", "σίσυφοσ"));
        assert!(!same("alice", "alina"));
    }
}
