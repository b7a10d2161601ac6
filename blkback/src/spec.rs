//! Disk strings, as `xl` takes them (`docs/man/xl-disk-configuration.5` of Xen).
//!
//! `key=value` parameters and positional ones may be mixed; positional ones are target, format,
//! vdev, access, in this order. `target=` takes the whole rest of the string, commas included.
//! What this backend cannot do is refused by name and never silently passed over.

use thiserror::Error;

use crate::vdev;

/// A disk to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// The image.
    pub target: String,
    /// The disk's name in the guest, as given.
    pub vdev: String,
    /// Its number.
    pub number: u32,
    /// Whether the guest may not write.
    pub read_only: bool,
}

/// What is wrong with a disk string.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// No image.
    #[error("no target; say target=/path/to/image as the last parameter")]
    NoTarget,
    /// No place in the guest.
    #[error("no vdev; say vdev=xvda")]
    NoVdev,
    /// Not a disk name.
    #[error("vdev {0:?} is not a disk; try xvda, xvdb, …")]
    BadVdev(String),
    /// A format that this backend does not serve.
    #[error("format {0:?} is not served, only raw; convert it with qemu-img convert -O raw")]
    BadFormat(String),
    /// Not an access mode.
    #[error("access {0:?} is not known; use ro (r) or rw (w)")]
    BadAccess(String),
    /// A parameter that nobody knows.
    #[error("parameter {0:?} is not known")]
    Unknown(String),
    /// A parameter that xl knows and this backend cannot do.
    #[error("{0} is not served by this backend; leave it out")]
    Unserved(String),
    /// Said twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// More positional parameters than there are.
    #[error("{0:?} is one parameter too many")]
    TooMany(String),
}

/// The parameters as they were given.
#[derive(Default)]
struct Given<'a> {
    target: Option<&'a str>,
    format: Option<&'a str>,
    vdev: Option<&'a str>,
    access: Option<&'a str>,
}

impl DiskSpec {
    /// Reads a disk string.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut given = Given::default();
        let mut rest = Some(text);
        while let Some(here) = rest {
            let here = here.trim_start();
            if let Some(target) = here.strip_prefix("target=") {
                set(&mut given.target, target.trim_end(), "target")?;
                break;
            }
            let (parameter, others) = match here.split_once(',') {
                Some((parameter, others)) => (parameter, Some(others)),
                None => (here, None),
            };
            given.take(parameter.trim())?;
            rest = others;
        }
        given.finish()
    }
}

impl<'a> Given<'a> {
    fn take(&mut self, parameter: &'a str) -> Result<(), SpecError> {
        match parameter.split_once('=') {
            Some(("format", value)) => set(&mut self.format, value, "format"),
            Some(("vdev", value)) => set(&mut self.vdev, value, "vdev"),
            Some(("access", value)) => set(&mut self.access, value, "access"),
            Some(("backendtype" | "script" | "backend" | "colo-host", _)) => {
                Err(SpecError::Unserved(parameter.into()))
            }
            Some(("devtype", "disk")) => Ok(()),
            Some(("devtype", kind)) => Err(SpecError::Unserved(kind.into())),
            Some((_, _)) => Err(SpecError::Unknown(parameter.into())),
            None => self.take_word(parameter),
        }
    }

    fn take_word(&mut self, word: &'a str) -> Result<(), SpecError> {
        match word {
            // Hints that change nothing here: discards are offered where the image takes them.
            "discard" | "no-discard" | "direct-io-safe" => Ok(()),
            "cdrom" => Err(SpecError::Unserved("cdrom".into())),
            _ => self.take_positional(word),
        }
    }

    fn take_positional(&mut self, word: &'a str) -> Result<(), SpecError> {
        // In the order of their places; an empty one keeps its place and says nothing.
        let places = [&mut self.target, &mut self.format, &mut self.vdev, &mut self.access];
        for place in places {
            if place.is_none() {
                *place = Some(word);
                return Ok(());
            }
        }
        Err(SpecError::TooMany(word.into()))
    }

