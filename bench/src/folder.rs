//! What the gateways serve: nginx's configuration, and folders of YAML (written as JSON, which YAML contains).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::process::run;

/// The host of the simple scenarios; fleets use names below it.
pub(crate) const HOST: &str = "bench.localtest";
pub(crate) const KEY: &str = "203700777";
pub(crate) const SECRET: &str = "benchmark-secret-not-for-production";
/// Bytes of the upstream's answer.
pub(crate) const ANSWER: usize = 1024;
/// Apis of one group, the most by default.
const PER_GROUP: usize = 1000;

/// Certificates, the upstream's port, and where to write.
pub(crate) struct Site {
    home: PathBuf,
    upstream: u16,
}

/// Many Apis in groups of a thousand, the group with number n at `gn.bench.localtest`.
pub(crate) struct Fleet {
    pub(crate) apis: usize,
    pub(crate) signed: bool,
}

impl Fleet {
    pub(crate) fn open(apis: usize) -> Self {
        Self {
            apis,
            signed: false,
        }
    }

    pub(crate) fn signed(apis: usize) -> Self {
        Self { apis, signed: true }
    }

    pub(crate) fn host(api: usize) -> String {
        format!("g{}.{HOST}", api / PER_GROUP)
    }

    /// The target of an Api, with parameters where it has some.
    pub(crate) fn target(&self, api: usize) -> String {
        let base = format!(
            "/v{}/resource-{}/{}/item-{api}",
            api % 7,
            api % 97,
            api % PER_GROUP
        );
        if self.signed {
            format!("{base}?days=3&name=bench")
        } else {
            base
        }
    }

    fn path(api: usize) -> String {
        format!(
            "/v{}/resource-{}/{}/[item]",
            api % 7,
            api % 97,
            api % PER_GROUP
        )
    }

    /// The objects of one group with its Apis.
    pub(crate) fn group(&self, number: usize, upstream: u16) -> Vec<Value> {
        let name = format!("g{number}");
        let mut objects = vec![
            kind(
                "ApiGroup",
                &name,
                json!({"displayName": format!("bench_{number}"), "qpsLimit": 1_000_000}),
            ),
            kind(
                "DomainBinding",
                &format!("{name}-domain"),
                json!({"groupRef": {"name": name}, "domain": format!("{name}.{HOST}"), "network": "Internet", "tls": {"secretRef": {"name": "bench-tls"}}}),
            ),
        ];
        let from = number * PER_GROUP;
        objects.extend(
            (from..self.apis.min(from + PER_GROUP)).map(|api| self.api(api, &name, upstream)),
        );
        if self.signed {
            objects.push(kind(
                "Authorization",
                &format!("{name}-grant"),
                json!({"group": {"name": name}, "apps": [{"name": "bench"}], "stage": "RELEASE"}),
            ));
        }
        objects
    }

    fn api(&self, api: usize, group: &str, upstream: u16) -> Value {
        let auth = if self.signed {
            json!({"type": "App"})
        } else {
            json!({"type": "Anonymous"})
        };
        let mut parameters = vec![
            json!({"name": "item", "in": "Path", "type": "String", "required": true, "backend": {"name": "item", "in": "Query"}}),
        ];
        if self.signed {
            parameters.push(
                json!({"name": "days", "in": "Query", "type": "Int", "minimum": 1, "maximum": 14}),
            );
            parameters.push(json!({"name": "name", "in": "Query", "type": "String", "maxLength": 40, "backend": {"name": "X-Name", "in": "Header"}}));
        }
        kind(
            "Api",
            &format!("api-{api}"),
            json!({
                "groupRef": {"name": group},
                "displayName": format!("api_{api}"),
                "auth": auth,
                "request": {"protocols": ["HTTP", "HTTPS"], "method": "GET", "path": Self::path(api), "mode": "Mapping", "parameters": parameters},
                "backend": {"http": {"address": format!("http://127.0.0.1:{upstream}")}, "path": "/item"},
                "stages": {"RELEASE": {}},
            }),
        )
    }

    pub(crate) fn groups(&self) -> usize {
        self.apis.div_ceil(PER_GROUP)
    }
}

