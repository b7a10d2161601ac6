//! Disk specifications as people type them: xl's strings, or a path and a few words.
//!
//! Paths here are the host's; the lab turns them into virtio disks of Dom0 and writes xl's string for
//! those. Only raw images: another format would be read as a raw disk of wrong contents.

use std::path::PathBuf;
use std::str::FromStr;

/// Where a disk's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// A raw image on the host.
    File(PathBuf),
    /// A new disk of zeros of so many bytes, gone after the run.
    Scratch(u64),
}

/// One disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// Where its bytes are.
    pub contents: Contents,
    /// Its name in the guest; unset means the next free one.
    pub vdev: Option<String>,
    /// Refuse writes.
    pub read_only: bool,
}

/// The most disks that [`name_disks`] names: `xvda` to `xvdz`.
pub const DISKS_MAX: usize = 26;

impl FromStr for DiskSpec {
    type Err = String;

    /// Reads `[target,[format,[vdev,[access,]]]][key=value,…][target=…]`, xl's own rules (the last key
    /// `target=` takes the rest of the line), and `size=64M` for a scratch disk.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = Fields::default();
        let mut rest = text;
        let mut position = 0;
        while !rest.is_empty() {
            if let Some(target) = rest.strip_prefix("target=") {
                fields.set("target", target)?;
                break;
            }
            let (word, after) = rest.split_once(',').unwrap_or((rest, ""));
            rest = after;
            let positional = ["target", "format", "vdev", "access"];
            match (word.split_once('='), positional.get(position)) {
                (Some((key, value)), _) => fields.set(key, value)?,
                (None, Some(key)) => {
                    fields.set(key, word)?;
                    position += 1;
                }
                (None, None) => return Err(format!("{word:?} is one field too many")),
            }
        }
        fields.spec()
    }
}

#[derive(Default)]
struct Fields {
    target: Option<String>,
    size: Option<u64>,
    vdev: Option<String>,
    read_only: bool,
}

impl Fields {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value) {
            // An empty positional field keeps its default, as with xl.
            (_, "") => {}
            ("target", path) => self.target = Some(path.to_owned()),
            ("size", size) => self.size = Some(bytes(size)?),
            ("vdev", vdev) => self.vdev = Some(checked_vdev(vdev)?),
            ("format", "raw") => {}
            ("format", other) => {
                return Err(format!("format {other:?} is not supported, only raw"));
            }
            ("access", "rw" | "w") => self.read_only = false,
            ("access", "ro" | "r") => self.read_only = true,
            ("access", other) => return Err(format!("access {other:?} is neither rw nor ro")),
            (key, _) => {
                return Err(format!("unknown key {key:?} (known: format vdev access target size)"));
            }
        }
        Ok(())
    }

    fn spec(self) -> Result<DiskSpec, String> {
        let contents = match (self.target, self.size) {
            (Some(path), None) => Contents::File(path.into()),
            (None, Some(size)) => Contents::Scratch(size),
            (Some(_), Some(_)) => return Err("target and size exclude each other".into()),
            (None, None) => return Err("neither a target nor a size".into()),
        };
        Ok(DiskSpec { contents, vdev: self.vdev, read_only: self.read_only })
    }
}

fn checked_vdev(vdev: &str) -> Result<String, String> {
    let letters = vdev.strip_prefix("xvd").unwrap_or("");
    let fits = letters.len() == 1 && letters.bytes().all(|byte| byte.is_ascii_lowercase());
    if fits {
        Ok(vdev.to_owned())
    } else {
        Err(format!("vdev {vdev:?} is not one of xvda … xvdz"))
    }
}

