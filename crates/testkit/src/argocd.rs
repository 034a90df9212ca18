//! Argo CD beside a cluster: its real application-controller and repo-server, on a Git repository in a folder. Without its API server
//! and user interface: Applications are objects of the cluster.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{ControlPlane, Program, program, repository, run, wait};

/// The namespace of Argo CD and its Applications.
const NAMESPACE: &str = "argocd";
const APPLICATIONS: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications";
const PATIENCE: Duration = Duration::from_secs(60);

/// Argo CD at work on one cluster. It ends with this value, or with the cluster.
#[derive(Debug)]
pub struct ArgoCd<'a> {
    plane: &'a ControlPlane,
    programs: Vec<Program>,
}

/// What Argo CD says of an Application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// `Synced`, `OutOfSync` or `Unknown`; empty at first.
    pub sync: String,
    /// `Healthy`, `Progressing`, `Degraded`, `Missing`, `Suspended` or `Unknown`; empty at first.
    pub health: String,
    /// The commit it compared with last.
    pub revision: String,
    /// Of each object that is not healthy: `Kind/name: health: message`.
    pub unhealthy: Vec<String>,
    /// Of each object that is not as in Git: `Kind/name`.
    pub out_of_sync: Vec<String>,
    /// What went wrong: conditions of the Application, and the message of the last sync where that failed.
    pub errors: Vec<String>,
}

/// A Git repository in a folder of the cluster.
#[derive(Debug)]
pub struct GitRepository {
    folder: PathBuf,
}

// === impl ArgoCd ===

impl<'a> ArgoCd<'a> {
    /// Starts it. `settings` is added to the data of `argocd-cm`: health checks, for example. It looks for new commits every 5 s, and at a change of an object at once.
    ///
    /// # Errors
    /// A program is missing (`e2e/setup.sh`) or ends at once, or the cluster has an Argo CD already.
    pub fn start(plane: &'a ControlPlane, settings: &Value) -> Result<Self> {
        install(plane, settings)?;
        let [redis, repo, metrics, repo_metrics] = plane.net().free_ports()?;
        let home = plane.folder().join("argocd");
        for folder in ["tls", "ssh", "tmp"] {
            fs::create_dir_all(home.join(folder))?;
        }
        let redis_address = format!("127.0.0.1:{redis}");
        let mut store = plane.net().command("redis-server");
        store.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
            &redis.to_string(),
        ]);
        let mut repo_server = command(plane, &home, "repo-server")?;
        repo_server
            .args([
                "--disable-tls",
                "--redis",
                &redis_address,
                "--address",
                "127.0.0.1",
            ])
            .args([
                format!("--port={repo}"),
                format!("--metrics-port={repo_metrics}"),
                "--metrics-address=127.0.0.1".to_owned(),
            ]);
        let mut controller = command(plane, &home, "application-controller")?;
        controller
            .args([
                "--repo-server-plaintext",
                "--namespace",
                NAMESPACE,
                "--app-resync",
                "5",
                "--redis",
                &redis_address,
            ])
            .args([
                format!("--repo-server=127.0.0.1:{repo}"),
                format!("--metrics-port={metrics}"),
            ]);
        let mut argo = Self {
            plane,
            programs: Vec::new(),
        };
        for (name, command) in [
            ("argocd-redis", store),
            ("argocd-repo-server", repo_server),
            ("argocd-application-controller", controller),
        ] {
            argo.programs.push(plane.spawn(name, command)?);
        }
        wait("Argo CD's programs listen", PATIENCE, || {
            argo.programs.iter_mut().try_for_each(Program::must_run)?;
            for port in [redis, repo, metrics] {
                plane
                    .net()
                    .connect((Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1))?;
            }
            anyhow::Ok(())
        })?;
        Ok(argo)
    }

    /// Makes an Application of a folder in a repository, whose objects go into `namespace`: synced by itself, pruned and healed.
    ///
    /// # Errors
    /// There is one of that name.
    pub fn create(
        &self,
        name: &str,
        repository: &GitRepository,
        path: &str,
        namespace: &str,
    ) -> Result<()> {
        let application = json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": name, "finalizers": ["resources-finalizer.argocd.argoproj.io"]},
            "spec": {
                "project": "default",
                "source": {"repoURL": repository.url(), "path": path, "targetRevision": "HEAD"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": namespace},
                "syncPolicy": {
                    "automated": {"prune": true, "selfHeal": true},
                    "syncOptions": ["CreateNamespace=true", "ServerSideApply=true"],
                    "retry": {"limit": 10, "backoff": {"duration": "1s", "factor": 1}},
                },
            },
        });
        self.plane.ask("POST", APPLICATIONS, &application)?;
        Ok(())
    }

    /// Deletes an Application and, with it, its objects; returns when both are gone.
    ///
    /// # Errors
    /// They are not gone within a minute.
    pub fn delete(&self, name: &str) -> Result<()> {
        let path = format!("{APPLICATIONS}/{name}");
        self.plane.ask("DELETE", &path, &Value::Null)?;
        wait(&format!("Application {name} is gone"), PATIENCE, || {
            let gone = self.plane.ask("GET", &path, &Value::Null).is_err();
            ensure!(gone, "it is still there");
            Ok(())
        })
    }

    /// What Argo CD says of an Application.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn application(&self, name: &str) -> Result<Application> {
        let object = self
            .plane
            .ask("GET", &format!("{APPLICATIONS}/{name}"), &Value::Null)?;
        Ok(Application::of(&object["status"]))
    }

    /// Lets Argo CD look for new commits now.
    ///
    /// # Errors
    /// There is no Application of that name.
    pub fn refresh(&self, name: &str) -> Result<()> {
        let annotation =
            json!({"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}});
        self.plane
            .ask("PATCH", &format!("{APPLICATIONS}/{name}"), &annotation)?;
        Ok(())
    }

    /// Waits until an Application is Synced to the commit and has this health; what Argo CD says of it then.
    ///
    /// # Errors
    /// It does not come to that within `patience`: with what it says instead.
    pub fn wait(
        &self,
        name: &str,
        revision: &str,
        health: &str,
        patience: Duration,
    ) -> Result<Application> {
        wait(
            &format!("Application {name} is Synced and {health}"),
            patience,
            || {
                let application = self.application(name)?;
                let there = application.sync == "Synced"
                    && application.health == health
                    && application.revision == revision;
                ensure!(there, "{application:#?}");
                Ok(application)
            },
        )
    }
}

impl Drop for ArgoCd<'_> {
    fn drop(&mut self) {
        for program in self.programs.drain(..) {
            let _ = program.kill();
        }
    }
}