    fn finish(self) -> Result<DiskSpec, SpecError> {
        let target = self.target.filter(|it| !it.is_empty()).ok_or(SpecError::NoTarget)?;
        let format = self.format.unwrap_or("");
        if !matches!(format, "" | "raw") {
            return Err(SpecError::BadFormat(format.into()));
        }
        let vdev = self.vdev.filter(|it| !it.is_empty()).ok_or(SpecError::NoVdev)?;
        let number = vdev::number(vdev).ok_or_else(|| SpecError::BadVdev(vdev.into()))?;
        let read_only = match self.access.unwrap_or("") {
            "" | "rw" | "w" => false,
            "ro" | "r" => true,
            other => return Err(SpecError::BadAccess(other.into())),
        };
        Ok(DiskSpec { target: target.into(), vdev: vdev.into(), number, read_only })
    }
}

fn set<'a>(
    place: &mut Option<&'a str>,
    value: &'a str,
    name: &'static str,
) -> Result<(), SpecError> {
    if place.is_some_and(|old| !old.is_empty()) {
        return Err(SpecError::Twice(name));
    }
    *place = Some(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(target: &str, vdev: &str, read_only: bool) -> DiskSpec {
        let number = crate::vdev::number(vdev).unwrap();
        DiskSpec { target: target.into(), vdev: vdev.into(), number, read_only }
    }

    #[test]
    fn the_forms_of_the_xl_manual_are_taken() {
        for text in [
            "/dev/vg/guest-volume,,xvda",
            "/dev/vg/guest-volume,raw,xvda,rw",
            "format=raw, vdev=xvda, access=rw, target=/dev/vg/guest-volume",
        ] {
            assert_eq!(DiskSpec::parse(text), Ok(spec("/dev/vg/guest-volume", "xvda", false)));
        }
        let iso = DiskSpec::parse("/root/image.raw,raw,xvdc,ro");
        assert_eq!(iso, Ok(spec("/root/image.raw", "xvdc", true)));
        let mixed = DiskSpec::parse("vdev=xvdb,access=r,target=/images/a.img");
        assert_eq!(mixed, Ok(spec("/images/a.img", "xvdb", true)));
    }

    #[test]
    fn target_takes_the_rest_of_the_string() {
        let found = DiskSpec::parse("vdev=xvda,target=/images/a,b=c,access=ro.img");
        assert_eq!(found, Ok(spec("/images/a,b=c,access=ro.img", "xvda", false)));
    }

    #[test]
    fn hints_change_nothing() {
        let found = DiskSpec::parse("/a,raw,xvda,w,discard,no-discard");
        assert_eq!(found, Ok(spec("/a", "xvda", false)));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        use SpecError as E;
        for (text, want) in [
            ("", E::NoTarget),
            (",raw,xvda", E::NoTarget),
            ("/a", E::NoVdev),
            ("/a,raw,vda,w", E::BadVdev("vda".into())),
            ("/a,qcow2,xvda,w", E::BadFormat("qcow2".into())),
            ("format=vhd,vdev=xvda,target=/a", E::BadFormat("vhd".into())),
            ("/a,raw,xvda,rx", E::BadAccess("rx".into())),
            ("/a,raw,xvda,w,more", E::TooMany("more".into())),
            ("/a,raw,xvda,color=red", E::Unknown("color=red".into())),
            ("/a,raw,xvda,backendtype=qdisk", E::Unserved("backendtype=qdisk".into())),
            ("/a,raw,xvda,cdrom", E::Unserved("cdrom".into())),
            ("/a,raw,xvda,devtype=cdrom", E::Unserved("cdrom".into())),
            ("vdev=xvda,vdev=xvdb,target=/a", E::Twice("vdev")),
        ] {
            let found = DiskSpec::parse(text).unwrap_err();
            assert_eq!(found, want, "{text}");
            assert!(!found.to_string().contains('\n'));
        }
    }
}