/// Gives every disk its name: the ones asked for, and the first free ones.
pub fn name_disks(disks: &[DiskSpec]) -> Result<Vec<String>, String> {
    if disks.len() > DISKS_MAX {
        return Err(format!("{} disks, at most {DISKS_MAX}", disks.len()));
    }
    let asked: Vec<&String> = disks.iter().filter_map(|disk| disk.vdev.as_ref()).collect();
    if let Some(twice) = asked.iter().enumerate().find(|(at, name)| asked[..*at].contains(name)) {
        return Err(format!("two disks are called {}", twice.1));
    }
    let mut free = ('a'..='z').map(|letter| format!("xvd{letter}"));
    let mut next = || free.by_ref().find(|name| !asked.contains(&name)).unwrap_or_default();
    Ok(disks.iter().map(|disk| disk.vdev.clone().unwrap_or_else(&mut next)).collect())
}

/// How Dom0 calls the disk that QEMU was given at this place: `/dev/vda`, …
pub fn dom0_device(place: usize) -> String {
    let letter = u8::try_from(place).map_or('?', |place| char::from(b'a'.saturating_add(place)));
    format!("/dev/vd{letter}")
}

/// Reads a size: a number of bytes, or with a unit `K`, `M`, `G`, also written `Ki`, `MiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = &text[digits.len()..];
    let shift = match unit.trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return Err(format!("size {text:?} has an unknown unit")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("size {text:?} is not a number"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("size {text:?} is too large"))
}

/// Reads a size of memory, in MiB.
pub fn mebibytes(text: &str) -> Result<u32, String> {
    let bytes = bytes(text)?;
    match u32::try_from(bytes >> 20) {
        Ok(mebibytes) if mebibytes > 0 && bytes % (1 << 20) == 0 => Ok(mebibytes),
        _ => Err(format!("{text:?} is not a whole number of MiB (try 32M)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> DiskSpec {
        text.parse().unwrap()
    }

    fn file(path: &str, vdev: Option<&str>, read_only: bool) -> DiskSpec {
        let vdev = vdev.map(str::to_owned);
        DiskSpec { contents: Contents::File(path.into()), vdev, read_only }
    }

    #[test]
    fn xl_strings_and_short_ones_are_read() {
        assert_eq!(spec("/a.img"), file("/a.img", None, false));
        assert_eq!(spec("/a.img,vdev=xvdb,access=ro"), file("/a.img", Some("xvdb"), true));
        assert_eq!(spec("/a.img,raw,xvdc,r"), file("/a.img", Some("xvdc"), true));
        assert_eq!(spec("/a.img,,xvdc"), file("/a.img", Some("xvdc"), false));
        let long = "format=raw,vdev=xvda,access=rw,target=/images/a,b=c.img";
        assert_eq!(spec(long), file("/images/a,b=c.img", Some("xvda"), false));
        assert_eq!(spec("size=64M,vdev=xvdb").contents, Contents::Scratch(64 << 20));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "neither"),
            ("format=qcow2,target=/a", "only raw"),
            ("/a,access=x", "neither rw nor ro"),
            ("/a,vdev=sda", "xvda"),
            ("/a,colour=red", "unknown key"),
            ("/a,size=1M", "exclude"),
            ("/a,raw,xvda,rw,more", "too many"),
            ("size=big", "unknown unit"),
        ] {
            let error = text.parse::<DiskSpec>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_given_around_the_ones_asked_for() {
        let disks = [spec("/1"), spec("/2,vdev=xvda"), spec("/3")];
        assert_eq!(name_disks(&disks).unwrap(), ["xvdb", "xvda", "xvdc"]);
        let twice = [spec("/1,vdev=xvdq"), spec("/2,vdev=xvdq")];
        assert!(name_disks(&twice).unwrap_err().contains("xvdq"));
    }

    #[test]
    fn as_many_disks_as_letters_and_no_more() {
        let most = vec![spec("/1"); DISKS_MAX];
        assert_eq!(name_disks(&most).unwrap().last().unwrap(), "xvdz");
        assert!(name_disks(&vec![spec("/1"); DISKS_MAX + 1]).is_err());
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("4k"), Ok(4096));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1Gi"), Ok(1 << 30));
        assert!(bytes("99999999999G").is_err());
        assert_eq!(mebibytes("32M"), Ok(32));
        assert!(mebibytes("512K").is_err());
        assert!(mebibytes("0").is_err());
    }
}
