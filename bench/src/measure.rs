//! Counting: instructions with callgrind, system calls with strace, and throughput in alternating rounds.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    folder::{ANSWER, HOST, Site},
    load::{CONNECTIONS, Load, Plan},
    process::{Process, free_port, run},
    signing::hashing,
};

/// Requests before counting begins: pools are full, code is warm.
const WARM: usize = 10 * CONNECTIONS;
/// Requests that are counted.
const COUNTED: usize = 40 * CONNECTIONS;
/// Rounds of the throughput comparison, each of both.
const ROUNDS: usize = 5;
const ROUND_SECONDS: u32 = 3;
/// A folder of 100,000 Apis under valgrind takes its time.
const START: Duration = Duration::from_secs(600);

/// What one request costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// User instructions, callgrind's count.
    pub(crate) instructions: f64,
    /// System calls.
    pub(crate) calls: f64,
}

/// Ratio of requests per second, ours to nginx.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// Instructions of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) all: f64,
    /// Those that hash for signatures: in software here.
    pub(crate) hashing: f64,
}

/// Where the upstream listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// HTTP/1.1.
    pub(crate) http: u16,
    /// HTTP/2 by prior knowledge.
    pub(crate) http2: u16,
}

/// The upstream that all share.
pub(crate) struct Bench {
    home: PathBuf,
    ours: PathBuf,
    ports: Ports,
    _upstream: Process,
}

/// How a gateway is run while it is counted.
#[derive(Clone, Copy)]
enum Under {
    Nothing,
    Callgrind,
    Strace,
}

