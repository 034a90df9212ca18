//! Argo CD itself on a Git repository with our objects, set up as docs/argocd.md says: what it shows is true, and it and the controller leave each other alone.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use paifang_testkit::{Application, ArgoCd, GitRepository, eventually, repository, run};
use serde_json::Value;

use crate::cluster::{PATIENCE, Scene, fenced, shell_command};

/// For so long nothing may be synced again, nor written.
const QUIET: Duration = Duration::from_secs(30);

const GROUP: &str = "
apiVersion: paifang.dev/v1alpha1
kind: ApiGroup
metadata: {name: weather}
spec: {qpsLimit: 100000}
";
const DOMAIN: &str = "
apiVersion: paifang.dev/v1alpha1
kind: DomainBinding
metadata: {name: weather}
spec: {groupRef: {name: weather}, domain: HOST, network: Internet}
";
const BACKEND: &str = "
apiVersion: paifang.dev/v1alpha1
kind: BackendService
metadata: {name: forecast}
spec:
  type: Mock
  stages: {RELEASE: {mock: {body: sunny}}}
";
const FORECAST: &str = "
apiVersion: paifang.dev/v1alpha1
kind: Api
metadata: {name: forecast}
spec:
  groupRef: {name: weather}
  auth: {type: Anonymous}
  request: {method: GET, path: /forecast}
  backend: {serviceRef: {name: forecast}}
  stages: {RELEASE: {}}
";
const HELLO: &str = "
apiVersion: paifang.dev/v1alpha1
kind: Api
metadata: {name: hello}
spec:
  groupRef: {name: weather}
  auth: {type: Anonymous}
  request: {method: GET, path: /hello}
  backend: {mock: {body: hello}}
  stages: {RELEASE: {}}
";
/// With a credential that the controller makes, in a Secret that is not in Git.
const CALLERS: &str = "
apiVersion: paifang.dev/v1alpha1
kind: App
metadata: {name: mobile}
spec:
  displayName: mobileApp
  credentials: [{name: code, type: AppCode}]
---
apiVersion: paifang.dev/v1alpha1
kind: Authorization
metadata: {name: mobile}
spec: {apis: [{name: hello}], apps: [{name: mobile}], stage: RELEASE}
";

#[test]
fn argo_cd_shows_what_is_true_and_does_not_fight_the_controller() {
    let scene = Scene::alone();
    let tour = Tour::begin(&scene).unwrap();
    tour.first_sync_is_healthy();
    tour.nothing_is_synced_twice();
    tour.a_bad_edit_is_degraded_and_served_as_before();
    tour.what_can_never_be_right_fails_the_sync();
    tour.a_change_by_hand_is_undone();
    tour.what_is_pruned_goes_offline();
}

struct Tour<'s> {
    scene: &'s Scene,
    argo: ArgoCd<'s>,
    git: GitRepository,
}

// === impl Tour ===

impl<'s> Tour<'s> {
    fn begin(scene: &'s Scene) -> Result<Self> {
        let plane = scene.node.plane();
        let argo = ArgoCd::start(plane, &Value::Null)?;
        let git = GitRepository::create(plane, "weather")?;
        fs::create_dir_all(git.folder().join("apis"))?;
        let tour = Self { scene, argo, git };
        tour.add_health_checks()?;
        Ok(tour)
    }

    /// The three commands of docs/argocd.md.
    fn add_health_checks(&self) -> Result<()> {
        let commands = fenced(&page()?, "## Health\n", "sh")?;
        ensure!(commands.lines().count() == 3, "{commands}");
        // They leave a file.
        let folder = self.scene.node.folder().join("health");
        fs::create_dir_all(&folder)?;
        std::os::unix::fs::symlink(repository().join("charts"), folder.join("charts"))?;
        run(shell_command(self.scene.node, &commands)?.current_dir(folder))?;
        Ok(())
    }

    fn first_sync_is_healthy(&self) {
        for (file, text) in [
            ("group", GROUP),
            ("domain", DOMAIN),
            ("backend", BACKEND),
            ("forecast", FORECAST),
            ("hello", HELLO),
            ("callers", CALLERS),
        ] {
            self.write(file, &text.replace("HOST", &self.scene.host()));
        }
        let revision = self.git.commit().unwrap();
        self.scene
            .kubectl()
            .apply("argocd", &self.application().unwrap())
            .unwrap();
        self.expect(&revision, "Healthy");
        self.scene.answers("/hello", "hello");
        self.scene.answers("/forecast", "sunny");
        self.scene.served_by("hello", "2/2");
    }

    /// The application of docs/argocd.md, for our repository and namespace.
    fn application(&self) -> Result<String> {
        let all = fenced(&page()?, "## Applications\n", "yaml")?;
        let ours = all
            .split("---\n")
            .find(|it| it.contains("\n  name: weather\n"));
        let text = ours
            .context("docs/argocd.md has an application weather")?
            .replace("https://git.example.com/teams/weather.git", &self.git.url())
            .replace(
                "namespace: weather}",
                &format!("namespace: {}}}", self.scene.namespace),
            );
        ensure!(
            text.contains(&self.git.url()) && text.contains(&self.scene.namespace),
            "{text}"
        );
        Ok(text)
    }

