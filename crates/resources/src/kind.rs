//! The six kinds by name, for code that handles objects before it knows their type.

use std::{fmt, str::FromStr};

/// One of the six kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`crate::ApiGroup`]
    ApiGroup,
    /// [`crate::BackendService`]
    BackendService,
    /// [`crate::Api`]
    Api,
    /// [`crate::App`]
    App,
    /// [`crate::Authorization`]
    Authorization,
    /// [`crate::DomainBinding`]
    DomainBinding,
}

/// A `kind` that is none of the six.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind(pub String);

// === impl Kind ===

impl Kind {
    /// All six, in the order in which the documentation shows them.
    pub const ALL: [Self; 6] = [
        Self::ApiGroup,
        Self::BackendService,
        Self::Api,
        Self::App,
        Self::Authorization,
        Self::DomainBinding,
    ];

    /// The name as written in `kind:`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiGroup => "ApiGroup",
            Self::BackendService => "BackendService",
            Self::Api => "Api",
            Self::App => "App",
            Self::Authorization => "Authorization",
            Self::DomainBinding => "DomainBinding",
        }
    }

    /// The plural as used in API paths and with `kubectl get`.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::ApiGroup => "apigroups",
            Self::BackendService => "backendservices",
            Self::Api => "apis",
            Self::App => "apps",
            Self::Authorization => "authorizations",
            Self::DomainBinding => "domainbindings",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

// === impl UnknownKind ===

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kind {:?} is none of", self.0)?;
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            write!(f, "{} {kind}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownKind {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Api, ApiGroup, App, Authorization, BackendService, DomainBinding};
    use kube::Resource;

    #[test]
    fn names_and_plurals_are_those_of_the_types() {
        fn names<K: Resource<DynamicType = ()>>() -> (String, String) {
            (K::kind(&()).into_owned(), K::plural(&()).into_owned())
        }
        let types = [
            names::<ApiGroup>(),
            names::<BackendService>(),
            names::<Api>(),
            names::<App>(),
            names::<Authorization>(),
            names::<DomainBinding>(),
        ];
        let kinds = Kind::ALL.map(|kind| (kind.name().to_owned(), kind.plural().to_owned()));
        assert_eq!(types, kinds);
    }

    #[test]
    fn a_name_parses_to_its_kind_and_nothing_else_does() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let error = "api".parse::<Kind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "kind \"api\" is none of ApiGroup, BackendService, Api, App, Authorization, DomainBinding"
        );
    }
}
