//! Mock: a fixed answer, no network (Ref §6.7).

use paifang_resources::MockBackend;
use paifang_snapshot::wire::{MockTarget, Target};

use super::{At, Kind, Referrer, Resolved, Resolver};
use crate::parse::Check;

/// What is written under `mock`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mock {
    status: u16,
    headers: Vec<(String, String)>,
    /// Absent: the Api's sample.
    body: Option<String>,
}

impl Kind for Mock {
    type Written = MockBackend;

    fn parse(at: At<'_>, mock: &MockBackend, check: &mut Check<'_>) -> Option<Self> {
        let field = at.field;
        check.range(&format!("{field}.statusCode"), mock.status_code, 200, 599);
        check.count(&format!("{field}.headers"), mock.headers.len(), 32);
        for (at, header) in mock.headers.iter().enumerate() {
            let field = format!("{field}.headers[{at}]");
            check.header_name(&format!("{field}.name"), &header.name);
            check.not_managed(&format!("{field}.name"), &header.name);
            check.header_value(&format!("{field}.value"), &header.value);
            check.length(&format!("{field}.value"), Some(&header.value), 2048);
        }
        check.length(&format!("{field}.body"), mock.body.as_deref(), 32_768);
        Some(Self {
            status: mock.status_code,
            headers: mock
                .headers
                .iter()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
            body: mock.body.clone(),
        })
    }

    fn resolve(&self, _: Referrer<'_>, _: &mut Resolver<'_, '_>) -> Resolved {
        let target = Target::Mock(MockTarget {
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone().unwrap_or_default(),
        });
        Resolved {
            sample_fills: self.body.is_none(),
            ..Resolved::new(target, "mock".to_owned())
        }
    }
}
