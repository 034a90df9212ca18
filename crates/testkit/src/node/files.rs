//! The configuration files of a node's programs, and the few things of the machine that they need or change.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::state::State;

/// What kubelet sets for the whole machine; put back when the node goes.
const SYSCTLS: [&str; 6] = [
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
    "/proc/sys/kernel/keys/root_maxkeys",
    "/proc/sys/kernel/keys/root_maxbytes",
];

pub(super) fn remember_sysctls(state: &State) -> Result<()> {
    let lines = SYSCTLS
        .iter()
        .filter_map(|path| Some(format!("{path}={}", fs::read_to_string(path).ok()?)));
    state.write("sysctls", lines.collect::<String>())?;
    Ok(())
}

/// Makes the control group below which kubelet puts all pods, in every hierarchy of version 1; version 2 needs just one.
pub(super) fn make_cgroups(name: &str) -> Result<()> {
    let home = Path::new("/sys/fs/cgroup");
    if home.join("cgroup.controllers").exists() {
        fs::create_dir_all(home.join(name))?;
        return Ok(());
    }
    for entry in fs::read_dir(home)? {
        let hierarchy = entry?.path();
        if !hierarchy.join("cgroup.procs").exists() || hierarchy.ends_with("unified") {
            continue;
        }
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // A group without these takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                fs::write(group.join(file), value)?;
            }
        }
    }
    Ok(())
}

/// Everything in folders of its own. `restrict_oom_score_adj`: without CAP_SYS_RESOURCE no container would start.
pub(super) fn containerd(state: &State) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "{run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{run}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "paifang.test/pause:1"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{run}/runc"
SystemdCgroup = false
"#,
        root = state.path("containerd").display(),
        run = state.run("").display().to_string().trim_end_matches('/'),
        cni = state.path("cni").display(),
    )
}

/// One link for each pod, routed: a bridge would need a kernel module to let Services work between pods on it.
pub(super) fn cni(state: &State) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(&json!({
        "cniVersion": "1.0.0",
        // Under this name the plug-ins file what they did.
        "name": state.netns(),
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": state.path("addresses"),
                    "ranges": [[{"subnet": "10.244.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    }))?)
}

pub(super) fn kubelet(state: &State, ca: &Path) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(&json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", state.run("containerd.sock").display()),
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": ca}},
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", state.netns()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "resolvConf": state.path("resolv.conf"),
        "clusterDNS": [crate::control_plane::NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "podLogsDir": state.path("pods"),
        "volumePluginDir": state.run("kubelet/volumeplugins"),
        "serializeImagePulls": false,
        // The disk belongs to other things as well, and there is nothing to pull an image from again.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "100Mi", "nodefs.inodesFree": "1%", "imagefs.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "2s",
        // A Secret or ConfigMap mounted by a pod follows its object soon.
        "syncFrequency": "5s",
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "logging": {"verbosity": 1},
    }))?)
}

/// Services by name, as every cluster has it. Short times to live, so that a test need not wait for a name to be forgotten.
pub(super) fn dns(kubeconfig: &Path) -> String {
    format!(
        "cluster.local:53 {{\n  errors\n  kubernetes {{\n    kubeconfig {}\n    ttl 1\n  }}\n}}\n",
        kubeconfig.display()
    )
}

pub(super) fn proxy(state: &State) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": state.path("kube-proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": "10.244.0.0/16",
        "hostnameOverride": super::NAME,
        "oomScoreAdj": 0,
        // Limits of connection tracking are the machine's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
    }))?)
}
