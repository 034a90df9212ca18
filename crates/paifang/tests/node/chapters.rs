//! The chapters of `config/`, followed on a cluster: every command of every page, as it is written. `e2e/pages.py` tells how, and `e2e/test_pages.py` does the
//! same in standalone.

use paifang_testkit::{Image, Node, repository, run};

use crate::cluster::{Scene, forwarding};

#[test]
fn every_chapter_does_on_a_cluster_what_its_page_says() {
    let scene = Scene::beside_others();
    // The pages bring the gateways' ports to this network's loopback.
    let _ports = forwarding();
    let grants = repository().join(".cache/gateway-api/referencegrants.yaml");
    scene
        .kubectl()
        .run(&["apply", "--server-side", "-f", &grants.to_string_lossy()])
        .unwrap();
    load_backends(scene.node);
    let python = repository().join(".cache/venv/bin/python");
    assert!(
        python.exists(),
        "{} is missing; run e2e/setup.sh",
        python.display()
    );
    let said = run(scene
        .node
        .command(&python.to_string_lossy())
        .arg(repository().join("e2e/pages.py"))
        .env("PAIFANG_BIN", env!("CARGO_BIN_EXE_paifang")))
    .unwrap();
    eprintln!("{said}");
}

/// The servers behind some chapters, by the names that the pages give their images.
fn load_backends(node: &Node) {
    let functions = repository().join("config/06-functions/main.py");
    for image in [
        Image::of_program("paifang.test/paifang-sink:1", "paifang-sink"),
        Image::of_program("docker.io/versity/versitygw:v1.8.0", "versitygw"),
        Image::functions("paifang.test/functions:1", &functions),
    ] {
        node.load(&image.unwrap()).unwrap();
    }
}
