//! What real container runtimes start in these tests: a root folder with one static program.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::harness::TestNetns;

/// The program, in the container: a shell, a web server and a client.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fills a folder: it will be a container's root. Its web page says who it is.
pub(crate) fn fill(root: &Path, page: &str) {
    for folder in ["bin", "www", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    fs::write(root.join("www/index.html"), page).unwrap();
}

/// What a container does that serves its page on port 80.
pub(crate) const SERVE: [&str; 6] = [BUSYBOX, "httpd", "-f", "-p", "80", "-h/www"];

/// What a container does that asks for the page at an address. (`wget` of a static busybox cannot resolve.)
pub(crate) fn fetching(address: &str) -> [String; 4] {
    let line = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | {BUSYBOX} nc -w 5 {address} 80");
    [BUSYBOX, "sh", "-c", &line].map(str::to_owned)
}

/// A page at an address, as seen from a namespace.
pub(crate) fn fetch(from: &TestNetns, address: &str, page: &str) -> Option<String> {
    let to: SocketAddr = address.parse().unwrap();
    let connected = from.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    let mut stream = connected.ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("GET {page} HTTP/1.0\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
