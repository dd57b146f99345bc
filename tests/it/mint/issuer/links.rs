//! Links in the directory that is hosted lead nowhere: what they name is not written.

use std::os::unix::fs::symlink;

use super::Hosted;
use crate::harness::{keyhatch, temp_dir, text};

#[test]
fn a_link_in_the_place_of_a_document_is_replaced() {
    let hosted = Hosted::start();
    let elsewhere = temp_dir();
    let precious = elsewhere.path().join("precious");
    std::fs::write(&precious, "not a key set").unwrap();
    hosted.publish();
    let document = hosted.documents().join("jwks.json");
    let keys = std::fs::read_to_string(&document).unwrap();
    std::fs::remove_file(&document).unwrap();
    // A link to what the document should be is no document either: its owner could change it.
    for content in ["not a key set", &keys] {
        std::fs::write(&precious, content).unwrap();
        let _ = std::fs::remove_file(&document);
        symlink(&precious, &document).unwrap();
        hosted.publish();
        assert!(document.symlink_metadata().unwrap().is_file(), "{content}");
        assert_eq!(std::fs::read_to_string(&document).unwrap(), keys);
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), content);
    }
}

#[test]
fn a_link_in_the_place_of_a_directory_is_refused() {
    let hosted = Hosted::start();
    let elsewhere = temp_dir();
    std::fs::create_dir(hosted.documents()).unwrap();
    symlink(elsewhere.path(), hosted.documents().join(".well-known")).unwrap();
    let mut write = keyhatch(&["issuer", "write", "--out"]);
    write.arg(hosted.documents());
    write.env("KEYHATCH_DIR", hosted.broker.config.state.join("operators/admin"));
    let refused = write.output().unwrap();
    assert!(!refused.status.success());
    let said = text(&refused.stderr);
    assert!(said.contains(".well-known/openid-configuration"), "{said}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
