//! Container images from files of ours. Nothing can be pulled, so each begins `FROM scratch`.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::{program, repository, run};

/// An image in a file that [`crate::Node::load`] can read.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name, as pods write it. Its tag is not `latest`, so that kubelet does not try to pull it.
    pub name: String,
    /// The file, in Docker's archive format.
    pub archive: PathBuf,
}

// === impl Image ===

impl Image {
    /// The echo server (`e2e/cluster/pod`): listens on 8080, answers JSON with its pod's name and what it received, and sets the
    /// header `X-Pod`. `?delay=250` waits milliseconds, `?status=503` answers that. After SIGTERM it accepts for another 3 s
    /// (`--lame-duck`), then finishes what is under way.
    ///
    /// # Errors
    /// `e2e/setup.sh` was not run, or buildah fails.
    pub fn echo() -> Result<Self> {
        Self::pod(
            "paifang.test/echo:1",
            r#"ENTRYPOINT ["/paifang-pod"]
CMD ["echo"]"#,
        )
    }

    /// Paifang from a program that is there, with the repository's own Dockerfile: `paifang.test/paifang:1`.
    ///
    /// # Errors
    /// There is no such program, or buildah fails; the message holds what it printed.
    pub fn paifang(program: &Path) -> Result<Self> {
        Self::paifang_tagged(program, "1")
    }

    /// As [`Image::paifang`], with another tag: for upgrades.
    ///
    /// # Errors
    /// As [`Image::paifang`].
    pub fn paifang_tagged(program: &Path, tag: &str) -> Result<Self> {
        let name = format!("paifang.test/paifang:{tag}");
        let archive = Self::archive(&name);
        run(Command::new(repository().join("e2e/image.sh"))
            .arg(program)
            .arg(&name)
            .arg(&archive))?;
        Ok(Self { name, archive })
    }

    /// What holds a pod's namespaces.
    pub(crate) fn pause() -> Result<Self> {
        Self::pod(
            "paifang.test/pause:1",
            r#"ENTRYPOINT ["/paifang-pod", "pause"]"#,
        )
    }

    fn pod(name: &str, end: &str) -> Result<Self> {
        let program = program("paifang-pod")?;
        Self::laid_out(
            name,
            &[&program],
            &format!("USER 65532:65532\n{end}"),
            |root| {
                fs::copy(&program, root.join("paifang-pod"))?;
                Ok(())
            },
        )
    }

    /// A static program of `.cache/bin` where a command finds it, `/usr/local/bin`, and a `/tmp` that anybody can write to.
    ///
    /// # Errors
    /// `e2e/setup.sh` was not run, or buildah fails.
    pub fn of_program(name: &str, what: &str) -> Result<Self> {
        let program = program(what)?;
        Self::laid_out(name, &[&program], "USER 65532:65532", |root| {
            let (bin, tmp) = (root.join("usr/local/bin"), root.join("tmp"));
            fs::create_dir_all(&bin)?;
            fs::copy(&program, bin.join(what))?;
            fs::create_dir(&tmp)?;
            fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777))?;
            Ok(())
        })
    }

    /// Python and functions-framework, with the functions of a file at `/function/main.py`: what the Dockerfile beside that file makes where images can be
    /// pulled.
    ///
    /// # Errors
    /// `e2e/setup.sh` was not run, or buildah fails.
    pub fn functions(name: &str, functions: &Path) -> Result<Self> {
        let python = repository().join(".cache/venv/bin/python");
        let script = repository().join("e2e/functions_rootfs.py");
        let packages = repository().join(".cache/venv/.installed");
        Self::laid_out(
            name,
            &[functions, &script, &packages],
            "USER 65532:65532",
            |root| {
                run(Command::new(&python).arg(&script).arg(root))?;
                fs::create_dir(root.join("function"))?;
                fs::copy(functions, root.join("function/main.py"))?;
                Ok(())
            },
        )
    }

    /// An image of files that `lay_out` puts into a folder; as it was, if nothing of `sources` is newer.
    fn laid_out(
        name: &str,
        sources: &[&Path],
        end: &str,
        lay_out: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let archive = Self::archive(name);
        if sources.iter().all(|source| is_newer(&archive, source)) {
            return Ok(Self {
                name: name.to_owned(),
                archive,
            });
        }
        let folder = repository().join(format!(
            ".cache/images/{}-{}",
            file_name(name),
            std::process::id()
        ));
        let root = folder.join("root");
        fs::create_dir_all(&root)?;
        let built = lay_out(&root).and_then(|()| {
            let dockerfile = folder.join("Dockerfile");
            fs::write(&dockerfile, format!("FROM scratch\nCOPY root /\n{end}\n"))?;
            Self::build(name, &dockerfile, &folder)
        });
        fs::remove_dir_all(&folder)?;
        built
    }

    /// Builds an image with buildah; `RUN` lines are possible only if an earlier one brought a shell.
    ///
    /// # Errors
    /// buildah is missing or refuses; the message holds what it printed.
    pub fn build(name: &str, dockerfile: &Path, context: &Path) -> Result<Self> {
        let home = repository().join(".cache/buildah");
        fs::create_dir_all(&home)?;
        // One store, so one build at a time.
        let lock = File::create(home.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let buildah = |args: &[&str]| {
            run(Command::new("buildah")
                .arg("--root")
                .arg(home.join("root"))
                .arg("--runroot")
                .arg(home.join("run"))
                .args(["--storage-driver", "vfs"])
                .args(args))
        };
        let (dockerfile, context) = (dockerfile.to_string_lossy(), context.to_string_lossy());
        buildah(&[
            "build",
            "--isolation",
            "chroot",
            "--tag",
            name,
            "--file",
            &dockerfile,
            &context,
        ])
        .context("buildah cannot build the image")?;
        let archive = Self::archive(name);
        let new = archive.with_extension("new");
        let _ = fs::remove_file(&new);
        buildah(&[
            "push",
            "--quiet",
            name,
            &format!("docker-archive:{}:{name}", new.display()),
        ])?;
        fs::rename(&new, &archive)?;
        Ok(Self {
            name: name.to_owned(),
            archive,
        })
    }

    fn archive(name: &str) -> PathBuf {
        repository()
            .join(".cache/images")
            .join(format!("{}.tar", file_name(name)))
    }
}

fn file_name(name: &str) -> String {
    name.replace(['/', ':'], "-")
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    time(file) > time(than)
}