impl Site {
    pub(crate) fn new(home: &Path, upstream: u16) -> Result<Self> {
        let site = Self {
            home: home.canonicalize()?,
            upstream,
        };
        if !site.certificate().exists() {
            run(Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                ])
                .args([
                    "-days",
                    "30",
                    "-subj",
                    "/CN=bench",
                    "-addext",
                    &format!("subjectAltName=DNS:{HOST},DNS:*.{HOST}"),
                    "-keyout",
                    &site.key().to_string_lossy(),
                    "-out",
                    &site.certificate().to_string_lossy(),
                ]))?;
        }
        Ok(site)
    }

    fn certificate(&self) -> PathBuf {
        self.home.join("bench.crt")
    }

    fn key(&self) -> PathBuf {
        self.home.join("bench.key")
    }

    /// nginx as a proxy, tuned as its own guide says, one worker, no log.
    pub(crate) fn nginx(&self, http: u16, https: u16) -> Result<PathBuf> {
        let path = self.home.join("nginx-proxy.conf");
        fs::write(
            &path,
            format!(
                "worker_processes 1; daemon off; master_process off; pid {home}/nginx-proxy.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3; uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  upstream u {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{http} reuseport; listen 127.0.0.1:{https} ssl http2 reuseport; server_name {HOST};
    ssl_certificate {crt}; ssl_certificate_key {key}; ssl_session_tickets on;
    location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header X-Forwarded-For $remote_addr; }}
  }}
}}
",
                home = self.home.display(),
                upstream = self.upstream,
                crt = self.certificate().display(),
                key = self.key().display(),
            ),
        )?;
        Ok(path)
    }

    /// One group, one open Api that passes everything on: what nginx is asked to do.
    pub(crate) fn simple(&self) -> Result<PathBuf> {
        let api = json!({
            "groupRef": {"name": "simple"},
            "displayName": "simple",
            "auth": {"type": "Anonymous"},
            "request": {"protocols": ["HTTP", "HTTPS"], "method": "GET", "path": "/*", "mode": "Passthrough"},
            "backend": {"http": {"address": format!("http://127.0.0.1:{}", self.upstream)}, "path": "/*"},
            "stages": {"RELEASE": {}},
        });
        let binding = json!({"groupRef": {"name": "simple"}, "domain": HOST, "network": "Internet", "tls": {"secretRef": {"name": "bench-tls"}}});
        let objects = [
            kind(
                "ApiGroup",
                "simple",
                json!({"displayName": "simple", "qpsLimit": 1_000_000}),
            ),
            kind("DomainBinding", "simple", binding),
            kind("Api", "simple", api),
        ];
        let folder = self.fresh("simple")?;
        write(&folder, "all.yaml", &objects)?;
        self.write_secrets(&folder)?;
        Ok(folder)
    }

    /// A folder with a file for each group of the fleet.
    pub(crate) fn fleet(&self, name: &str, fleet: &Fleet) -> Result<PathBuf> {
        let folder = self.fresh(name)?;
        for number in 0..fleet.groups() {
            write(
                &folder,
                &format!("g{number}.yaml"),
                &fleet.group(number, self.upstream),
            )?;
        }
        self.write_secrets(&folder)?;
        Ok(folder)
    }

    /// A folder with just these objects.
    pub(crate) fn folder(&self, name: &str, objects: &[Value]) -> Result<PathBuf> {
        let folder = self.fresh(name)?;
        write(&folder, "all.yaml", objects)?;
        Ok(folder)
    }

    fn write_secrets(&self, folder: &Path) -> Result<()> {
        let tls = json!({"tls.crt": fs::read_to_string(self.certificate())?, "tls.key": fs::read_to_string(self.key())?});
        let app = json!({"displayName": "bench", "credentials": [{"name": "primary", "type": "KeyPair", "secretRef": {"name": "bench-key"}}]});
        let objects = [
            secret("bench-tls", "kubernetes.io/tls", tls),
            secret(
                "bench-key",
                "Opaque",
                json!({"appKey": KEY, "appSecret": SECRET}),
            ),
            kind("App", "bench", app),
        ];
        write(folder, "secrets.yaml", &objects)
    }

    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let folder = self.home.join("folders").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

pub(crate) fn kind(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "paifang.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn secret(name: &str, of: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": of, "metadata": {"name": name}, "stringData": data})
}

fn write(folder: &Path, name: &str, objects: &[Value]) -> Result<()> {
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    Ok(fs::write(folder.join(name), text.join("\n---\n"))?)
}
