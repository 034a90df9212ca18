//! Settings that decide what a folder means, shared by `standalone` and `check` so that both give the same verdicts.

use clap::Args;
use ipnet::IpNet;
use paifang_compiler::{AddressPolicy, CertificateFacts, Limits, Settings};
use paifang_gateway::Gateway;
use paifang_snapshot::wire::Certificate;

use crate::units::{Size, Time};

/// What a folder means.
#[derive(Debug, Clone, Args)]
pub(crate) struct Meaning {
    /// Suffix of the groups' own host names, `<group id>.SUFFIX`
    #[arg(
        long,
        value_name = "SUFFIX",
        default_value = "api.localtest",
        help_heading = "Platform settings"
    )]
    pub(crate) sub_domain_suffix: String,

    /// The same on the internal listener
    #[arg(
        long,
        value_name = "SUFFIX",
        default_value = "internal.localtest",
        help_heading = "Platform settings"
    )]
    pub(crate) internal_suffix: String,

    /// Also allow backends in this network; repeat for several
    ///
    /// Addresses are checked after DNS, at every connection. Link-local addresses and the cloud providers' metadata services
    /// (169.254.169.254, 100.100.100.200) are refused unless they are allowed here. Loopback is allowed in standalone, where the
    /// backends of a laptop are; in a cluster it is not.
    #[arg(long, value_name = "CIDR", help_heading = "Platform settings")]
    pub(crate) allow_backend: Vec<IpNet>,

    /// Longest `timeout` that an Api may ask for
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        help_heading = "Limits"
    )]
    max_backend_timeout: Time,

    /// Apis of one group
    #[arg(long, value_name = "N", default_value_t = Limits::default().apis_per_group, help_heading = "Limits")]
    max_apis_per_group: usize,

    /// Domains of one group
    #[arg(long, value_name = "N", default_value_t = Limits::default().domains_per_group, help_heading = "Limits")]
    max_domains_per_group: usize,

    /// Stage variables of one stage of a group
    #[arg(long, value_name = "N", default_value_t = Limits::default().variables_per_stage, help_heading = "Limits")]
    max_stage_variables: usize,

    /// A certificate chain, a key, or a CA bundle
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "20KiB",
        help_heading = "Limits"
    )]
    max_pem: Size,
}

impl Meaning {
    /// For the compiler. `loopback` allows backends on this machine.
    pub(crate) fn settings(&self, loopback: bool) -> Settings {
        let mut settings = Settings::new(check_certificate);
        self.sub_domain_suffix
            .clone_into(&mut settings.public_suffix);
        self.internal_suffix
            .clone_into(&mut settings.internal_suffix);
        settings.addresses = AddressPolicy {
            loopback,
            link_local: self.allow_backend.iter().any(is_special),
        };
        settings.limits = Limits {
            domains_per_group: self.max_domains_per_group,
            apis_per_group: self.max_apis_per_group,
            variables_per_stage: self.max_stage_variables,
            pem_bytes: usize::try_from(self.max_pem.0).unwrap_or(usize::MAX),
            backend_timeout_ms: u32::try_from(self.max_backend_timeout.0.as_millis())
                .unwrap_or(u32::MAX),
        };
        settings
    }
}

/// Whether a network holds addresses that are refused otherwise. The compiler then leaves them to the gateway, which knows the networks.
fn is_special(network: &IpNet) -> bool {
    const SPECIAL: [&str; 4] = [
        "169.254.0.0/16",
        "100.100.100.200/32",
        "fe80::/10",
        "fd00:ec2::254/128",
    ];
    let special = SPECIAL
        .iter()
        .filter_map(|network| network.parse::<IpNet>().ok());
    special
        .into_iter()
        .any(|special| special.contains(network) || network.contains(&special))
}

pub(crate) fn check_certificate(certificate: &Certificate) -> Result<CertificateFacts, String> {
    let facts = Gateway::check_certificate(certificate)?;
    Ok(CertificateFacts {
        names: facts.names,
        not_after_ms: Some(facts.not_after_ms),
    })
}
