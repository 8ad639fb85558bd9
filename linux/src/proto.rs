//! The names of our route protocols, for `ip route`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where iproute2 looks for names of route protocols.
pub const DIRECTORY: &str = "/etc/iproute2/rt_protos.d";

/// What the file says.
pub const CONTENT: &str = "\
# Who made a route, as `ip route` prints it; written by Manx.
179	manx-bgp
180	manx
";

/// Writes `manx.conf` into the directory, which is made if it does not exist; returns the file's path.
///
/// # Errors
/// [`Error::Os`] if the file system does not let us.
pub fn write(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("manx.conf");
    fs::create_dir_all(directory).map_err(Error::file("make", directory))?;
    fs::write(&path, CONTENT).map_err(Error::file("write", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use manx_routes::{PROTOCOL_BGP, PROTOCOL_OWN};

    #[test]
    fn the_file_names_the_numbers_that_routes_carry() {
        let named: Vec<(u8, &str)> = super::CONTENT
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once('\t').unwrap())
            .map(|(number, name)| (number.parse().unwrap(), name))
            .collect();
        assert_eq!(named, [(PROTOCOL_BGP, "manx-bgp"), (PROTOCOL_OWN, "manx")]);
    }
}
