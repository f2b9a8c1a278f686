//! The crate `broker` knows no wire: its calls are typed, whichever front door makes them.

use super::SourceFile;

const FOLDER: &str = "broker/src/";
/// What frames, headers and sockets are named by.
const WIRE: &[&str] = &[
    "folio_protocol::code",
    "folio_protocol::ext",
    "folio_protocol::fields",
    "folio_protocol::frame",
    "folio_protocol::header",
    "std::net::Tcp",
    "tokio::net",
];

/// Complaints about files of `broker` that name a frame, a header, a request or response code, or a socket.
#[must_use]
pub fn wire(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    let files = files.iter().filter(|file| file.path.starts_with(FOLDER) && file.path.ends_with(".rs"));
    for file in files {
        for (at, line) in file.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(name) = WIRE.iter().find(|name| code.contains(*name)) {
                complaints.push(format!(
                    "{}:{}: {name} belongs to a front door; decode and encode in `server`, and hand the broker typed values",
                    file.path,
                    at + 1
                ));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        wire(&[SourceFile { path: path.to_owned(), text: text.to_owned() }]).len()
    }

    #[test]
    fn a_frame_in_the_broker_is_a_breach_and_elsewhere_none() {
        let text = "use folio_protocol::frame::Frame;\n";
        assert_eq!(complaints("broker/src/send/mod.rs", text), 1);
        assert_eq!(complaints("server/src/reply.rs", text), 0);
        assert_eq!(complaints("broker/src/send/mod.rs", "// no folio_protocol::frame here\n"), 0);
    }
}
