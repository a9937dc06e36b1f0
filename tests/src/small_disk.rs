//! A small file system in memory, which can be filled.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::temp_folder;

/// A file system of a few megabytes; it goes when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one.
    ///
    /// # Errors
    /// Why it isn't permitted here.
    pub fn new(megabytes: u32) -> Result<Self, String> {
        let folder = temp_folder("coord-disk");
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        let output = mount.output().map_err(|error| format!("mount: {error}"))?;
        if output.status.success() {
            return Ok(Self { folder });
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.ballast()).expect("the file system takes a name");
        for piece in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what runs on it may be ending.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
