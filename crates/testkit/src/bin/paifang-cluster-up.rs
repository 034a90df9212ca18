//! Starts a cluster to develop against and keeps it until this program ends, however it ends:
//! `cargo run -p paifang-testkit --bin paifang-cluster-up -- control-plane`.
//!
//! For a node with Paifang installed there is `cargo xtask cluster up`.

#![expect(clippy::print_stdout, reason = "it tells where the cluster is")]

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use paifang_testkit::ControlPlane;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["control-plane"] => {
            let plane = ControlPlane::start()?;
            plane.start_controllers()?;
            println!("export KUBECONFIG={}", plane.kubeconfig().display());
            println!(
                "# in plain HTTP, with an administrator's rights: http://{}",
                plane.plain()
            );
            println!("# until this program ends");
            loop {
                thread::sleep(Duration::from_secs(3600));
            }
        }
        _ => bail!("usage: paifang-cluster-up control-plane"),
    }
}