impl Bench {
    /// With the upstream running. `binary` is the gateway; without one it is built.
    pub(crate) fn new(home: &Path, binary: Option<&Path>) -> Result<Self> {
        for tool in [
            "nginx",
            "h2load",
            "valgrind",
            "callgrind_control",
            "strace",
            "taskset",
            "openssl",
        ] {
            run(Command::new("sh").args(["-c", &format!("command -v {tool}")]))
                .with_context(|| format!("{tool} is missing (Debian: apt-get install nginx-light nghttp2-client valgrind strace util-linux openssl)"))?;
        }
        fs::create_dir_all(home)?;
        let home = home.canonicalize()?;
        let ours = match binary {
            Some(binary) => binary.to_owned(),
            None => {
                println!("building paifang (release)");
                run(Command::new("cargo").args([
                    "build",
                    "--quiet",
                    "--release",
                    "-p",
                    "paifang",
                ]))?;
                PathBuf::from("target/release/paifang")
            }
        };
        let ports = Ports {
            http: free_port()?,
            http2: free_port()?,
        };
        let config = home.join("nginx-upstream.conf");
        fs::write(&config, upstream(&home, ports))?;
        let process = Process::start(
            Command::new("taskset")
                .args(["-c", "1", "nginx", "-c"])
                .arg(&config),
            &home.join("upstream.log"),
        )?;
        wait_port(ports.http)?;
        Ok(Self {
            home,
            ours: ours
                .canonicalize()
                .with_context(|| format!("no gateway at {}", ours.display()))?,
            ports,
            _upstream: process,
        })
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// What a request costs nginx.
    pub(crate) fn nginx(&self, site: &Site, plan: &Plan<'_>) -> Result<Cost> {
        self.cost(plan, |under| self.start_nginx(site, plan.tls, under))
    }

    /// What a request costs us, with the Apis of `folder`.
    pub(crate) fn ours(&self, folder: &Path, plan: &Plan<'_>) -> Result<Cost> {
        self.cost(plan, |under| self.start_ours(folder, plan.tls, under))
    }

    /// Instructions of a request of each plan, and those of them that hash, all in one run of our gateway. What callgrind knows of plan n is left in
    /// `target/bench/callgrind.out.n`, for callgrind_annotate.
    pub(crate) fn count_in_turn(&self, folder: &Path, plans: &[Plan<'_>]) -> Result<Vec<Count>> {
        let (process, address) = self.start_ours(folder, false, Under::Callgrind)?;
        let mut counts = Vec::new();
        for (at, plan) in plans.iter().enumerate() {
            let mut load = Load::open(address, plan)?;
            load.send(WARM)?;
            callgrind(process.id(), "on")?;
            let sent = load.send(COUNTED)?;
            callgrind(process.id(), "off")?;
            // Writes the counts and begins again with none.
            run(Command::new("callgrind_control").args(["-d", &process.id().to_string()]))?;
            let file = self.home.join(format!("callgrind.out.{}", at + 1));
            let all = total(&file)?;
            counts.push(Count {
                all: all / as_f64(sent),
                hashing: hashing(&file)? / as_f64(sent),
            });
        }
        process.end()?;
        Ok(counts)
    }

    /// Our gateway with nothing that counts.
    pub(crate) fn plainly(&self, folder: &Path) -> Result<(Process, SocketAddr)> {
        self.start_ours(folder, false, Under::Nothing)
    }

    /// A program on the core that gateways have.
    pub(crate) fn on_first_core(
        &self,
        command: &[&str],
        argument: &Path,
        log: &str,
    ) -> Result<Process> {
        let mut pinned = self.under(Under::Nothing);
        pinned.args(command).arg(argument);
        Process::start(&mut pinned, &self.home.join(log))
    }

    fn cost(
        &self,
        plan: &Plan<'_>,
        start: impl Fn(Under) -> Result<(Process, SocketAddr)>,
    ) -> Result<Cost> {
        let (process, address) = start(Under::Callgrind)?;
        let mut load = Load::open(address, plan)?;
        load.send(WARM)?;
        callgrind(process.id(), "on")?;
        let count = load.send(COUNTED)?;
        callgrind(process.id(), "off")?;
        drop(load);
        let output = process.end()?;
        let collected = number_after(&output, "Collected :")
            .with_context(|| format!("callgrind printed no count:\n{output}"))?;

        // Two runs that differ only in how many requests they serve.
        let calls = |count: usize| -> Result<(f64, usize)> {
            let (process, address) = start(Under::Strace)?;
            let mut load = Load::open(address, plan)?;
            let sent = load.send(count)?;
            drop(load);
            process.end()?;
            let text = fs::read_to_string(self.home.join("strace.txt"))?;
            let line = text
                .lines()
                .rev()
                .find(|line| line.trim_end().ends_with("total"))
                .context("strace printed no total")?;
            let total = line
                .split_whitespace()
                .filter_map(|word| word.parse::<f64>().ok())
                .nth(3)
                .context("strace's total has no number of calls")?;
            Ok((total, sent))
        };
        let (few, few_sent) = calls(WARM)?;
        let (many, many_sent) = calls(WARM + 4 * COUNTED)?;
        Ok(Cost {
            instructions: collected / as_f64(count),
            calls: (many - few) / as_f64(many_sent - few_sent),
        })
    }

    /// Requests per second, ours to nginx: gateway on one core, client and upstream on the other, rounds in turn.
    pub(crate) fn throughput(&self, site: &Site, tls: bool) -> Result<Ratio> {
        let folder = site.simple()?;
        let (_ours, ours) = self.start_ours(&folder, tls, Under::Nothing)?;
        let (_nginx, nginx) = self.start_nginx(site, tls, Under::Nothing)?;
        let mut ratios = Vec::new();
        rate(ours, tls, 1)?;
        rate(nginx, tls, 1)?;
        for round in 0..ROUNDS {
            let (first, second) = if round % 2 == 0 {
                (ours, nginx)
            } else {
                (nginx, ours)
            };
            let (a, b) = (
                rate(first, tls, ROUND_SECONDS)?,
                rate(second, tls, ROUND_SECONDS)?,
            );
            ratios.push(if round % 2 == 0 { a / b } else { b / a });
        }
        ratios.sort_by(f64::total_cmp);
        Ok(Ratio {
            median: ratios[ROUNDS / 2],
            lowest: ratios[0],
            highest: ratios[ROUNDS - 1],
        })
    }

    fn start_ours(&self, folder: &Path, tls: bool, under: Under) -> Result<(Process, SocketAddr)> {
        let state = self.home.join("state");
        let _ = fs::remove_dir_all(&state);
        let mut command = self.under(under);
        command
            .arg(&self.ours)
            .arg("standalone")
            .arg(folder)
            .arg("--state")
            .arg(&state);
        // Like nginx's.
        command.args(["--access-log", "off"]);
        for listener in ["http", "https", "internal", "admin"] {
            command.args([format!("--{listener}"), "127.0.0.1:0".to_owned()]);
        }
        let mut process = Process::start(&mut command, &self.home.join("ours.log"))?;
        let field = if tls { "https=" } else { "http=" };
        let address = process.wait_for(START, |text| {
            let line = text.lines().find(|line| line.starts_with("ready "))?;
            line.split(' ')
                .find_map(|part| part.strip_prefix(field))?
                .parse()
                .ok()
        })?;
        Ok((process, address))
    }

    fn start_nginx(&self, site: &Site, tls: bool, under: Under) -> Result<(Process, SocketAddr)> {
        let (http, https) = (free_port()?, free_port()?);
        let config = site.nginx(http, https)?;
        let process = Process::start(
            self.under(under).args(["nginx", "-c"]).arg(config),
            &self.home.join("nginx.log"),
        )?;
        let port = if tls { https } else { http };
        wait_port(port)?;
        Ok((
            process,
            SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)),
        ))
    }