    fn nothing_is_synced_twice(&self) {
        let (syncs, objects) = (self.syncs().unwrap(), self.versions().unwrap());
        let until = Instant::now() + QUIET;
        while Instant::now() < until {
            thread::sleep(Duration::from_secs(3));
            // As often as Argo CD looks by itself, and more.
            self.argo.refresh("weather").unwrap();
            let app = self.argo.application("weather").unwrap();
            assert_eq!(
                (app.sync.as_str(), app.health.as_str()),
                ("Synced", "Healthy"),
                "{app:#?}"
            );
        }
        assert_eq!(self.syncs().unwrap(), syncs, "it was synced again");
        assert_eq!(self.versions().unwrap(), objects, "objects were written");
    }

    /// How many syncs there were, and when the last began: the history alone does not count those that changed nothing.
    fn syncs(&self) -> Result<(usize, String)> {
        let status = self.status()?;
        let began = status["operationState"]["startedAt"]
            .as_str()
            .context("no sync yet")?;
        let history = status["history"].as_array().context("no history yet")?;
        Ok((history.len(), began.to_owned()))
    }

    fn status(&self) -> Result<Value> {
        let path = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/weather";
        Ok(self.scene.node.plane().ask("GET", path, &Value::Null)?["status"].take())
    }

    /// The versions of the objects of the six kinds: a write of a status would change them too.
    fn versions(&self) -> Result<BTreeMap<String, String>> {
        let list = self
            .scene
            .kubectl()
            .get(&["paifang", "-n", &self.scene.namespace])?;
        let mut versions = BTreeMap::new();
        for item in list["items"].as_array().context("a list")? {
            let name = format!("{}/{}", item["kind"], item["metadata"]["name"]);
            versions.insert(name, item["metadata"]["resourceVersion"].to_string());
        }
        ensure!(versions.len() == 7, "{versions:?}");
        Ok(versions)
    }

    fn a_bad_edit_is_degraded_and_served_as_before(&self) {
        let running = self.scene.load("/forecast").start();
        self.write(
            "forecast",
            &FORECAST.replace("{name: forecast}}\n", "{name: forecats}}\n"),
        );
        let app = self.push("Degraded");
        let [said] = &app.unhealthy[..] else {
            panic!("only one is worse for it: {app:#?}")
        };
        assert!(
            said.starts_with("Api/forecast: Degraded: ") && said.contains("forecats"),
            "it names what is wrong: {said}"
        );
        eprintln!("Argo CD says: {said}");
        self.scene.answers("/forecast", "sunny");

        self.write("forecast", FORECAST);
        self.push("Healthy");
        let outcome = running.stop();
        eprintln!("a bad edit and its repair: {outcome}");
        outcome.must_be_flawless(300);
    }

    /// It passes the definition's schema, so Argo CD sends it, and the webhook refuses it with a word of ours. The mended commit is taken up by the next try.
    fn what_can_never_be_right_fails_the_sync(&self) {
        let parameter =
            "mode: Mapping, parameters: [{name: q, in: Query, type: String, pattern: '('}]}";
        let bad = FORECAST.replace("path: /forecast}", &format!("path: /forecast, {parameter}"));
        self.write("forecast", &bad);
        self.git.commit().unwrap();
        self.argo.refresh("weather").unwrap();
        let said = eventually("Argo CD tells what is wrong", PATIENCE, || {
            let status = self.status()?;
            let said = status["operationState"]["message"]
                .as_str()
                .unwrap_or_default();
            ensure!(said.contains("pattern"), "{}", status["operationState"]);
            anyhow::Ok(said.to_owned())
        });
        eprintln!("Argo CD says: {said}");
        assert!(
            said.contains("spec.request.parameters"),
            "it names the field: {said}"
        );
        self.scene.answers("/forecast", "sunny");
        self.write("forecast", FORECAST);
        self.push("Healthy");
    }

    fn a_change_by_hand_is_undone(&self) {
        let syncs = self.syncs().unwrap();
        self.scene.patch(
            "api/hello",
            r#"{"spec":{"backend":{"mock":{"body":"by hand"}}}}"#,
        );
        eventually("Argo CD has undone it", PATIENCE, || {
            ensure!(self.syncs()? > syncs, "no sync since");
            let api = self.scene.get("api/hello")?;
            ensure!(
                api["spec"]["backend"]["mock"]["body"] == "hello",
                "{}",
                api["spec"]
            );
            Ok(())
        });
        self.scene.answers("/hello", "hello");
    }

    fn what_is_pruned_goes_offline(&self) {
        for file in ["hello", "callers"] {
            fs::remove_file(self.file(file)).unwrap();
        }
        self.push("Healthy");
        eventually("its route is offline", PATIENCE, || {
            let answer = self.scene.call("/hello")?;
            ensure!(answer.status == 404, "{}", answer.status);
            Ok(())
        });
        self.scene.get("api/hello").unwrap_err();
        self.scene.answers("/forecast", "sunny");
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.file(file), text).unwrap();
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.git
            .folder()
            .join("apis")
            .join(name)
            .with_extension("yaml")
    }

    /// Commits, lets Argo CD know, as the webhook of a Git server does, and waits until it is Synced.
    fn push(&self, health: &str) -> Application {
        let revision = self.git.commit().unwrap();
        self.argo.refresh("weather").unwrap();
        self.expect(&revision, health)
    }

    fn expect(&self, revision: &str, health: &str) -> Application {
        self.argo
            .wait("weather", revision, health, 2 * PATIENCE)
            .unwrap()
    }
}

impl Drop for Tour<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.scene.node.plane().log("argocd-application-controller");
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "--- Argo CD\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

fn page() -> Result<String> {
    Ok(fs::read_to_string(repository().join("docs/argocd.md"))?)
}
