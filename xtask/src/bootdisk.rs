//! A disk that a guest boots from by itself: an ext4 file system with our kernel and a menu.

use std::fs;
use std::path::Path;

use crate::error::{Context, Result};
use crate::host::{self, Host};

/// Bytes of such a disk.
pub const BYTES: u64 = 24 << 20;

/// Makes the file system, label `/`, on an image that is there: `/boot/pvblk`, and
/// `/boot/grub/menu.lst` that boots it with `command_line`.
pub fn fill(host: Host, image: &Path, kernel: &Path, command_line: &str) -> Result<()> {
    let tree = image.with_added_extension("tree");
    host::remove_folder(&tree)?;
    let grub = tree.join("boot/grub");
    fs::create_dir_all(&grub).context(|| format!("making {}", grub.display()))?;
    fs::copy(kernel, tree.join("boot/pvblk"))
        .context(|| format!("copying {}", kernel.display()))?;
    let menu = grub.join("menu.lst");
    fs::write(&menu, menu_of(command_line)).context(|| format!("writing {}", menu.display()))?;
    let mut mke2fs = host::tool("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "/", "-d"]);
    let made = host.run(mke2fs.arg(&tree).arg(image));
    host::remove_folder(&tree)?;
    made
}

/// A menu with one entry (GRUB 0.97's manual, "Configuration").
pub fn menu_of(command_line: &str) -> String {
    format!("default 0\ntimeout 0\ntitle pvblk\nroot (hd0)\nkernel /boot/pvblk {command_line}\n")
}
