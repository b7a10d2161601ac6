//! What xenstore has refused, such as for a lack of memory or a quota: it is tried again, because no
//! watch tells when it would be granted.
//!
//! Must never take the end of the connection for a refusal: that ends the daemon.

use std::time::Duration;

use xen::{Store, StoreError};

use super::Control;
use crate::crew::Crew;
use crate::directory::DeviceId;

/// What was refused is tried again after so long, if nothing happens before.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// What xenstore can refuse something for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Which devices there are.
    Devices,
    /// Which guests are back.
    Guests,
    /// A device.
    Device(DeviceId),
}

impl Subject {
    pub(super) const fn device(self) -> Option<DeviceId> {
        match self {
            Self::Device(id) => Some(id),
            Self::Devices | Self::Guests => None,
        }
    }
}

impl<S: Store, C: Crew> Control<S, C> {
    /// Whether xenstore has refused something. No watch will tell when it is worth another try, so
    /// [`due`](Self::due) does.
    pub fn is_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }

    /// Notes how it went with xenstore; only the end of the connection is an error.
    pub(super) fn note_refusal(
        &mut self,
        subject: Subject,
        result: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let error = match result {
            Ok(()) => {
                self.stuck.remove(&subject);
                return Ok(());
            }
            Err(StoreError::Connection(reason)) => return Err(StoreError::Connection(reason)),
            Err(error) => error,
        };
        // Said once, however often it is tried.
        if self.stuck.get(&subject) != Some(&error) {
            match subject.device() {
                Some(id) => self.complain(id, &format_args!("xenstore: {error}; trying again")),
                None => log::error!("{subject:?}: xenstore: {error}; trying again"),
            }
        }
        self.stuck.insert(subject, error);
        Ok(())
    }
}
