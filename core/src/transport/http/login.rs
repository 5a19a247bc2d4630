//! Who we are to an HTTP server: read when it is needed, read again when it was refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::config::{Credentials, Remote};
use crate::error::{Error, Kind, Result};
use crate::secret;

/// The name that goes with a password where none is configured: hosts that take tokens take any.
const ANYBODY: &str = "git";

/// The credentials of one connection.
pub(crate) struct Login {
    remote: String,
    credentials: Option<Credentials>,
    /// What was read, as the header has it.
    header: Option<HeaderValue>,
    /// They were refused once, and read again.
    tried_again: bool,
}

impl Login {
    pub(crate) fn new(remote: &Remote) -> Self {
        Self {
            remote: remote.name.to_string(),
            credentials: remote.credentials.clone(),
            header: None,
            tried_again: false,
        }
    }

    /// Puts the credentials into a request's headers, if there are any.
    pub(crate) fn add_to(&mut self, headers: &mut HeaderMap, warnings: &mut Vec<String>) -> Result<()> {
        if self.header.is_none() {
            self.header = self.read(false, warnings)?;
        }
        if let Some(header) = &self.header {
            headers.insert(AUTHORIZATION, header.clone());
        }
        Ok(())
    }

    /// The same as a bearer's token, whatever else is configured: some interfaces take nothing else.
    pub(crate) fn add_as_token(&self, headers: &mut HeaderMap, warnings: &mut Vec<String>) -> Result<()> {
        if let Some(header) = self.read(true, warnings)? {
            headers.insert(AUTHORIZATION, header);
        }
        Ok(())
    }

    fn read(&self, as_token: bool, warnings: &mut Vec<String>) -> Result<Option<HeaderValue>> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let user = credentials.username.as_ref();
        let (source, what) = match (&credentials.password, &credentials.token) {
            (Some(password), _) => (password, "password"),
            (None, Some(token)) => (token, "token"),
            (None, None) => return Ok(None),
        };
        let found = secret::read(source, &format!("{what} of remote {}", self.remote), false)?;
        warnings.extend(found.warning);
        let value = found.secret.text()?;
        // A token alone is a bearer's; with a user name it stands for the password, as most hosts want it.
        let text = if as_token || (user.is_none() && what == "token") {
            Zeroizing::new(format!("Bearer {value}"))
        } else {
            let pair = Zeroizing::new(format!("{}:{value}", user.map_or(ANYBODY, String::as_str)));
            let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
            secret::remember_form(&encoded);
            Zeroizing::new(format!("Basic {}", encoded.as_str()))
        };
        let mut header = HeaderValue::from_str(&text).map_err(|_| {
            let place =
                format!("the {what} of remote {} has characters that no header can carry", self.remote);
            Error::new(Kind::Credentials, place)
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// They were refused: whether to read them again and to try once more.
    pub(crate) fn try_again(&mut self) -> bool {
        let may = self.header.is_some() && !self.tried_again;
        self.tried_again = true;
        self.header = None;
        may
    }

    /// They were refused: the next use reads them again.
    pub(crate) fn forget(&mut self) {
        self.header = None;
    }

    /// They were accepted.
    pub(crate) fn is_good(&mut self) {
        self.tried_again = false;
    }

    /// In words, without anything secret.
    pub(crate) fn what_was_used(&self) -> Option<String> {
        let Some(credentials) =
            self.credentials.as_ref().filter(|c| c.password.is_some() || c.token.is_some())
        else {
            return Some(format!("no credentials are configured for remote {}", self.remote));
        };
        let user = credentials.username.as_ref();
        let what = if credentials.password.is_some() { "password" } else { "token" };
        Some(match user {
            Some(user) => format!("logged in as {user} with the {what} of remote {}", self.remote),
            None => format!("with the {what} of remote {}", self.remote),
        })
    }
}