fn command(plane: &ControlPlane, home: &Path, part: &str) -> Result<Command> {
    let bin = repository().join(".cache/bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = plane.net().command(program("paifang-argocd")?);
    command
        .arg(part)
        .args(["--loglevel", "info"])
        .env("KUBECONFIG", plane.kubeconfig())
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("HOME", home)
        .env("TMPDIR", home.join("tmp"))
        .env("ARGOCD_FAKE_IN_CLUSTER", "true")
        // Health and its message in the Application, where tests can read it; else only the API server tells.
        .env(
            "ARGOCD_APPLICATION_CONTROLLER_PERSIST_RESOURCE_HEALTH",
            "true",
        )
        .env("ARGOCD_GPG_ENABLED", "false")
        .env("ARGOCD_TLS_DATA_PATH", home.join("tls"))
        .env("ARGOCD_SSH_DATA_PATH", home.join("ssh"))
        .current_dir(home);
    Ok(command)
}

/// The objects that Argo CD's own manifests would bring.
fn install(plane: &ControlPlane, settings: &Value) -> Result<()> {
    plane
        .install_folder(&repository().join(".cache/argocd-crds"))
        .context("Argo CD's definitions; e2e/setup.sh brings them")?;
    plane.ask(
        "POST",
        "/api/v1/namespaces",
        &json!({"metadata": {"name": NAMESPACE}}),
    )?;
    let objects = format!("/api/v1/namespaces/{NAMESPACE}");
    let part_of = json!({"app.kubernetes.io/part-of": "argocd"});
    let mut data = json!({"timeout.reconciliation": "5s"});
    if let (Some(data), Some(more)) = (data.as_object_mut(), settings.as_object()) {
        data.extend(more.clone());
    }
    for (kind, name, key, data) in [
        ("configmaps", "argocd-cm", "data", data),
        ("configmaps", "argocd-rbac-cm", "data", json!({})),
        (
            "secrets",
            "argocd-secret",
            "stringData",
            json!({"server.secretkey": "for tests only"}),
        ),
    ] {
        let object = json!({"metadata": {"name": name, "labels": part_of}, key: data});
        plane.ask("POST", &format!("{objects}/{kind}"), &object)?;
    }
    let project = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default"},
        "spec": {
            "sourceRepos": ["*"],
            "destinations": [{"server": "*", "namespace": "*"}],
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
        },
    });
    plane.ask(
        "POST",
        "/apis/argoproj.io/v1alpha1/namespaces/argocd/appprojects",
        &project,
    )?;
    Ok(())
}

// === impl Application ===

impl Application {
    fn of(status: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name =
            |resource: &Value| format!("{}/{}", text(&resource["kind"]), text(&resource["name"]));
        let resources = status["resources"].as_array().cloned().unwrap_or_default();
        let health = |resource: &Value| text(&resource["health"]["status"]);
        let unhealthy = resources
            .iter()
            .filter(|resource| !matches!(&*health(resource), "" | "Healthy"));
        let differing = resources
            .iter()
            .filter(|resource| resource["status"] != "Synced");
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let mut errors: Vec<_> = conditions
            .iter()
            .map(|condition| {
                format!(
                    "{}: {}",
                    text(&condition["type"]),
                    text(&condition["message"])
                )
            })
            .collect();
        if matches!(
            status["operationState"]["phase"].as_str(),
            Some("Failed" | "Error")
        ) {
            errors.push(text(&status["operationState"]["message"]));
        }
        Self {
            sync: text(&status["sync"]["status"]),
            health: text(&status["health"]["status"]),
            revision: text(&status["sync"]["revision"]),
            unhealthy: unhealthy
                .map(|resource| {
                    format!(
                        "{}: {}: {}",
                        name(resource),
                        health(resource),
                        text(&resource["health"]["message"])
                    )
                })
                .collect(),
            out_of_sync: differing.map(name).collect(),
            errors,
        }
    }
}

// === impl GitRepository ===

impl GitRepository {
    /// An empty repository that goes with the cluster.
    ///
    /// # Errors
    /// There is no git.
    pub fn create(plane: &ControlPlane, name: &str) -> Result<Self> {
        let folder = plane.folder().join("git").join(name);
        fs::create_dir_all(&folder)?;
        let repository = Self { folder };
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        Ok(repository)
    }

    /// The work tree, to write into.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where Argo CD finds it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// Commits everything as it is in the work tree; the commit's hash.
    ///
    /// # Errors
    /// Nothing has changed.
    pub fn commit(&self) -> Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&[
            "-c",
            "user.name=tests",
            "-c",
            "user.email=tests@localhost",
            "commit",
            "--quiet",
            "--message=change",
        ])?;
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    fn git(&self, args: &[&str]) -> Result<String> {
        run(Command::new("git").arg("-C").arg(&self.folder).args(args))
    }
}