    /// Removes what callgrind wrote in earlier runs.
    fn forget_counts(&self) {
        for file in fs::read_dir(&self.home).into_iter().flatten().flatten() {
            if file
                .file_name()
                .to_string_lossy()
                .starts_with("callgrind.out")
            {
                let _ = fs::remove_file(file.path());
            }
        }
    }

    fn under(&self, under: Under) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        match under {
            Under::Nothing => &mut command,
            Under::Callgrind => {
                self.forget_counts();
                command
                    .args(["valgrind", "--tool=callgrind", "--instr-atstart=no"])
                    .arg(format!(
                        "--callgrind-out-file={}",
                        self.home.join("callgrind.out").display()
                    ))
            }
            Under::Strace => command
                .args(["strace", "-f", "-c", "-o"])
                .arg(self.home.join("strace.txt")),
        };
        command
    }
}

/// Answers of every kind that a case needs: text of 1 KiB, a function's answer with as much, and what sinks and buses say.
fn upstream(home: &Path, ports: Ports) -> String {
    let (home, Ports { http, http2 }) = (home.display(), ports);
    let body = "b".repeat(ANSWER);
    let function = format!(
        r#"{{"statusCode":200,"headers":{{"Content-Type":"text/plain"}},"body":"{body}","isBase64Encoded":false}}"#
    );
    let bus = r#"{"RequestId":"r","FailedEntryCount":0,"EntryList":[{"EventId":"e-4711"}]}"#;
    format!(
        "worker_processes 1; daemon off; master_process off; pid {home}/nginx-upstream.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; default_type text/plain;
  client_body_temp_path {home}/u1; proxy_temp_path {home}/u2; fastcgi_temp_path {home}/u3; uwsgi_temp_path {home}/u4; scgi_temp_path {home}/u5;
  server {{
    listen 127.0.0.1:{http} backlog=4096; listen 127.0.0.1:{http2} http2 backlog=4096;
    location / {{ return 200 '{body}'; }}
    location = /event {{ return 200 '{function}'; }}
    location /2016-08-15/services/ {{ return 200 '{function}'; }}
    location /2023-03-30/ {{ return 200 '{function}'; }}
    location = /sink {{ return 202; }}
    location = /openapi/putEvents {{ return 200 '{bus}'; }}
  }}
}}
"
    )
}

/// Instructions in what callgrind has just written.
fn total(file: &Path) -> Result<f64> {
    for _ in 0..1000 {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(total) = number_after(&text, "\ntotals:") {
            return Ok(total);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("callgrind wrote no totals to {}", file.display())
}

fn callgrind(id: u32, state: &str) -> Result<()> {
    run(Command::new("callgrind_control").args(["-i", state, &id.to_string()]))?;
    Ok(())
}

/// Requests per second of h2load, which (unlike wrk) can ask for a name that does not resolve.
fn rate(address: SocketAddr, tls: bool, seconds: u32) -> Result<f64> {
    let scheme = if tls { "https" } else { "http" };
    let output = run(Command::new("taskset").args([
        "-c",
        "1",
        "h2load",
        "--h1",
        "-t1",
        &format!("-c{CONNECTIONS}"),
        &format!("-D{seconds}"),
        &format!("--connect-to={address}"),
        &format!("{scheme}://{HOST}/a/b"),
    ]))?;
    if !output.contains(" 0 failed, 0 errored, 0 timeout")
        || !output.contains(" 0 3xx, 0 4xx, 0 5xx")
    {
        bail!("requests failed:\n{output}");
    }
    // "finished in 3.00s, 29960.00 req/s, …"
    number_after(&output, "s, ").with_context(|| format!("h2load printed no rate:\n{output}"))
}

/// Waits until something listens.
pub(crate) fn wait_port(port: u16) -> Result<()> {
    for _ in 0..3000 {
        if std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing listens on port {port}")
}

/// The number that follows `label`.
pub(crate) fn number_after(text: &str, label: &str) -> Option<f64> {
    let rest = &text[text.find(label)? + label.len()..];
    rest.split_whitespace()
        .next()?
        .replace(',', "")
        .parse()
        .ok()
}

/// Counts here are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}
