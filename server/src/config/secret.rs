//! The file with the cluster's secret: read once, at the start, and only if nobody else on this machine can read it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use folio_raft::secret::{ClusterSecret, SECRET_BYTES_MAX};

use super::values::{BadValue, bad};

/// Bytes that are read: the longest secret, with a line feed and some white space.
const FILE_BYTES_MAX: u64 = SECRET_BYTES_MAX as u64 + 64;
/// Permissions of anybody but the owner.
const OTHERS: u32 = 0o077;

/// The secret in `file`, which is relative to the configuration's folder; `key` names it in an error.
pub(super) fn read(key: &str, folder: &Path, file: &Path) -> Result<ClusterSecret, BadValue> {
    let file = folder.join(file);
    let shown = file.display();
    let unreadable = |error: std::io::Error| bad(key, format!("cannot read {shown}: {error}"));
    let open = File::open(&file).map_err(unreadable)?;
    let metadata = open.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(bad(key, format!("{shown} is no file")));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        let remedy =
            format!("{shown} has the mode {mode:04o}, others could read it: run `chmod 600 {shown}`");
        return Err(bad(key, remedy));
    }
    let mut text = Vec::new();
    open.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    ClusterSecret::parse(&text).map_err(|error| {
        let make =
            "a new one is made by `(umask 077; openssl rand -hex 32 > FILE)`, and every node gets the same";
        bad(key, format!("{shown} holds no secret: {error}; {make}"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn with(text: &[u8], mode: u32) -> Result<ClusterSecret, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        read("secret_file", dir.path(), Path::new("secret")).map_err(|error| error.message)
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        for mode in [0o644, 0o640, 0o604, 0o660, 0o601] {
            let error = with(&[b'x'; 40], mode).unwrap_err();
            assert!(error.contains(&format!("{mode:04o}")) && error.contains("chmod 600 /"), "{error}");
        }
        assert!(with(&[b'x'; 40], 0o600).is_ok() && with(&[b'x'; 40], 0o400).is_ok());
    }

    #[test]
    fn what_is_no_secret_is_refused_with_the_file_and_the_reason() {
        let error = with(b"too short\n", 0o600).unwrap_err();
        assert!(error.contains("secret holds no secret: it has 9 bytes"), "{error}");
        assert!(with(&[b'x'; SECRET_BYTES_MAX + 1], 0o600).is_err());
        let folder = tempfile::tempdir().unwrap();
        let error = read("secret_file", folder.path(), Path::new("nowhere")).unwrap_err();
        assert!(error.message.contains("nowhere"), "{error:?}");
        assert!(read("secret_file", folder.path(), Path::new(".")).is_err());
    }
}
